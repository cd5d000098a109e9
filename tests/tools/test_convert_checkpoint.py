"""Published files become checkpoints and come back bit for bit."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest

from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.distributed.parameter_rules import by_path
from evad_jax.published import known_answers, weight_files
from evad_jax.published.weight_files import read
from evad_jax.tools import convert_checkpoint
from tests import external, golden_case, golden_compare, published_sources
from tests.golden_check import table
from tests.golden_stages import stages_of
from tests.published_sources import KEPT, NO_TORCH, UNTOLD, flags, write

SHARED = external.GOLDEN
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
  assert f'sha256 {weight_files.file_hash(back)}' in capsys.readouterr().out
  again, found = convert(back, tmp_path / 'again')
  assert settings['model'].items() <= again['model'].items()  # the rest are defaults
  assert again['parameters_sha256'] == settings['parameters_sha256']
  assert known_answers.errors(settings['known_answers'], again['known_answers']) == {
    'person_logits': 0,
    'boxes': 0,
    'action_logits': 0,
  }
  flat, wanted = by_path(found), by_path(params)
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
  """Skips the answers, which take a compilation, where they do not matter."""
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
  arguments = {'args': argparse.Namespace(batch_size=8)}  # as in the files of VideoMAE
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
  left = ['head.bias'] if kind == 'classifier' else []
  assert [n for n in settings['source']['left_over'] if n.endswith('head.bias')] == left
  assert convert(back, tmp_path / 'again')[0]['parameters_sha256'] == settings['parameters_sha256']


def test_the_decoder_can_be_left_out(tmp_path, no_answers):
  source = write(tmp_path / 'e.safetensors', published_sources.pretraining())
  given = flags({'num_heads': 2, 'pretrain_size': 32})
  convert_checkpoint.main([str(source), str(tmp_path / 'out'), '--encoder-only', *given])
  settings, params = load(tmp_path / 'out')
  assert list(params) == ['encoder'] and 'mask_token' in settings['source']['left_over']


def test_half_precision_is_widened_exactly(tmp_path):
  torch = pytest.importorskip('torch', reason=NO_TORCH)
  values = torch.tensor([1.5, -3.1415926, 1e-3])
  tensors = {'a': values.bfloat16(), 'b': values.half()}
  torch.save({'model': tensors}, tmp_path / 'x.pth')
  found = read(tmp_path / 'x.pth').tensors
  for name, tensor in tensors.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], tensor.float().numpy())


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
@pytest.mark.skipif(not SHARED.is_dir(), reason=external.missing(SHARED))
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
    assert len(by_path(params)) == 792
    answers = settings['known_answers']
    assert answers['action_logits']['shape'] == [12, 1, 100, 80]
    assert all(np.isfinite(answer['entries']).all() for answer in answers.values())
  finally:
    shutil.rmtree(tmp_path)  # four gigabytes
