"""Published files become checkpoints and come back bit for bit; what does not fit is refused."""

import argparse
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from evad_jax import known_answers, published_files, published_names
from evad_jax.checkpoint import Checkpoints
from evad_jax.errors import InputError
from evad_jax.published_files import read
from evad_jax.tools import convert_checkpoint
from tests import golden_case, golden_compare, published_sources
from tests.golden_check import table
from tests.golden_stages import stages_of
from tests.published_sources import KEPT, NO_TORCH, UNTOLD, flags, write

SHARED = Path(__file__).resolve().parents[3] / 'shared' / 'golden'
COMPACT = Path(__file__).resolve().parents[1] / 'golden'


def convert(source, out, **settings):
  convert_checkpoint.main([str(source), str(out), *flags(settings)])
  return load(out)


def load(directory):
  with Checkpoints(directory, read_only=True) as checkpoints:
    return checkpoints.settings(0), checkpoints.read_params(0)


def assert_same_tensors(found, wanted):
  assert set(found) == set(wanted)
  for name, tensor in wanted.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
  """A micro detector: file, directory, settings and parameters."""
  folder = tmp_path_factory.mktemp('converted')
  source = write(folder / 'micro.safetensors', published_sources.detector())
  return source, folder / 'micro', *convert(source, folder / 'micro', **UNTOLD, **KEPT)


def test_a_detector_is_recognised_and_its_settings_kept(converted):
  _, _, settings, params = converted
  model = settings['model']
  assert (model['width'], model['depth'], model['num_actions'], model['num_heads']) == (32, 4, 5, 2)
  assert (model['num_proposals'], model['num_stages'], model['dynamic_width']) == (6, 1, 8)
  assert (model['decoder_width'], model['decoder_depth'], model['action_hidden']) == (32, 1, 32)
  assert (model['token_restoring'], model['padding']) == ('released', 'released')
  assert settings['source']['kind'] == 'detector' and settings['source']['published']
  assert settings['parameters_sha256'] == known_answers.parameters_hash(params)
  assert set(settings['known_answers']) == {'person_logits', 'boxes', 'action_logits'}


def test_the_way_back_is_exact_and_needs_no_flags(converted, tmp_path, capsys):
  source, directory, settings, params = converted
  back = tmp_path / 'back.safetensors'
  convert_checkpoint.main([str(directory), str(back), '--to', 'safetensors'])
  assert_same_tensors(read(back).tensors, read(source).tensors)
  assert f'sha256 {published_files.file_hash(back)}' in capsys.readouterr().out
  again, found = convert(back, tmp_path / 'again')
  assert settings['model'].items() <= again['model'].items()  # the rest are defaults
  assert again['parameters_sha256'] == settings['parameters_sha256']
  assert known_answers.errors(settings['known_answers'], again['known_answers']) == {
    'person_logits': 0,
    'boxes': 0,
    'action_logits': 0,
  }
  flat, wanted = published_names.flatten(found), published_names.flatten(params)
  for path, array in wanted.items():
    np.testing.assert_array_equal(flat[path], array)


def test_pth_both_ways(converted, tmp_path):
  torch = pytest.importorskip('torch', reason=NO_TORCH)
  source, directory, settings, _ = converted
  back = tmp_path / 'back.pth'
  convert_checkpoint.main([str(directory), str(back), '--to', 'torch'])
  wanted = read(source).tensors
  assert_same_tensors(read(back).tensors, wanted)
  # As the published code reads it.
  loaded = torch.load(back, weights_only=True)['model_state']
  assert_same_tensors({name: tensor.numpy() for name, tensor in loaded.items()}, wanted)
  again, _ = convert(back, tmp_path / 'again')
  assert again['parameters_sha256'] == settings['parameters_sha256']


@pytest.fixture
def no_answers(monkeypatch):
  """Where they do not matter: they take a compilation."""
  monkeypatch.setattr(known_answers, 'answers', lambda *arguments: {})


def test_the_text_in_the_file_tells_what_is_not_in_the_tensors(tmp_path, no_answers):
  pytest.importorskip('torch', reason=NO_TORCH)
  cfg = 'VIT:\n  KEEP_RATE: 0.7\n  ENHANCED_WEIGHT: 4\n  ROI_EXTENSION: [0.4, 0.2]\n'
  source = write(tmp_path / 'micro.pth', published_sources.detector(), cfg)
  settings, _ = convert(source, tmp_path / 'out', **UNTOLD)
  assert settings['model']['enhanced_weight'] == 4.0 and settings['model']['keep_rate'] == 0.7


