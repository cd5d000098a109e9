"""RoIAlign against one bilinear sample at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.model.roi_align import (
  lay,
  multilevel_roi_align,
  own_spans,
  roi_align,
  roi_levels,
  roi_weights,
  rows_added,
  sheet_by_gathers,
  sheet_by_products,
  sheet_of,
)
from tests.model.slow_roi_align import slow_roi_align

BINS, SAMPLES = 7, 2
# On a map of 6 x 8 at stride 4, that is 24 x 32 pixels.
BOXES = [
  [3, 2, 20, 18],  # inside
  [0, 0, 32, 24],  # the full map
  [-2, -2, 3, 3],  # within a pixel of the border, where samples are clamped to the edge
  [-30, -40, 60, 50],  # samples further out count zero, and still count in the mean
  [28, 20, 60, 50],
  [7, 7, 7, 7],  # empty
  [100, 100, 120, 130],  # outside
  [20, 15, 10, 5],  # corners swapped
]


@pytest.fixture(scope='module')
def maps():
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, 6, 8, 3)).astype(np.float32)


@jax.jit
def align(features, boxes):
  return roi_align(features, *roi_weights(boxes, 4.0, *features.shape[1:3]))


def test_equals_the_samples_one_by_one(maps):
  boxes = np.array([BOXES, BOXES[::-1]], np.float32) + np.float32(0.013)  # off the samples' ties
  found = align(maps, boxes)
  for b in range(2):
    for box, rois in zip(boxes[b], found[b], strict=True):
      np.testing.assert_allclose(rois, slow_roi_align(maps[b], box, 4), atol=1e-5, err_msg=box)


def test_border_rule_by_hand():
  """On a map of ones a sample is 1 up to one pixel outside, and 0 beyond."""
  ones = np.ones((1, 6, 8, 1), np.float32)
  # x samples of the first bin: -0.5 + 8/7 * (0.25, 0.75) shifted; this box has x1 = -1.5 pixels.
  box = np.array([[[-4.0, 4.0, 24.0, 20.0]]], np.float32)  # x: -1.5 + (0.25, 0.75, 1.25, ...)
  rois = np.asarray(align(ones, box))[0, 0, :, :, 0]
  np.testing.assert_allclose(rois, np.tile([0.5, 1, 1, 1, 1, 1, 1], (7, 1)), atol=1e-6)


def test_boxes_get_no_gradient(maps):
  boxes = np.array([BOXES] * 2, np.float32)
  to_maps, to_boxes = jax.grad(lambda m, b: align(m, b).sum(), argnums=(0, 1))(maps, boxes)
  assert (np.asarray(to_boxes) == 0).all()
  assert (np.asarray(to_maps) != 0).all()


def test_levels_by_hand():
  # Geometric mean side -> level, with a canonical side of 224 pixels on level 2.
  sides = [(0, 0), (10, 10), (111, 111), (113, 113), (223, 223), (224, 224), (56, 900), (449, 449)]
  wanted = [0, 0, 0, 1, 1, 2, 2, 3]
  boxes = np.array([[[5, 7, 5 + w, 7 + h] for w, h in [*sides, (9000, 9000), (-5, 8)]]], np.float32)
  np.testing.assert_array_equal(roi_levels(boxes, 224, 4)[0], [*wanted, 3, 0])


def random_pyramid(batch, dtype=np.float32):
  rng = np.random.default_rng(1)
  return [rng.normal(size=(batch, 32 >> i, 40 >> i, 2)).astype(dtype) for i in range(4)]


def test_maps_on_a_sheet_by_hand():
  pyramid = [np.full((1, h, w, 1), i + 1.0) for i, (h, w) in enumerate([(4, 6), (2, 3), (1, 2)])]
  sheet = sheet_of(pyramid)
  assert (sheet.height, sheet.width) == (4, 9)
  np.testing.assert_array_equal(sheet.places, [[0, 0], [0, 6], [2, 6]])
  wanted = [[1] * 6 + [2] * 3] * 2 + [[1] * 6 + [3, 3, 0], [1] * 6 + [0] * 3]
  np.testing.assert_array_equal(lay(pyramid, sheet)[0, :, :, 0], wanted)


@pytest.mark.parametrize('form', [sheet_by_gathers, sheet_by_products])
def test_every_box_is_read_from_its_own_level(form):
  pyramid = random_pyramid(1)
  sides = np.array([8, 60, 110, 120, 30], np.float32)  # canonical 56: levels 0, 2, 2, 3, 1
  boxes = np.stack([3 + 0 * sides, 5 + 0 * sides, 3 + sides, 5 + sides], axis=-1)[None]
  sheet = sheet_of(pyramid)
  found = form(lay(pyramid, sheet), *own_spans(boxes, sheet, 4.0, 56.0))
  for box, rois, level in zip(boxes[0], found[0], [0, 2, 2, 3, 1], strict=True):
    wanted = slow_roi_align(pyramid[level][0], box, 4 * 2**level)
    np.testing.assert_allclose(rois, wanted, atol=1e-5)


def level_by_level(pyramid, boxes, stride, size):
  """RoIAlign on every level; each box takes the result of its own level."""
  levels, out = roi_levels(boxes, size, len(pyramid)), 0
  for i, features in enumerate(pyramid):
    rois = roi_align(features, *roi_weights(boxes, stride * 2**i, *features.shape[1:3]))
    out = out + jnp.where((levels == i)[..., None, None, None], rois, 0)
  return out


def on_a_sheet(pyramid, boxes, stride, size):
  sheet = sheet_of(pyramid)
  return multilevel_roi_align(lay(pyramid, sheet), sheet, boxes, stride, size)


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu'])
def test_forms_agree_at_every_border_and_so_do_their_gradients(platform, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  with jax.enable_x64(True):
    pyramid = random_pyramid(2, np.float64)
    boxes = np.array([BOXES, [[7.3 * x for x in box] for box in BOXES]], float)
    weights = np.random.default_rng(2).normal(size=(2, len(BOXES), 7, 7, 2))

    def value_and_gradient(form):
      def call(pyramid, boxes):
        return (form(pyramid, boxes, 4.0, 56.0) * weights).sum()

      return jax.jit(jax.value_and_grad(call, argnums=(0, 1)))(pyramid, boxes)

    (value, grads), (wanted, wanted_grads) = map(value_and_gradient, (on_a_sheet, level_by_level))
  np.testing.assert_allclose(value, wanted, rtol=1e-12)
  for a, b in zip(grads[0], wanted_grads[0], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-12)
    assert np.abs(b).max() > 0.1
  assert (np.asarray(grads[1]) == 0).all()


def test_rows_added_is_the_transpose_of_the_products():
  """With a number of boxes that is not a multiple of eight, and to the rounding of bfloat16."""
  pyramid = [jnp.asarray(x, jnp.bfloat16) for x in random_pyramid(2)]
  boxes = np.array([BOXES[:5], BOXES[3:]], np.float32)
  sheet = sheet_of(pyramid)
  spans = own_spans(boxes, sheet, 4.0, 56.0)
  features = lay(pyramid, sheet)
  gradient = np.random.default_rng(3).normal(size=(2, 5, 7, 7, 2))
  found = rows_added(jnp.asarray(gradient, jnp.bfloat16), *spans, features)
  wanted = jax.linear_transpose(
    lambda f: sheet_by_products(f, *spans), jax.ShapeDtypeStruct(features.shape, jnp.float32)
  )(jnp.asarray(gradient, jnp.float32))[0]
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(found.astype(float), wanted, atol=0.02 * np.abs(wanted).max())


def test_bfloat16_maps_give_bfloat16_rois(maps):
  boxes = np.array([BOXES] * 2, np.float32)
  found = align(jnp.asarray(maps, jnp.bfloat16), boxes)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(found.astype(float), align(maps, boxes), atol=0.05)
