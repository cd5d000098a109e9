"""Training that starts from converted encoders and detectors, and from other runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.distributed import sharding
from evad_jax.distributed.parameter_rules import by_path
from evad_jax.errors import InputError
from evad_jax.model import start_values
from evad_jax.model.masked_autoencoder import MaskedAutoencoder
from evad_jax.published import known_answers
from evad_jax.published.architectures import DECODER_SETTINGS, ENCODER_SETTINGS
from evad_jax.settings import from_config
from evad_jax.tools import convert_checkpoint
from evad_jax.training import init_from, setup
from evad_jax.training.train_step import initial_state
from tests import micro_evad, published_sources
from tests.published_sources import KEPT, UNTOLD, flags, write

CLASSES = ['a', 'b', 'c', 'd', 'e']


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
  """Directories of converted micro sources by their kind."""
  folder, found = tmp_path_factory.mktemp('converted'), {}
  heads = {'num_heads': 2, 'pretrain_size': 32}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(known_answers, 'answers', lambda *arguments: {})
    for kind, tensors, settings in (
      ('encoder', published_sources.encoder(seed=1), heads),
      ('classifier', published_sources.classifier(seed=1), heads),
      ('pretraining', published_sources.pretraining(seed=1), heads | {'decoder_heads': 2}),
      (
        'deeper',
        published_sources.pretraining(seed=1, decoder_depth=3),
        heads | {'decoder_heads': 2},
      ),
      ('detector', published_sources.detector(seed=1), UNTOLD | KEPT),
    ):
      path = write(folder / f'{kind}.safetensors', tensors)
      convert_checkpoint.main([str(path), str(folder / kind), *flags(settings)])
      found[kind] = folder / kind
  return found


def load(directory, classes=CLASSES, fresh_mask_token=False, **changes):
  """(paths -> (started, fresh, saved)), and the report."""
  config = micro_evad.micro_config(**changes)
  config.init_from = str(directory)
  fresh = micro_evad.random_parameters(micro_evad.micro_model(**changes), seed=2)
  params, report = init_from.load(config, fresh, classes, fresh_mask_token=fresh_mask_token)
  assert jax.tree.structure(params) == jax.tree.structure(fresh)
  with Checkpoints(directory, read_only=True) as checkpoints:
    saved = by_path(checkpoints.read_params(0))
  return [by_path(tree) for tree in (params, fresh)] + [saved], report


def assert_started(trees, report):
  """Every loaded array is the checkpoint's, every fresh one the start value."""
  params, fresh, saved = trees
  assert sorted([*report.loaded, *report.fresh]) == sorted(params)
  for path in report.loaded:
    np.testing.assert_array_equal(params[path], saved[path], err_msg=path)
    assert not np.array_equal(saved[path], fresh[path]), path
  for path in report.fresh:
    np.testing.assert_array_equal(params[path], fresh[path], err_msg=path)
  assert report.numbers == sum(saved[path].size for path in report.loaded)


@pytest.mark.parametrize('kind', ['encoder', 'classifier'])
def test_an_encoder_starts_the_encoder(converted, kind):
  trees, report = load(converted[kind])
  assert_started(trees, report)
  wanted = {path for path in trees[0] if path.startswith('encoder/')}
  if kind == 'classifier':
    wanted -= {'encoder/norm/scale', 'encoder/norm/bias'}
  assert set(report.loaded) == wanted and not report.left_over


def test_the_decoder_of_pre_training_starts_the_refinement(converted):
  trees, report = load(converted['pretraining'])
  assert_started(trees, report)
  loaded = {path for path in report.loaded if not path.startswith('encoder/')}
  assert {path.split('/')[1] for path in loaded} == {'block_0', 'mask_token', 'projection'}
  fresh = {path.split('/')[1] for path in report.fresh if path.startswith('context_refinement')}
  assert fresh == {'action_head_0'}
  assert {path.split('/')[1] for path in report.left_over} == {'norm', 'head'}
  assert not report.notes


