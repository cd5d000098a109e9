"""The training step: its gradient, parts of a batch, moving average, random keys."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evad_jax.model.layers import DropPath
from evad_jax.structures import Outputs
from evad_jax.training import losses
from evad_jax.training.train_step import initial_state, loss_terms, train_step
from tests.micro_evad import ACTIONS, random_batch

KEY = jax.random.key(5)


class Stub(nn.Module):
  """A minimal detector: everything is linear in the mean colours of nine cells."""

  num_proposals: int = 4
  drop_path: float = 0.0
  dtype: jnp.dtype = jnp.float64

  @nn.compact
  def __call__(self, clips, sizes, *, train):
    cells = clips[:, :, :30, :30].reshape(len(clips), -1, 3, 10, 3, 10, 3).mean(axis=(1, 3, 5))
    x = DropPath(self.drop_path)(cells.reshape(len(clips), -1), train=train)

    def head(stages, size, name):
      dense = nn.Dense(stages * self.num_proposals * size, dtype=self.dtype, name=name)
      return jnp.moveaxis(dense(x).reshape(len(x), stages, self.num_proposals, size), 1, 0)

    start = jnp.array([[2, 2, 12, 20], [10, 2, 22, 20], [2, 2, 22, 20], [5, 8, 15, 18.0]])
    boxes = start[None, None] + 2 * head(1, 4, 'boxes')
    return Outputs(head(1, 2, 'person_logits'), boxes, head(1, ACTIONS, 'actions'))


@pytest.fixture(scope='module', autouse=True)
def wide():
  """Float64, in which equal means equal."""
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope='module')
def batch():
  return random_batch(8)  # 0, 1, 2, 3, 0, 1, 2, 3 people


def stub_state(optimizer, ema=False):
  rng = np.random.default_rng(0)
  clips = jnp.zeros((1, 8, 32, 32, 3))
  shapes = jax.eval_shape(
    lambda: Stub().init(jax.random.key(0), clips, jnp.full((1, 2), 32), train=False)['params']
  )
  params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.2, s.shape)), shapes)
  return initial_state(params, optimizer, ema)


def step_of(optimizer, model=None, **options):
  model = Stub() if model is None else model
  return jax.jit(
    functools.partial(train_step, model=model, optimizer=optimizer, action_weight=12.0, **options)
  )


def close(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-9, 1e-12), a, b)


@pytest.fixture(scope='module')
def plain_step(batch):
  """State before, state after and metrics of one step on the full batch."""
  optimizer = optax.sgd(0.1)
  state = stub_state(optimizer)
  return (state, *step_of(optimizer)(state, batch, KEY))


def test_step_goes_down_the_gradient_of_the_objective(batch, plain_step):
  before, after, metrics = plain_step

  @jax.jit
  def objective(params):
    norms = losses.normalizers(batch.targets, 4)
    return loss_terms(params, batch, norms, KEY, model=Stub(), action_weight=12.0, mesh=None)[0]

  np.testing.assert_allclose(metrics.loss, objective(before.params), rtol=1e-9)
  assert int(after.step) == 1
  gradient = jax.tree.map(lambda new, old: (old - new) / 0.1, after.params, before.params)
  norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
  np.testing.assert_allclose(metrics.grad_norm, norm, rtol=1e-9)
  # Along a random direction the slope of the objective is that of the gradient.
  rng = np.random.default_rng(1)
  direction = jax.tree.map(lambda g: rng.normal(size=g.shape), gradient)
  rise = sum(
    (g * d).sum() for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
  )
  h = 1e-6
  ahead, behind = (
    objective(jax.tree.map(lambda p, d, s=sign: p + s * h * d, before.params, direction))
    for sign in (1, -1)
  )
  np.testing.assert_allclose((ahead - behind) / (2 * h), rise, rtol=1e-5)


@pytest.mark.parametrize('parts', [2, 4])
def test_accumulation_changes_nothing(batch, plain_step, parts):
  before, after, metrics = plain_step
  found, found_metrics = step_of(optax.sgd(0.1), accumulation=parts)(before, batch, KEY)
  close(found.params, after.params)
  close(found_metrics, metrics)
  moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, before.params)
  assert min(jax.tree.leaves(moved)) > 1e-4


def test_moving_average_by_hand(batch):
  optimizer = optax.sgd(0.1)
  step = step_of(optimizer, ema_decay=0.9)
  state = stub_state(optimizer, ema=True)
  start = wanted = state.params
  for _ in range(3):
    state, _ = step(state, batch, KEY)
    wanted = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, wanted, state.params)
  close(state.ema_params, wanted)
  assert np.abs(state.ema_params['boxes']['kernel'] - start['boxes']['kernel']).max() > 1e-5
  assert stub_state(optimizer).ema_params is None


def test_every_step_and_every_part_draws_its_own_drop_path(batch):
  optimizer = optax.sgd(0.0)
  model = Stub(drop_path=0.5)
  step = step_of(optimizer, model)
  state = stub_state(optimizer)
  after, first = step(state, batch, KEY)
  _, again = step(state, batch, KEY)
  _, second = step(after, batch, KEY)
  _, other_run = step(state, batch, jax.random.key(6))
  assert first.loss == again.loss
  assert len({float(first.loss), float(second.loss), float(other_run.loss)}) == 3
  # Two equal halves: were their keys equal, half of the batch would suffice.
  half = jax.tree.map(lambda x: x[:4], batch)
  twice = jax.tree.map(lambda x: np.repeat(x[:4], 2, axis=0), batch)  # parts take every second
  _, double = step_of(optimizer, model, accumulation=2)(state, twice, KEY)
  _, single = step(state, half, jax.random.key(5))
  assert abs(double.loss - single.loss) > 1e-6


def test_reported_norm_is_that_before_clipping(batch, plain_step):
  before, _, metrics = plain_step
  optimizer = optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(1.0))
  state = initial_state(before.params, optimizer, ema=False)
  after, found = step_of(optimizer)(state, batch, KEY)
  assert metrics.grad_norm > 0.1
  np.testing.assert_allclose(found.grad_norm, metrics.grad_norm, rtol=1e-9)
  update = jax.tree.map(jnp.subtract, after.params, state.params)
  square = sum((u**2).sum() for u in jax.tree.leaves(update))
  np.testing.assert_allclose(np.sqrt(square), 0.01, rtol=1e-9)
