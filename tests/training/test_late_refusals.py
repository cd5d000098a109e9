"""Faults that only an evaluation finds cost no step; the others are found before training."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax import main
from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data import split_check
from evad_jax.errors import InputError
from evad_jax.evaluation import evaluate
from evad_jax.settings import from_config
from evad_jax.training import checks, losses, train_step
from evad_jax.training import optimizer as optimizers
from evad_jax.training.programs import Programs
from tests import micro_evad
from tests.tiny_run import make_data, tiny_config


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """Four steps of four clips, as in tests/tiny_run.py."""
  return tiny_config(make_data(tmp_path_factory.mktemp('data') / 'tiny'))


def test_an_evaluation_that_fails_loses_no_step(config, tmp_path, monkeypatch):
  def fails(*arguments):
    raise InputError('the detections of frame 3 are NaN')

  steps = []
  call = Programs.run
  monkeypatch.setattr(Programs, 'run', lambda self, *rest: steps.append(1) or call(self, *rest))
  with monkeypatch.context() as patch:
    patch.setattr(evaluate, 'score', fails)
    with pytest.raises(InputError, match='of frame 3'):
      main.run(config, tmp_path, 'train')
  with Checkpoints(tmp_path / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.latest_step() == 4 and not checkpoints.was_evaluated(4)
  main.run(config, tmp_path, 'train')
  assert len(steps) == 4  # none was done again
  with Checkpoints(tmp_path / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.was_evaluated(4) and checkpoints.best_step() == 4
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert sum('eval/person_AP@0.5' in line for line in lines) == 1
  assert (tmp_path / 'eval_test.json').is_file()


def test_clips_of_the_test_split_are_looked_at_before(config):
  index = from_config.open_split(config, 'test')
  settings = from_config.clip_settings(config)
  assert split_check.first_fault(index, settings) is None
  checks.check_split(config, index)
  crowded = dataclasses.replace(settings, max_boxes=1)  # there are clips of two and three people
  assert 'boxes, more than 1; raise config.clip.max_boxes' in str(
    split_check.first_fault(index, crowded)
  )
  # Every part looks at its own records alone.
  broken = dataclasses.replace(index, record_crc=index.record_crc ^ np.uint32([0, 0, 0, 1, 0, 0]))
  found = [split_check.first_fault(broken, settings, part, 2) for part in range(2)]
  assert found[0] is None and 'tfrecord' in str(found[1])


def test_steps_that_are_left_out_do_not_shift_the_learning_rate(monkeypatch):
  """Gradients are 1, so Adam moves every weight by the rate of the step: k / 1000 for step k."""

  def loss_terms(params, batch, *rest, **more):
    slope = jnp.where(jnp.isfinite(batch.targets.labels).all(), 1.0, jnp.nan)
    total = slope * sum(x.sum() for x in jax.tree.leaves(params))
    zero = jnp.zeros(1)
    return total, (losses.Terms(zero, zero, zero, zero), jnp.zeros(()))

  monkeypatch.setattr(train_step, 'loss_terms', loss_terms)
  config = tiny_config('nowhere')
  config.optimizer.update(weight_decay=0.0, clip_norm=0.0, head_multiplier=1.0, eps=1e-12)
  params = {'encoder': {'block_0': {'kernel': jnp.zeros(3)}}, 'fpn': {'bias': jnp.zeros(2)}}
  optimizer = optimizers.make_optimizer(
    config.optimizer, params, lambda step: 1e-3 * (step + 1).astype(float)
  )
  good = micro_evad.random_batch(8, 0)
  bad = good._replace(targets=good.targets._replace(labels=good.targets.labels * np.nan))
  step = functools.partial(
    train_step.train_step,
    model=types.SimpleNamespace(num_proposals=8),
    optimizer=optimizer,
    action_weight=12.0,
  )
  state, moves = train_step.initial_state(params, optimizer, False), []
  for batch in (good, bad, bad, good):
    before = state
    state, _ = step(state, batch, jax.random.key(0))
    moved = jax.tree.map(lambda old, new: old - new, before.params, state.params)
    moves.append(np.concatenate([x.ravel() for x in jax.tree.leaves(moved)]))
  np.testing.assert_allclose(moves, np.outer([0.001, 0, 0, 0.004], np.ones(5)), rtol=1e-4)
  assert int(state.step) == 4