def test_the_mask_token_may_stay_fresh_as_in_the_published_code(converted):
  trees, report = load(converted['pretraining'], fresh_mask_token=True)
  assert_started(trees, report)
  token = 'context_refinement/mask_token'
  assert token in report.fresh and token in report.left_over


def test_more_and_fewer_decoder_blocks_are_told(converted):
  trees, report = load(converted['deeper'])
  assert_started(trees, report)
  left = {path.split('/')[1] for path in report.left_over}
  assert left == {'block_1', 'block_2', 'norm', 'head'}
  told = 'the decoder blocks of the checkpoint are 3, those of the model 1: the rest is left over'
  assert report.notes == [told]
  trees, report = load(converted['pretraining'], decoder_depth=2)
  assert_started(trees, report)
  fresh = {path.split('/')[1] for path in report.fresh if path.startswith('context_refinement')}
  assert fresh == {'action_head_0', 'action_head_1', 'block_1'}
  told = 'the decoder blocks of the checkpoint are 1, those of the model 2: the others are fresh'
  assert report.notes == [told]


def test_pre_training_goes_on_from_pre_training(converted):
  config = micro_evad.micro_config()
  model = MaskedAutoencoder(
    **{key: config.model[key] for key in ENCODER_SETTINGS + DECODER_SETTINGS}
  )
  fresh = start_values.start_params(model, 0)
  for kind in ('pretraining', 'encoder'):
    config.init_from = str(converted[kind])
    params, report = init_from.load(config, fresh, [])
    with Checkpoints(converted[kind], read_only=True) as checkpoints:
      saved = by_path(checkpoints.read_params(0))
    assert sorted(saved) == report.loaded and not report.left_over and not report.notes
    assert bool(report.fresh) == (kind == 'encoder')
    assert jax.tree.structure(params) == jax.tree.structure(fresh)
    found = by_path(params)
    for path in report.loaded:
      np.testing.assert_array_equal(found[path], saved[path])


def test_a_detector_starts_everything(converted):
  trees, report = load(converted['detector'], token_restoring='released', padding='released')
  assert_started(trees, report)
  assert not report.fresh and not report.left_over and not report.notes


def test_other_classes_leave_the_last_layers_fresh(converted):
  trees, report = load(converted['detector'], num_actions=7, classes=list('abcdefg'))
  assert_started(trees, report)
  last = [f'context_refinement/action_head_0/action_logits/{leaf}' for leaf in ('bias', 'kernel')]
  assert report.fresh == last and report.left_over == last
  notes = ' '.join(report.notes)
  assert 'last layers of the action heads are fresh' in notes
  assert 'token_restoring was released and is scatter' in notes


@pytest.mark.parametrize(
  'kind, changes, words',
  [
    ('encoder', {'width': 64, 'num_heads': 2}, ['encoder/norm/scale is (32,) in it and (64,)']),
    ('encoder', {'depth': 5}, ['encoder/block_4/attention/out/bias is not in it']),
    ('pretraining', {'decoder_width': 16}, ['context_refinement/projection/kernel is (32, 32)']),
    ('detector', {'num_proposals': 7}, ['proposal_boxes is (6, 4) in it and (7, 4)']),
    ('detector', {'decoder_depth': 2}, ['action_head_1/action_logits/bias is not in it']),
    ('encoder', {'num_heads': 4}, ['num_heads was 2 and is 4']),
    ('pretraining', {'decoder_heads': 4}, ['decoder_heads was 2 and is 4']),
    ('detector', {'feature_blocks': (0, 1, 2, 3), 'detector_heads': 4}, ['detector_heads was 2']),
  ],
)
def test_what_does_not_fit_is_listed(converted, kind, changes, words):
  with pytest.raises(InputError) as error:
    load(converted[kind], **changes)
  for word in ('config.init_from', *words):
    assert word in str(error.value)
  assert '\n' not in str(error.value)


