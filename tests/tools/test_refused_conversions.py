"""Tensors, files and flags that a conversion refuses, with one sentence each."""

import os
import pickle
import sys

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.published.weight_files import read
from evad_jax.tools import convert_checkpoint
from tests import published_sources
from tests.damage import flip_bit
from tests.published_sources import KEPT, NO_TORCH, UNTOLD, flags, write


def convert(source, out, **settings):
  convert_checkpoint.main([str(source), str(out), *flags(settings)])


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
  """Only a fine-tuned encoder, which has another norm, may lack it."""
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
  with pytest.raises(InputError, match='truncated or damaged|could run code'):
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
    with pytest.raises(InputError, match=f'cut.{suffix}: the file is truncated or damaged'):
      read(cut)


def test_a_flipped_bit_in_a_pth_is_found(tmp_path):
  pytest.importorskip('torch', reason=NO_TORCH)
  path = write(tmp_path / 'x.pth', published_sources.encoder())
  flip_bit(path)
  with pytest.raises(InputError, match='checksum'):
    read(path)


@pytest.mark.parametrize(
  'bad, words',
  [
    (np.array([1, np.nan], np.float32), 'has non-finite values'),
    (np.array([1, np.inf], np.float32), 'has non-finite values'),
    (np.array([1, 2], np.int64), 'is int64'),
    (np.array([1, 2], np.float64), 'is float64'),
  ],
)
def test_numbers_that_are_none_are_refused(bad, words, tmp_path):
  path = write(tmp_path / 'x.safetensors', {'norm.weight': bad})
  with pytest.raises(InputError, match=f'norm.weight {words}'):
    read(path)


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
