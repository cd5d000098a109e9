"""Token pruning against NumPy's stable sort, and keep counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.model.token_pruning import Tokens, choose, num_kept, prune, put

BATCH, S, OTHERS, KEPT = 50, 3, 9, 4


@pytest.fixture(scope='module')
def case():
  """Tokens that hold their own number, with indices left by earlier pruning and tied scores."""
  rng = np.random.default_rng(0)
  number = np.tile(np.arange(S + OTHERS, dtype=np.float32)[:, None], (BATCH, 1, 2))
  places = np.stack([rng.permutation(20)[:OTHERS] for _ in range(BATCH)]).astype(np.int32)
  importance = rng.integers(0, 4, (BATCH, S + OTHERS)).astype(np.float32)  # many ties
  mask = rng.random((BATCH, S + OTHERS)) < rng.random((BATCH, 1))
  return number, places, importance, mask


PRUNE = jax.jit(prune, static_argnums=2)


def wanted_order(scores):
  """Falling, ties to the earlier."""
  return np.argsort(-scores, axis=1, kind='stable')[:, :KEPT]


def check(pruned, order, number, places):
  np.testing.assert_array_equal(pruned.x[:, :S], number[:, :S])
  np.testing.assert_array_equal(pruned.x[:, S:, 0], S + order)
  np.testing.assert_array_equal(pruned.x[:, S:, 1], S + order)
  np.testing.assert_array_equal(pruned.places, np.take_along_axis(places, order, axis=1))


def test_keeps_the_most_important_in_order(case):
  number, places, importance, _ = case
  pruned = PRUNE(Tokens(number, places, None), importance, KEPT)
  check(pruned, wanted_order(importance[:, S:]), number, places)
  assert pruned.mask is None


def test_padding_stays_only_where_real_tokens_run_out(case):
  number, places, importance, mask = case
  pruned = PRUNE(Tokens(number, places, mask), importance, KEPT)
  order = wanted_order(np.where(mask, importance, -np.inf)[:, S:])
  check(pruned, order, number, places)
  np.testing.assert_array_equal(pruned.mask[:, :S], mask[:, :S])
  np.testing.assert_array_equal(pruned.mask[:, S:], np.take_along_axis(mask[:, S:], order, 1))
  real = mask[:, S:].sum(1)
  assert (real < KEPT).any() and (real > KEPT).any()
  np.testing.assert_array_equal(pruned.mask[:, S:].sum(1), np.minimum(real, KEPT))


def test_gradient_reaches_kept_tokens_alone(case):
  number, places, importance, _ = case

  def kept_sum(x, scores):
    return prune(Tokens(x, places, None), scores, KEPT).x.sum()

  to_x, to_scores = jax.grad(kept_sum, argnums=(0, 1))(jnp.asarray(number), jnp.asarray(importance))
  assert (np.asarray(to_scores) == 0).all()
  wanted = np.zeros((BATCH, S + OTHERS))
  wanted[:, :S] = 1
  np.put_along_axis(wanted, S + wanted_order(importance[:, S:]), 1, axis=1)
  np.testing.assert_array_equal(to_x[..., 0], wanted)


def test_put_by_hand_and_choose_takes_back():
  x = np.array([[[1.0, 2.0], [3.0, 4.0]]])
  places = np.array([[3, 0]])
  found = put(x, places, 5)
  np.testing.assert_array_equal(found, [[[3, 4], [0, 0], [0, 0], [1, 2], [0, 0]]])
  np.testing.assert_array_equal(choose(found, places), x)
  np.testing.assert_array_equal(put(x[:, :0], places[:, :0], 3), np.zeros((1, 3, 2)))


@pytest.mark.parametrize('kept', [0, 1, 4, 9])
def test_gradients_of_choose_and_put_are_those_of_indexing(kept):
  rng = np.random.default_rng(0)
  places = np.stack([rng.permutation(9)[:kept] for _ in range(2)]).astype(np.int32)
  long, short = rng.normal(size=(2, 9, 3)), rng.normal(size=(2, kept, 3))
  rows = np.arange(2)[:, None]

  def gradient(form, x, weights):
    return jax.grad(lambda x: (form(x) * weights).sum())(jnp.asarray(x, jnp.float32))

  found = gradient(lambda x: choose(x, places), long, short)
  np.testing.assert_allclose(found, gradient(lambda x: x[rows, places], long, short))
  found = gradient(lambda x: put(x, places, 9), short, long)
  wanted = gradient(lambda x: jnp.zeros((2, 9, 3)).at[rows, places].set(x), short, long)
  np.testing.assert_allclose(found, wanted)


def test_keep_counts_by_hand():
  # ceil(0.7 * 2592) = ceil(1814.4); 1815 and 1271 follow; half of 2 x 9 tokens is the keyframe.
  table = [(2592, 324, 0.7, 1491), (1815, 324, 0.7, 947), (1271, 324, 0.7, 566), (18, 9, 0.5, 0)]
  for tokens, keyframe, rate, kept in table:
    assert num_kept(tokens, keyframe, rate, block=3) == kept
  assert num_kept(10, 4, 1.0, block=0) == 6


def test_impossible_rate_names_block_rate_and_the_smallest():
  with pytest.raises(InputError, match=r'0\.3 at block 7 .*the smallest rate there is 0\.334\.'):
    num_kept(96, 32, 0.3, block=7)
  assert num_kept(96, 32, 0.334, block=7) >= 0
  for rate in (0, -0.1, 1.5):
    with pytest.raises(InputError, match=rf'block 7 is {rate}; it must be in \(0, 1\]'):
      num_kept(96, 32, rate, block=7)


@pytest.mark.parametrize('seed', range(5))
def test_the_smallest_rate_it_names_works(seed):
  rng = np.random.default_rng(seed)
  keyframe = int(rng.integers(1, 700))
  tokens = keyframe + int(rng.integers(1, 5000))
  with pytest.raises(InputError) as caught:
    num_kept(tokens, keyframe, 1e-6, block=0)
  named = float(str(caught.value).split()[-1].rstrip('.'))
  assert num_kept(tokens, keyframe, named, block=0) >= 0
  with pytest.raises(InputError):
    num_kept(tokens, keyframe, named - 0.002, block=0)