def test_the_report_names_whole_parts_and_lists_all(converted, tmp_path):
  _, report = load(converted['pretraining'])
  text = report.text()
  count = sum(path.startswith('encoder/') for path in report.loaded)
  assert f'encoder ({count})' in text and 'person_detector (' in text and 'fpn (16)' in text
  assert 'context_refinement/mask_token' in text
  assert 'left over 4: context_refinement/head (2), context_refinement/norm (2)' in text
  report.write(tmp_path / 'x' / 'init_from.json')
  assert json.loads((tmp_path / 'x' / 'init_from.json').read_text())['loaded'] == report.loaded


def test_summary_by_hand():
  every = ['a/x', 'a/y/1', 'a/y/2', 'b', 'c/z']
  assert init_from.summary(every, every) == 'a (3), b, c (1)'
  assert init_from.summary(['a/y/1', 'a/y/2', 'b'], every) == 'a/y (2), b'
  assert init_from.summary(['a/y/2', 'c/z'], every) == 'a/y/2, c (1)'
  assert init_from.summary([], every) == 'none'


@pytest.mark.parametrize('ema', [False, True])
def test_a_run_gives_its_moving_average_where_it_has_one(tmp_path, ema):
  model = micro_evad.micro_model()
  params, average = (micro_evad.random_parameters(model, seed) for seed in (3, 4))
  state = initial_state(params, optax.adam(1e-3), ema)
  state = state._replace(ema_params=average if ema else None)
  settings = {'model': micro_evad.micro_config().model.to_dict(), 'classes': CLASSES}
  with Checkpoints(tmp_path / 'checkpoints') as checkpoints:
    for step in (10, 20):
      checkpoints.save(step, state, settings, {}, None)
  config = micro_evad.micro_config()
  for given, step in ((tmp_path, 20), (tmp_path / 'checkpoints' / '10', 10)):
    config.init_from = str(given)
    fresh = micro_evad.random_parameters(model, seed=2)
    found, report = init_from.load(config, fresh, CLASSES)
    jax.tree.map(np.testing.assert_array_equal, found, average if ema else params)
    assert f'checkpoints/{step} (a run of evad_jax, step {step})' in report.text()
  # As many classes, but others.
  _, report = init_from.load(config, fresh, CLASSES[::-1])
  assert report.fresh == report.left_over and len(report.fresh) == 2


def test_the_first_parameters_say_where_they_are_from(converted, tmp_path, capsys, monkeypatch):
  config = micro_evad.micro_config(token_restoring='released', padding='released')
  config.train.ema_decay = 0.9
  model = from_config.make_model(config)
  optimizer = setup.make_optimizer(config, model, lambda step: 1e-3)
  params = micro_evad.random_parameters(model, seed=2)
  # Without compiling the start values.
  monkeypatch.setattr(start_values, 'start_params', lambda *a: params)
  assert setup.first_params(config, model, CLASSES, tmp_path) is params
  told = capsys.readouterr().out
  assert 'Starting from scratch: random initialisation with config.seed=0' in told
  assert not (tmp_path / 'init_from.json').exists()
  config.init_from = str(converted['detector'])
  found = setup.first_params(config, model, CLASSES, tmp_path)
  told = capsys.readouterr().out
  assert f'Starting from {config.init_from}/0 (EVAD detector, width 32, depth 4, 5 act' in told
  assert json.loads((tmp_path / 'init_from.json').read_text())['fresh'] == []
  with Checkpoints(converted['detector'], read_only=True) as checkpoints:
    saved = checkpoints.read_params(0)
  abstract = setup.abstract_state(config, model, optimizer)
  shardings = sharding.state_shardings(abstract, optimizer, sharding.make_mesh(), False)
  state = setup.place_state(config, found, optimizer, shardings)
  for tree in (state.params, state.ema_params):
    jax.tree.map(np.testing.assert_array_equal, tree, saved)
  assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, abstract)
  assert int(state.step) == 0


def test_a_missing_checkpoint_is_an_error():
  with pytest.raises(InputError, match='nowhere: there is no such checkpoint directory'):
    load('nowhere')
