"""Keep rates that take turns in training, and the distance to the unpruned pass."""

import functools
import json
from collections import Counter
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evad_jax import main
from evad_jax.distributed import sharding
from evad_jax.errors import InputError
from evad_jax.settings import from_config
from evad_jax.structures import Outputs
from evad_jax.training import checks, keep_rates, losses, setup
from evad_jax.training.programs import Programs
from evad_jax.training.run_log import Stopwatch
from evad_jax.training.train_step import initial_state, train_step
from tests.micro_evad import ACTIONS, micro_config, random_batch
from tests.tiny_run import make_data, tiny_config

RATES = (1.0, 0.7, (0.9, 0.6))
KEY = jax.random.key(5)


def test_every_round_has_every_rate_in_an_order_of_its_own():
  drawn = [keep_rates.of_step(RATES, seed=3, step=step) for step in range(1, 301)]
  rounds = [tuple(drawn[i : i + 3]) for i in range(0, 300, 3)]
  assert all(set(one) == set(RATES) for one in rounds)
  assert len(Counter(rounds)) == 6 and max(Counter(rounds).values()) < 40
  assert drawn != [keep_rates.of_step(RATES, seed=4, step=step) for step in range(1, 301)]
  assert keep_rates.of_step(RATES, seed=3, step=200) == drawn[199]  # independent of earlier steps
  assert {keep_rates.of_step((0.7,), 0, step) for step in range(1, 5)} == {0.7}


def test_the_models_own_rate_unless_a_list_is_given():
  config = micro_config()
  assert keep_rates.listed(config) == (0.7,)
  config.train.keep_rates = (1.0, [0.9, 0.6])
  assert keep_rates.listed(config) == (1.0, (0.9, 0.6))


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'keep_rates': ('x',)}, r"train\.keep_rates=\('x',\) must be a list in which 'x' is a fin"),
    ({'keep_rates': (1.0, 0.2)}, 'keep rate of 0.2 at block 1 would drop tokens of the keyframe'),
    (
      {'keep_rates': (1.0, 1.5)},
      r'keep_rates=\(1.0, 1.5\) must be a list in which 1.5 is in \(0, 1\]',
    ),
    ({'keep_rates': (0.7, (0.9,))}, 'has 1 rates for 2 prune_blocks'),
    ({'consistency': -1.0}, r'config\.train\.consistency=-1\.0 must be at least 0'),
  ],
)
def test_impossible_rates_are_told_before_anything_is_compiled(changes, words):
  config = micro_config()
  config.train.update(changes)
  with pytest.raises(InputError, match=words):
    checks.check(config, from_config.make_model(config), sharding.make_mesh())


def test_every_step_runs_the_program_of_its_rate():
  config = micro_config()
  config.train.keep_rates = (1.0, 0.7, 0.6)
  model, mesh = from_config.make_model(config), sharding.make_mesh()
  optimizer = setup.make_optimizer(config, model, lambda step: 1e-3)
  programs = Programs(config, model, optimizer, mesh)
  assert set(programs.step_fns) == {1.0, 0.7, 0.6}
  programs.step_fns = {
    rate: lambda state, sound, batch, key, rate=rate: (state, rate, sound)
    for rate in programs.step_fns
  }
  batch = random_batch(1)
  progress = SimpleNamespace(interval=Stopwatch(), count=lambda model, shape: counted.append(model))
  counted = []
  ran = [programs.run(None, batch, step, progress)[1] for step in range(1, 13)]
  assert ran == [keep_rates.of_step((1.0, 0.7, 0.6), config.seed, step) for step in range(1, 13)]
  assert len(programs.compiled) == 3
  assert len(counted) == 12 - 3  # steps that compile do not count for the throughput
  assert [model.keep_rate for model in counted[-3:]] == ran[-3:]