@pytest.mark.parametrize(
  'make, prefix, form, container, kind',
  [
    (published_sources.pretraining, 'encoder.', 'pth', 'model', 'pretraining'),
    (published_sources.pretraining, '', 'safetensors', '', 'pretraining'),
    (published_sources.encoder, 'backbone.', 'pth', 'module', 'encoder'),
    (published_sources.encoder, 'backbone.', 'safetensors', '', 'encoder'),
    (published_sources.encoder, '', 'pth', '', 'encoder'),
    (published_sources.classifier, '', 'safetensors', '', 'classifier'),
  ],
)
def test_encoders_both_ways(make, prefix, form, container, kind, tmp_path, no_answers):
  tensors = make(prefix)
  arguments = {'args': argparse.Namespace(batch_size=8)}  # as VideoMAE's own files have
  source = write(tmp_path / f'e.{form}', tensors, container=container, more=container and arguments)
  heads = {'num_heads': 2, 'pretrain_size': 32}
  heads |= {'decoder_heads': 2} if kind == 'pretraining' else {}
  settings, params = convert(source, tmp_path / 'out', **heads)
  assert settings['source']['kind'] == kind
  assert ('context_refinement' in params) == (kind == 'pretraining')
  assert ('norm' in params['encoder']) == (kind != 'classifier')
  assert set(settings['model']) >= {'width', 'num_heads', 'patch'}
  assert 'keep_rate' not in settings['model']
  back = tmp_path / f'back.{form}'
  to = {'pth': 'torch', 'safetensors': 'safetensors'}[form]
  convert_checkpoint.main([str(tmp_path / 'out'), str(back), '--to', to])
  kept = {n: t for n, t in tensors.items() if n not in settings['source']['left_over']}
  found = read(back)
  assert_same_tensors(found.tensors, kept)
  if form == 'pth':
    assert found.container == (container or 'model')
  left = {'pretraining': 'decoder.head.bias', 'classifier': 'head.bias', 'encoder': None}[kind]
  assert (left in settings['source']['left_over']) == (left is not None)
  assert convert(back, tmp_path / 'again')[0]['parameters_sha256'] == settings['parameters_sha256']


def test_the_decoder_can_be_left_out(tmp_path, no_answers):
  source = write(tmp_path / 'e.safetensors', published_sources.pretraining())
  given = flags({'num_heads': 2, 'pretrain_size': 32})
  convert_checkpoint.main([str(source), str(tmp_path / 'out'), '--encoder-only', *given])
  settings, params = load(tmp_path / 'out')
  assert list(params) == ['encoder'] and 'mask_token' in settings['source']['left_over']


def lacking(tensors):
  del tensors['blocks.1.attn.proj.bias'], tensors['det_head.mask_token']


def too_many(tensors):
  tensors |= {'blocks.1.gamma_1': np.ones(32, np.float32), 'stray': np.ones(1, np.float32)}


def misshapen(tensors):
  tensors['det_head.decoder.blocks.0.action_logits.weight'] = np.ones((5, 33), np.float32)
  tensors['fpn_output4.bias'] = np.ones(31, np.float32)


def all_at_once(tensors):
  for change in (lacking, too_many, misshapen):
    change(tensors)


