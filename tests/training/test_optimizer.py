"""Schedules by hand and against the reference; parameter groups; AdamW by NumPy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import common
from evad_jax.errors import InputError
from evad_jax.training import optimizer as optimizers
from evad_jax.training.optimizer import DECAY_RULES, RATE_RULES, by_rules
from tests import external
from tests.micro_evad import micro_model, random_parameters
from tests.published_names import to_path

GOLDEN = external.GOLDEN
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=external.missing(GOLDEN))


def settings(**changes):
  return ConfigDict(common.get_config().optimizer.to_dict() | changes)


STEPS = {
  'rate': 1.0,
  'warmup_epochs': 2.0,
  'warmup_start': 0.1,
  'milestones': (5.0, 8.0),
  'factors': (0.1, 0.01),
}


@pytest.mark.parametrize(
  'changes, table',
  [
    (
      STEPS,
      [(0, 0.1), (1, 0.55), (2, 1), (4.99, 1), (5, 0.1), (7.99, 0.1), (8, 0.01), (99, 0.01)],
    ),
    (STEPS | {'warmup_epochs': 0.0}, [(0, 1), (4.99, 1), (5, 0.1), (8, 0.01)]),
    (
      STEPS | {'schedule': 'cosine'},  # over 10 epochs, 8 of them after the warm-up
      [(0, 0.1), (1, 0.55), (2, 1), (4, 0.5 + 0.5**1.5), (6, 0.5), (10, 0), (12, 0)],
    ),
  ],
)
def test_schedules_by_hand(changes, table):
  rate = optimizers.learning_rate(settings(**changes), total_epochs=10)
  for epoch, wanted in table:
    np.testing.assert_allclose(rate(epoch), wanted, atol=1e-6)
    np.testing.assert_allclose(jax.jit(rate)(epoch), wanted, atol=1e-6)


@pytest.mark.parametrize('schedule', ['step', 'cosine'])
def test_schedules_over_a_run_by_numpy(schedule):
  rate = optimizers.learning_rate(settings(**STEPS, schedule=schedule), total_epochs=12)
  epochs = np.arange(12 * 417 + 9) * np.float32(1 / 417)  # a few steps more than the run has
  after = np.select([epochs >= 8, epochs >= 5], [0.01, 0.1], 1.0)
  if schedule == 'cosine':
    after = (1 + np.cos(np.pi * np.minimum((epochs - 2) / 10, 1))) / 2
  wanted = np.where(epochs < 2, 0.1 + 0.9 * epochs / 2, after)
  np.testing.assert_allclose(jax.jit(jax.vmap(rate))(epochs), wanted, rtol=1e-6, atol=2e-7)


def test_unknown_schedule_is_an_error():
  with pytest.raises(InputError, match="config.optimizer.schedule='linear' is not one of"):
    optimizers.learning_rate(settings(schedule='linear'), total_epochs=10)


@needs_golden
@pytest.mark.parametrize('name, large', [('ViT_B_16x4_KTP', False), ('ViT_L_16x4_KTP', True)])
def test_published_schedule(name, large):
  config = common.get_config()
  if large:
    common.set_vit_l(config)
  rate = optimizers.learning_rate(config.optimizer, config.train.epochs)
  epochs, wanted = np.array(json.loads((GOLDEN / 'units.json').read_text())['lr'][name]).T
  assert len(epochs) == 97 and epochs[-1] == 12
  np.testing.assert_allclose(jax.vmap(rate)(epochs), wanted, rtol=1e-5)


@needs_golden
@pytest.mark.parametrize('case', ['tiny', 'ViT_B_16x4', 'ViT_B_16x4_KTP', 'ViT_L_16x4_KTP'])
def test_published_parameter_groups(case):
  groups = json.loads((GOLDEN / f'param_groups_{case}.json').read_text())
  multiplier = {'base': 1.0, 'head': common.get_config().optimizer.head_multiplier}
  checked = 0
  for group in groups.values():
    for name in group['params']:
      tree = 0
      for key in reversed(to_path(name).split('/')):
        tree = {key: tree}
      (rate,) = jax.tree.leaves(by_rules(tree, RATE_RULES))
      (decays,) = jax.tree.leaves(by_rules(tree, DECAY_RULES))
      assert multiplier[rate] == group['lr_scale'], name
      assert decays == (group['weight_decay'] > 0), name
      checked += 1
  assert checked > 150


@pytest.fixture(scope='module')
def params():
  return random_parameters(micro_model())


def test_rules_cover_every_parameter(params):
  rates = by_rules(params, RATE_RULES)
  assert jax.tree.structure(rates) == jax.tree.structure(params)
  assert set(jax.tree.leaves(rates['encoder'])) == {'base'}
  assert set(jax.tree.leaves(rates['context_refinement'])) == {'head'}
  decays = by_rules(params, DECAY_RULES)
  for path, decays_here in jax.tree_util.tree_leaves_with_path(decays):
    leaf = optimizers.path_of(path).split('/')[-1]
    assert decays_here == (leaf in ('kernel', 'proposal_boxes', 'proposal_features')), path


@pytest.mark.parametrize('rules', [RATE_RULES, DECAY_RULES])
def test_uncovered_parameter_is_an_error(params, rules):
  with pytest.raises(InputError, match="No rule covers the parameter 'new_head/thing'"):
    by_rules({**params, 'new_head': {'thing': 0}}, rules)


def test_layer_decay_by_hand():
  block = {'mlp': {'kernel': 0}}
  encoder = {'tubelets': {'kernel': 0}, 'block_0': block, 'block_1': block, 'norm': {'scale': 0}}
  scales = optimizers.layer_scales({'encoder': encoder, 'fpn': {'kernel': 0}}, 0.5)
  assert scales == {
    'encoder': {
      'tubelets': {'kernel': 0.125},
      'block_0': {'mlp': {'kernel': 0.25}},
      'block_1': {'mlp': {'kernel': 0.5}},
      'norm': {'scale': 1.0},
    },
    'fpn': {'kernel': 1.0},
  }


# The rate's and the layer's factor, and whether it decays.
LEAVES = {
  ('encoder', 'block_0', 'kernel'): (0.5, True),
  ('encoder', 'block_0', 'bias'): (0.5, False),
  ('fpn', 'lateral', 'kernel'): (1, True),
  ('context_refinement', 'projection', 'kernel'): (8, True),
  ('context_refinement', 'decoder', 'mask_token'): (8, False),
}


def tree_of(values):
  tree = {}
  for (a, b, c), value in values.items():
    tree.setdefault(a, {}).setdefault(b, {})[c] = value
  return tree


@pytest.mark.parametrize('clip_norm', [0.0, 0.5])
def test_three_steps_by_numpy(clip_norm):
  rng = np.random.default_rng(0)
  rates = [1e-2, 3e-2, 2e-2]
  start = {leaf: rng.normal(size=3) for leaf in LEAVES}
  gradients = [{leaf: rng.normal(size=3) * 10.0**-k for leaf in LEAVES} for k in range(3)]

  options = settings(weight_decay=0.1, eps=1e-3, layer_decay=0.5, clip_norm=clip_norm)
  transform = optimizers.make_optimizer(
    options, tree_of(start), lambda step: jnp.array(rates, jnp.float32)[step]
  )
  params = jax.tree.map(jnp.float32, tree_of(start))
  state, update = transform.init(params), jax.jit(transform.update)
  for gradient in gradients:
    updates, state = update(jax.tree.map(jnp.float32, tree_of(gradient)), state, params)
    params = optax.apply_updates(params, updates)

  wanted = dict(start)
  first, second = ({leaf: 0.0 for leaf in LEAVES} for _ in range(2))
  for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    factor = min(1, clip_norm / norm) if clip_norm else 1
    for leaf, (scale, decays) in LEAVES.items():
      g = gradient[leaf] * factor
      first[leaf] = 0.9 * first[leaf] + 0.1 * g
      second[leaf] = 0.999 * second[leaf] + 0.001 * g**2
      mean, square = first[leaf] / (1 - 0.9**step), second[leaf] / (1 - 0.999**step)
      direction = mean / (np.sqrt(square) + 1e-3) + 0.1 * decays * wanted[leaf]
      wanted[leaf] = wanted[leaf] - rate * scale * direction
  for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(tree_of(wanted)), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