def test_distance_between_actions_by_hand():
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    logits, reference = rng.normal(0, 2, (2, 3, 2, 4, 5))  # two passes of 3 blocks, 2 clips
    proposal, other = np.array([[2, 0], [1, 3]]), np.array([[0, 1], [3, 3]])
    mask = np.array([[True, True], [True, False]])
    p, q = 1 / (1 + np.exp(-reference)), 1 / (1 + np.exp(-logits))
    wanted = np.zeros(3)
    for block, clip, person in np.ndindex(3, 2, 2):
      if mask[clip, person]:
        a, b = p[block, clip, other[clip, person]], q[block, clip, proposal[clip, person]]
        divergence = a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
        wanted[block] += divergence.mean()
    call = functools.partial(losses.consistency_loss, proposal=proposal, box_mask=mask)
    found = call(logits=logits, reference_logits=reference, reference_proposal=other)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    same = call(logits=logits, reference_logits=logits, reference_proposal=proposal)
    np.testing.assert_allclose(same, 0, atol=1e-12)
    pull = jax.grad(lambda x: call(logits=x, reference_logits=x, reference_proposal=other).sum())
    assert np.abs(pull(jnp.asarray(logits))).max() > 0.01  # and none through the reference:
    step = logits - 1e-3 * pull(jnp.asarray(logits))
    again = call(logits=step, reference_logits=logits, reference_proposal=other)
    before = call(logits=logits, reference_logits=logits, reference_proposal=other)
    assert again.sum() < before.sum()


class Stub(nn.Module):
  """A minimal detector, whose action logits depend on the keep rate."""

  keep_rate: float = 0.5
  num_proposals: int = 4
  dtype: jnp.dtype = jnp.float32

  def block_keep_rates(self):
    return (1.0, self.keep_rate)

  @nn.compact
  def __call__(self, clips, sizes, *, train):
    x = clips[:, :, :30, :30].reshape(len(clips), -1, 3, 10, 3, 10, 3).mean(axis=(1, 3, 5))
    x = x.reshape(len(clips), -1)
    start = jnp.array([[2, 2, 12, 20], [10, 2, 22, 20], [2, 2, 22, 20], [5, 8, 15, 18.0]])

    def head(size, name):
      return nn.Dense(4 * size, name=name)(x).reshape(1, len(x), 4, size)

    actions = 10 * self.keep_rate * head(ACTIONS, 'actions')
    boxes = start[None, None] + head(4, 'boxes')
    return Outputs(head(2, 'person_logits'), boxes, actions)


def test_a_step_adds_the_distance_in_the_action_losss_measure():
  batch, optimizer = random_batch(8), optax.sgd(0.1)
  arguments = jnp.zeros((1, 8, 32, 32, 3)), jnp.full((1, 2), 32)
  params = Stub().init(jax.random.key(0), *arguments, train=False)['params']
  state = initial_state(params, optimizer, ema=False)

  def step(model, **options):
    options |= {'model': model, 'optimizer': optimizer, 'action_weight': 12.0}
    return jax.jit(functools.partial(train_step, **options))(state, batch, KEY)

  (without, plain), (after, found) = step(Stub()), step(Stub(), consistency=0.5)
  assert plain.consistency == 0 < found.consistency
  np.testing.assert_allclose(found.loss, plain.loss + found.consistency, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found.terms, plain.terms)
  kernel = {name: after.params[name]['kernel'] - without.params[name]['kernel'] for name in params}
  assert np.abs(kernel['actions']).max() > 1e-4
  assert np.abs(kernel['boxes']).max() < 1e-6  # boxes are no part of it
  parts = step(Stub(), consistency=0.5, accumulation=2)[1]
  np.testing.assert_allclose(parts.consistency, found.consistency, rtol=1e-5)
  whole = step(Stub(keep_rate=1.0), consistency=0.5)[1]
  assert whole.consistency == 0  # nothing is pruned: nothing to compare with


@pytest.mark.slow  # compiles two programs
def test_a_run_draws_rates_and_goes_on_with_them(tmp_path):
  config = tiny_config(make_data(tmp_path / 'data'))
  config.train.update(keep_rates=(1.0, 0.7), consistency=1.0, epochs=2.0)
  main.run(config, tmp_path / 'whole', 'train')
  lines = [json.loads(x) for x in (tmp_path / 'whole' / 'metrics.jsonl').read_text().splitlines()]
  lines = [line for line in lines if 'loss' in line]
  wanted = [keep_rates.of_step((1.0, 0.7), config.seed, step) for step in range(1, 9)]
  assert [line['keep_rate'] for line in lines] == wanted
  assert [line['loss/consistency'] > 0 for line in lines] == [rate == 0.7 for rate in wanted]
  assert sum(line['loss/consistency'] for line in lines) > 0