@pytest.mark.parametrize(
  'change, words',
  [
    (lacking, ['2 missing: ', 'blocks.1.attn.proj.bias', 'det_head.mask_token']),
    (too_many, ['2 left over: ', 'blocks.1.gamma_1', 'stray']),
    (
      misshapen,
      [
        '2 of another shape: ',
        'det_head.decoder.blocks.0.action_logits.weight is (5, 33) instead of (5, 32)',
        'fpn_output4.bias is (31,) instead of (32,)',
      ],
    ),
    (all_at_once, ['2 missing', '2 left over', '2 of another shape']),
  ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_written(change, words, tmp_path):
  tensors = published_sources.detector()
  change(tensors)
  source = write(tmp_path / 'bad.safetensors', tensors)
  with pytest.raises(InputError) as error:
    convert(source, tmp_path / 'out', **UNTOLD, **KEPT)
  for word in ('bad.safetensors', *words):
    assert word in str(error.value)
  assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


def test_a_key_tensor_that_is_missing_is_named(tmp_path):
  for name in ('patch_embed.proj.weight', 'norm.weight', 'init_proposal_boxes.weight'):
    tensors = published_sources.detector()
    del tensors[name]
    source = write(tmp_path / 'bad.safetensors', tensors)
    settings = UNTOLD | KEPT | {'patch': 8}
    with pytest.raises(InputError, match=f'1 missing: {name}'):
      convert(source, tmp_path / 'out', **settings)


def test_a_tensor_that_is_claimed_twice_is_an_error(tmp_path):
  tensors = published_sources.encoder() | {'encoder.norm.bias': np.zeros(32, np.float32)}
  source = write(tmp_path / 'twice.safetensors', tensors)
  with pytest.raises(InputError, match=r'1 used twice: norm.bias by (encoder\.)?norm.bias and'):
    convert(source, tmp_path / 'out', num_heads=2)


def test_an_encoder_of_mixed_prefixes_is_an_error(tmp_path):
  tensors = published_sources.encoder()
  tensors['encoder.norm.bias'] = tensors.pop('norm.bias')
  source = write(tmp_path / 'mixed.safetensors', tensors)
  with pytest.raises(InputError, match='different prefixes'):
    convert(source, tmp_path / 'out', num_heads=2)


def test_a_pre_training_encoder_must_have_its_norm(tmp_path):
  """Only a fine-tuned one, which has another in its place, may lack it."""
  tensors = published_sources.encoder()
  del tensors['norm.bias']
  source = write(tmp_path / 'e.safetensors', tensors)
  with pytest.raises(InputError, match='1 missing: norm.bias'):
    convert(source, tmp_path / 'out', num_heads=2)


def test_a_lost_decoder_block_is_an_error(tmp_path):
  tensors = published_sources.pretraining(decoder_depth=3)
  tensors = {n: t for n, t in tensors.items() if not n.startswith('decoder.blocks.1.')}
  source = write(tmp_path / 'e.safetensors', tensors)
  with pytest.raises(InputError, match=r'1\d missing: det_head.decoder.blocks.1.attn'):
    convert(source, tmp_path / 'out', num_heads=2, decoder_heads=2)


class Evil:
  """Would touch a file when unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path):
  torch = pytest.importorskip('torch', reason=NO_TORCH)
  content = {'model_state': {'norm.weight': torch.ones(3)}, 'epoch': Evil(tmp_path / 'owned')}
  for old in (False, True):
    path = tmp_path / f'evil_{old}.pth'
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError, match=r'refused, because loading it could run code.*system'):
      read(path)
  (tmp_path / 'bare.pth').write_bytes(pickle.dumps(Evil(tmp_path / 'owned')))
  with pytest.raises(InputError, match='cut or damaged|could run code'):
    read(tmp_path / 'bare.pth')
  assert not (tmp_path / 'owned').exists()


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_a_cut_file_is_refused(suffix, tmp_path):
  if suffix == 'pth':
    pytest.importorskip('torch', reason=NO_TORCH)
  whole = write(tmp_path / f'whole.{suffix}', published_sources.encoder()).read_bytes()
  cut = tmp_path / f'cut.{suffix}'
  for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
    cut.write_bytes(whole[:size])
    with pytest.raises(InputError, match=f'cut.{suffix}: the file is cut or damaged'):
      read(cut)


def test_a_flipped_bit_in_a_pth_is_found(tmp_path):
  pytest.importorskip('torch', reason=NO_TORCH)
  path = write(tmp_path / 'x.pth', published_sources.encoder())
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(InputError, match='checksum'):
    read(path)


@pytest.mark.parametrize(
  'bad, words',
  [
    (np.array([1, np.nan], np.float32), 'has infinite numbers or none'),
    (np.array([1, np.inf], np.float32), 'has infinite numbers or none'),
    (np.array([1, 2], np.int64), 'is int64'),
    (np.array([1, 2], np.float64), 'is float64'),
  ],
)
def test_numbers_that_are_none_are_refused(bad, words, tmp_path):
  path = write(tmp_path / 'x.safetensors', {'norm.weight': bad})
  with pytest.raises(InputError, match=f'norm.weight {words}'):
    read(path)


def test_half_precision_is_widened_exactly(tmp_path):
  torch = pytest.importorskip('torch', reason=NO_TORCH)
  values = torch.tensor([1.5, -3.1415926, 1e-3])
  tensors = {'a': values.bfloat16(), 'b': values.half()}
  torch.save({'model': tensors}, tmp_path / 'x.pth')
  found = read(tmp_path / 'x.pth').tensors
  for name, tensor in tensors.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], tensor.float().numpy())


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['none.pth', 'out'], 'there is no such file'),
    (['.', 'out'], 'is a directory; give a .pth'),
    (['x.safetensors', '.'], 'is there already'),
    (['x.safetensors', 'out', '--keep-rate', '0.7'], 'is an encoder, which has no keep_rate'),
    (['x.safetensors', 'out'], 'no published size .width 32, depth 4.: give --setting num_heads'),
    (['x.safetensors', 'out', '--to', 'torch'], 'takes a directory of checkpoints'),
    (['nowhere', 'out.pth', '--to', 'torch'], 'no such checkpoint directory'),
    (['.', 'out.pth', '--to', 'torch', '--keep-rate', '1'], 'takes the settings of the checkpoint'),
    (['stray.safetensors', 'out'], 'neither an EVAD detector nor a VideoMAE encoder; its 1'),
  ],
)
def test_bad_calls_say_what_to_do(arguments, words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write(tmp_path / 'x.safetensors', published_sources.encoder())
  write(tmp_path / 'stray.safetensors', {'weight': np.ones(3, np.float32)})
  with pytest.raises(InputError, match=words):
    convert_checkpoint.main(arguments)


def test_settings_that_evad_has_not_are_refused(capsys):
  for wrong in ('width', 'widht=3', 'dtype=float64'):
    with pytest.raises(SystemExit):
      convert_checkpoint.main(['x', 'y', '--setting', wrong])
    assert 'configs/common.py lists them' in capsys.readouterr().err


@pytest.mark.parametrize(
  'wrong', ['num_heads=three', 'num_heads=3.5', 'prune_blocks=3', 'remat=1', 'roi_extension=a,b']
)
def test_settings_of_another_kind_are_refused(wrong, capsys):
  with pytest.raises(SystemExit):
    convert_checkpoint.main(['x', 'y', '--setting', wrong])
  assert f"'{wrong}' is not of the kind of the published value" in capsys.readouterr().err


@pytest.mark.parametrize(
  'text, value',
  [
    ('num_heads=3', 3),
    ('keep_rate=(0.7, 1, 0.6)', (0.7, 1, 0.6)),
    ('keep_rate=1', 1),
    ('padding=masked', 'masked'),
    ('prune_blocks=()', ()),
  ],
)
def test_settings_are_read_as_python_writes_them(text, value):
  assert convert_checkpoint.setting(text) == (text.partition('=')[0], value)


def test_without_torch_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  (tmp_path / 'x.pth').write_bytes(b'x')
  with pytest.raises(InputError, match='PyTorch is needed .* pip install -r requirements-torch'):
    read(tmp_path / 'x.pth')
  monkeypatch.setitem(sys.modules, 'safetensors', None)
  (tmp_path / 'x.safetensors').write_bytes(b'x')
  with pytest.raises(InputError, match='safetensors is needed .* requirements-torch.txt'):
    read(tmp_path / 'x.safetensors')


def assert_equals_the_reference(golden, size, folder, at_least, **untold):
  """The golden stages, computed with the converted parameters and the checkpoint's settings."""
  source = write(folder / f'{size}.safetensors', published_sources.golden(size))
  settings, params = convert(source, folder / 'out', **untold, **KEPT)
  case = golden_case.load_case(golden)
  model = {key: tuple(v) if isinstance(v, list) else v for key, v in settings['model'].items()}
  assert model.pop('token_restoring') == 'released'
  case = case._replace(params=params, settings=model)
  rows = golden_compare.compare_stages(
    case.golden, stages_of(case), tiny=size == 'tiny', x64=case.x64
  )
  failed = [row for row in rows if not row.passed()]
  assert not failed, '\n' + table(failed)
  assert len([row for row in rows if row.tolerance is not None]) >= at_least
  return settings


def test_a_converted_tiny_checkpoint_equals_the_reference(tmp_path, no_answers):
  untold = dict(
    num_heads=3,
    prune_blocks=(1, 2),
    feature_blocks=(0, 1, 2, 3),
    detector_heads=8,
    decoder_heads=3,
  )
  assert_equals_the_reference(COMPACT / 't1_ktp.npz', 'tiny', tmp_path, 30, **untold)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason='shared/golden is not beside the repository.')
def test_a_converted_vit_b_equals_the_reference(tmp_path):
  """Nothing but the three flags is given; everything else is recognised."""
  try:
    settings = assert_equals_the_reference(SHARED / 'b6_vitb_ktp07.npz', 'B', tmp_path, 30)
    assert settings['source']['title'] == 'EVAD detector, ViT-B, 80 actions'
  finally:
    shutil.rmtree(tmp_path)  # a gigabyte


@pytest.mark.slow
def test_vit_l_is_recognised_and_answers(tmp_path):
  """Names, shapes and finite numbers: the reference has no outputs of it."""
  try:
    source = write(tmp_path / 'l.safetensors', published_sources.golden('L'))
    settings, params = convert(source, tmp_path / 'out', **KEPT)
    assert settings['source']['title'] == 'EVAD detector, ViT-L, 80 actions'
    assert len(published_names.flatten(params)) == 792
    answers = settings['known_answers']
    assert answers['action_logits']['shape'] == [12, 1, 100, 80]
    assert all(np.isfinite(answer['entries']).all() for answer in answers.values())
  finally:
    shutil.rmtree(tmp_path)  # four gigabytes
