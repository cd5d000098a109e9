"""Single operations against the published implementation's numbers (tests/golden/units.npz)."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.model import roi_align
from evad_jax.model.context_refinement import extend_boxes
from evad_jax.model.position_embedding import position_table, sincos_table
from evad_jax.model.sparse_rcnn import apply_deltas
from evad_jax.model.token_pruning import num_kept

# On a map of 160 columns the reference itself, in float32, is 1.2e-5 from the exact value.
ROI_TOLERANCE = 5e-5


@pytest.fixture(scope='module')
def units():
  with np.load(Path(__file__).resolve().parent / 'golden' / 'units.npz') as file:
    return dict(file)


def _close(ours, golden, tolerance=5e-6):
  assert ours.shape == golden.shape
  assert np.abs(ours - golden).max() <= tolerance * np.abs(golden).max()


def _rois(out):
  """(B, P, 7, 7, C) -> (B*P, C, 7, 7), as in the file."""
  return np.asarray(out).reshape(-1, *out.shape[2:]).transpose(0, 3, 1, 2)


def test_roi_align_over_four_levels(units):
  pyramid = [jnp.asarray(units[f'roi/feat{i}']).transpose(0, 2, 3, 1) for i in range(4)]
  boxes = jnp.asarray(units['roi/boxes'])
  levels = roi_align.roi_levels(boxes, 224, 4)
  np.testing.assert_array_equal(np.asarray(levels).ravel(), units['roi/levels'])
  assert set(units['roi/levels']) == {0, 1, 2, 3}
  sheet = roi_align.sheet_of(pyramid)
  out = roi_align.multilevel_roi_align(roi_align.lay(pyramid, sheet), sheet, boxes, 4, 224)
  _close(_rois(out), units['roi/out'], ROI_TOLERANCE)


def test_roi_align_on_one_level(units):
  features = jnp.asarray(units['roi/feat2']).transpose(0, 2, 3, 1)
  weights = roi_align.roi_weights(jnp.asarray(units['roi/boxes']), 16, *features.shape[1:3])
  out = roi_align.roi_align(features, *weights)
  _close(_rois(out), units['roi/out_single_stride16'], ROI_TOLERANCE)


def test_box_extension(units):
  boxes = jnp.asarray(units['ext/in'])[None]
  out = extend_boxes(boxes, (0.4, 0.2), jnp.asarray([[64, 96]]))
  _close(np.asarray(out)[0], units['ext/out'], 1e-6)


def test_box_deltas(units):
  out = apply_deltas(jnp.asarray(units['delta/boxes']), jnp.asarray(units['delta/deltas']))
  np.testing.assert_allclose(out, units['delta/out'], rtol=1e-5, atol=1e-3)


def test_position_table_before_resizing(units):
  places = [0, 1, 2, 195, 196, 783, 1567]  # of (8, 14, 14)
  np.testing.assert_array_equal(sincos_table(1568, 768)[places], units['pos768/rows'])


@pytest.mark.parametrize('width', [768, 384])
@pytest.mark.parametrize('grid', [(18, 18), (18, 32), (10, 12), (9, 28)])
def test_resized_position_tables(units, grid, width):
  golden = units[f'pos{width}/{grid[0]}x{grid[1]}']  # first and last slot, first columns
  table = position_table((8, *grid), (14, 14), width).reshape(8, *grid, width)
  _close(table[[0, -1], ..., : golden.shape[-1]], golden)


@pytest.mark.parametrize(
  'rate, counts',
  [
    (0.7, {2592: 1815, 1815: 1271, 1271: 890, 4608: 3226, 2259: 1582, 10: 7, 30: 21, 110: 77}),
    (0.6, {2592: 1556, 1556: 934, 934: 561, 1815: 1089, 3226: 1936, 50: 30, 190: 114}),
    (0.5, {2592: 1296, 1815: 908, 1271: 636, 2259: 1130, 115: 58, 230: 115}),
  ],
)
def test_keep_counts(rate, counts):
  for tokens, wanted in counts.items():
    keyframe = 2
    assert num_kept(tokens, keyframe, rate, block=0) + keyframe == wanted
