"""Boxes: hand-worked tables, NumPy = JAX, and gradients where boxes are empty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax import boxes

# One box, another, IoU, GIoU.
PAIRS = [
  ([0, 0, 2, 2], [0, 0, 2, 2], 1, 1),
  ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
  ([0, 0, 4, 4], [1, 1, 2, 3], 2 / 16, 2 / 16),  # inside
  ([0, 0, 1, 1], [2, 0, 3, 1], 0, -1 / 3),  # a gap of one
  ([0, 0, 1, 1], [1, 0, 2, 1], 0, 0),  # touching
  ([0, 0, 2, 2], [1, 1, 1, 1], 0, 0),  # one is empty
  ([1, 1, 1, 1], [1, 1, 1, 1], 0, 0),  # both are, in one place
  ([0, 0, 0, 0], [2, 2, 2, 2], 0, -1),  # both are, apart
]
A, B = (np.array([pair[i] for pair in PAIRS], np.float32) for i in (0, 1))
IOU, GIOU = (np.array([pair[i] for pair in PAIRS], np.float32) for i in (2, 3))


@pytest.mark.parametrize('xp', [np, jnp])
def test_overlaps_of_the_table(xp):
  a, b = xp.asarray(A), xp.asarray(B)
  np.testing.assert_allclose(np.diag(boxes.pairwise_iou(a, b)), IOU, atol=1e-6)
  np.testing.assert_allclose(boxes.elementwise_iou(a, b), IOU, atol=1e-6)
  np.testing.assert_allclose(np.diag(boxes.pairwise_giou(a, b)), GIOU, atol=1e-6)
  np.testing.assert_allclose(np.diag(boxes.pairwise_giou(b, a)), GIOU, atol=1e-6)


def test_numpy_equals_jax_for_every_pair_and_leading_axes():
  rng = np.random.default_rng(0)
  low = rng.uniform(-5, 20, (2, 3, 5, 2)).astype(np.float32)
  a = np.concatenate([low, low + rng.uniform(0, 9, low.shape).astype(np.float32)], axis=-1)
  b = a[:, :, ::-1][:, :, :4] + 1
  for function in (boxes.pairwise_iou, boxes.pairwise_giou):
    ours = function(a, b)
    assert ours.shape == (2, 3, 5, 4)
    np.testing.assert_allclose(ours, function(jnp.asarray(a), jnp.asarray(b)), atol=1e-6)
    np.testing.assert_allclose(ours[1, 2, 3, 0], function(a[1, 2, 3:4], b[1, 2, :1])[0, 0])


@pytest.mark.parametrize('function', [boxes.pairwise_iou, boxes.pairwise_giou])
def test_gradients_are_finite_for_empty_boxes(function):
  gradients = jax.grad(lambda a, b: function(a, b).sum(), argnums=(0, 1))(A, B)
  assert np.isfinite(np.array(gradients)).all()
  assert np.abs(np.array(gradients)).max() > 0.1


@pytest.mark.parametrize('xp', [np, jnp])
def test_clip_by_hand(xp):
  given = [[[-3, 2, 50, 60], [4, -1, 9, 5]], [[-3, 2, 50, 60], [200, 100, 300, 200]]]
  wanted = [[[0, 2, 31, 19], [4, 0, 9, 5]], [[0, 2, 50, 49], [63, 49, 63, 49]]]
  height, width = xp.asarray([[20.0], [50.0]]), xp.asarray([[32.0], [64.0]])
  np.testing.assert_array_equal(boxes.clip(xp.asarray(given, float), height, width), wanted)
  one = boxes.clip(xp.asarray(given[0], float), height[0], width[0])
  np.testing.assert_array_equal(one, wanted[0])


@pytest.mark.parametrize('xp', [np, jnp])
def test_pixels_by_hand(xp):
  parts = xp.asarray([[[0, 0.25, 0.5, 1]], [[0.5, 0.5, 1, 0.75]]], dtype=xp.float32)
  pixels = [[[0, 10, 30, 40]], [[40, 10, 80, 15]]]
  sizes = xp.asarray([[40, 60], [20, 80]])[:, None]  # height, width
  np.testing.assert_array_equal(boxes.to_pixels(parts, sizes), pixels)
  np.testing.assert_array_equal(boxes.normalise(xp.asarray(pixels, dtype=xp.float32), sizes), parts)
  assert boxes.to_pixels(parts[0, 0], (40, 60)).dtype == parts.dtype


@pytest.mark.parametrize('xp', [np, jnp])
def test_flip_centre_and_area_by_hand(xp):
  given = xp.asarray([[1.0, 2, 4, 9], [0, 0, 9, 9]])
  flipped = boxes.flip_horizontally(given, 10)
  np.testing.assert_array_equal(flipped, [[5, 2, 8, 9], [0, 0, 9, 9]])
  np.testing.assert_array_equal(boxes.flip_horizontally(flipped, 10), given)
  np.testing.assert_array_equal(boxes.area(given), [21, 81])
  corners = boxes.from_cxcywh(xp.asarray([[5.0, 6, 4, 2], [0.5, 0.5, 1, 1]]))
  np.testing.assert_array_equal(corners, [[3, 5, 7, 7], [0, 0, 1, 1]])
