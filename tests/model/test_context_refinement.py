"""Token restoring, box extension and actor features, by hand and against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.model import context_refinement as refinement
from evad_jax.model.token_pruning import Tokens
from tests.model.slow_roi_align import slow_roi_align

# Four slots of two tokens; the keyframe is slot 2. Indices 0..5 are slots 0, 1, 3.
GRID = (4, 1, 2)
KEYFRAME = [10, 11]
KEPT, PLACES = [21, 22, 23], [4, 1, 2]  # in order of importance
FILL = -1
RESTORED = {
  'scatter': [[FILL, 22], [23, FILL], KEYFRAME, [21, FILL]],
  'released': [[FILL, 21], [22, FILL], KEYFRAME, [23, FILL]],
}


@pytest.mark.parametrize('restoring', refinement.TOKEN_RESTORINGS)
def test_grid_is_restored(restoring):
  kept = jnp.array([[*KEYFRAME, *KEPT], [*KEYFRAME, 31, 32, 33]], jnp.float32)[..., None]
  places = jnp.array([PLACES, [0, 1, 5]])
  places = refinement.restored_places(places, restoring)
  grid = refinement.restore_grid(kept, places, jnp.array([FILL], jnp.float32), GRID)
  np.testing.assert_array_equal(grid[0, :, 0, :, 0], RESTORED[restoring])
  ascending = [[31, 32], [FILL, FILL], KEYFRAME, [FILL, 33]]  # both ways are the same then
  np.testing.assert_array_equal(grid[1, :, 0, :, 0], ascending)


def test_unknown_restoring_is_an_error():
  with pytest.raises(InputError, match="token_restoring='best' is not one of"):
    refinement.restored_places(jnp.array([PLACES]), 'best')


def test_boxes_are_extended_and_clipped_by_hand():
  sizes = jnp.array([[60, 100], [30, 40]])
  boxes = jnp.array([[[20.0, 10, 39, 29], [0, 0, 99, 59]], [[20, 10, 39, 29], [38, 2, 50, 40]]])
  # 0.4 of 20 is 8, half on each side 4; 0.2 of 20 is 4, half 2.
  wanted = [[[16, 8, 43, 31], [0, 0, 99, 59]], [[16, 8, 39, 29], [38 - 2.6, 0, 39, 29]]]
  found = refinement.extend_boxes(boxes, (0.4, 0.2), sizes)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  unchanged = refinement.extend_boxes(boxes, (0.0, 0.0), sizes)
  np.testing.assert_array_equal(unchanged[0], boxes[0])
  np.testing.assert_array_equal(unchanged[1, 1], [38, 2, 39, 29])


def test_boxes_are_extended_without_gradient():
  boxes = jnp.array([[[20.0, 10, 39, 29]]])

  def total(boxes):
    return refinement.extend_boxes(boxes, (0.4, 0.2), jnp.array([[60, 100]])).sum()

  assert (np.asarray(jax.grad(total)(boxes)) == 0).all()


def test_actor_features_are_the_maximum_of_bins_and_mean_of_slots():
  rng = np.random.default_rng(0)
  grid = rng.normal(size=(2, 4, 3, 5, 6)).astype(np.float32)
  boxes = np.array([[[3, 2, 20, 18], [0, 0, 39, 23]], [[7, 7, 30, 9], [11, 1, 13, 22]]], np.float32)
  found = jax.jit(refinement.actor_features, static_argnums=2)(grid, boxes, 8)
  for b in range(2):
    for p in range(2):
      slots = [slow_roi_align(grid[b, i], boxes[b, p], 8).max(axis=(0, 1)) for i in range(4)]
      np.testing.assert_allclose(found[b, p], np.mean(slots, axis=0), atol=1e-5)


@pytest.fixture(scope='module')
def decoder():
  """A small decoder on the grid above, with random weights, and its arguments."""
  module = refinement.ContextRefinement(
    width=8,
    depth=1,
    num_heads=2,
    num_actions=3,
    action_hidden=8,
    pretrain_grid=(1, 2),
    patch=8,
    roi_extension=(0.4, 0.2),
    token_restoring='scatter',
    drop_path=0.0,
    remat=False,
  )
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 5, 6)).astype(np.float32)
  boxes = np.array([[[0, 0, 3, 7], [0, 1, 2, 6]]], np.float32)  # of the left column
  arguments = (GRID, jnp.asarray(boxes), jnp.array([[8, 16]]))
  tokens = Tokens(x, np.array([PLACES]), None)
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), tokens, *arguments, train=False)['params']
  )
  params = jax.tree.map(lambda s: rng.normal(0, 0.5, s.shape).astype(np.float32), shapes)

  @jax.jit
  def apply(tokens):
    mutable = ['intermediates']
    return module.apply({'params': params}, tokens, *arguments, train=False, mutable=mutable)

  def run(tokens):
    out, state = apply(tokens)
    return out, {name: value[0] for name, value in state['intermediates'].items()}

  return run, params, tokens


def test_decoder_input_holds_tokens_with_the_codes_of_their_places_and_actors(decoder):
  run, params, tokens = decoder
  _, seen = run(tokens)
  angle = np.arange(8)[:, None] / 10000 ** (2 * (np.arange(8) // 2) / 8)
  codes = np.where(np.arange(8) % 2 == 0, np.sin(angle), np.cos(angle)).reshape(4, 2, 8)
  projected = tokens.x[0] @ params['projection']['kernel']
  by_place = codes[[0, 1, 3]].reshape(6, 8)
  wanted = projected + np.concatenate([codes[2], by_place[PLACES]])
  np.testing.assert_allclose(seen['decoder_input'][0, :5], wanted, atol=1e-5)
  np.testing.assert_array_equal(seen['decoder_input'][0, 5:], seen['actors'][0])
  grid = np.tile(params['mask_token'], (4, 2, 1)) + codes
  grid[2] += projected[:2] - params['mask_token']
  for value, (slot, column) in zip(projected[2:], [(3, 0), (0, 1), (1, 0)], strict=True):
    grid[slot, column] += value - params['mask_token']
  np.testing.assert_allclose(seen['restored_grid'][0, :, 0], grid, atol=1e-5)


def test_masked_tokens_are_no_keys_of_the_decoder(decoder):
  """The boxes see the left column alone: a token of the right one acts through attention only."""
  run, _, tokens = decoder
  changed = tokens.x.copy()
  changed[0, 3] += 1  # index 1: slot 0, right column
  mask = np.array([[True, True, True, False, True]])
  masked, open_ = (
    [run(Tokens(x, tokens.places, m)) for x in (tokens.x, changed)] for m in (mask, None)
  )
  for (_, seen), (_, seen_changed) in (masked, open_):
    np.testing.assert_array_equal(seen['actors'], seen_changed['actors'])
  np.testing.assert_array_equal(masked[0][0], masked[1][0])
  assert np.abs(open_[0][0] - open_[1][0]).max() > 1e-3
