"""Box deltas and start boxes by hand."""

import jax
import numpy as np
import pytest

from evad_jax.model import sparse_rcnn


def test_deltas_by_hand():
  box = [10.0, 20, 30, 60]  # centre (20, 40), size 20 x 40
  table = [
    ([0, 0, 0, 0], box),
    ([1, 0, 0, 0], [20, 20, 40, 60]),  # half a width to the right
    ([0, -1, 0, 0], [10, 0, 30, 40]),  # half a height up
    ([0, 0, np.log(2), np.log(0.5)], [0, 30, 40, 50]),
    ([0, 0, 99, 0], [20 - 62500, 20, 20 + 62500, 60]),  # the factor stops at 100000 / 16
  ]
  for deltas, wanted in table:
    found = sparse_rcnn.apply_deltas(np.float32(box), np.float32(deltas))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('name', sorted(sparse_rcnn.PROPOSAL_INITS))
@pytest.mark.parametrize('count', [1, 6, 12, 100])
def test_start_boxes(name, count):
  boxes = np.asarray(sparse_rcnn.PROPOSAL_INITS[name](jax.random.key(0), (count, 4)))
  assert boxes.shape == (count, 4)
  if name == 'image':
    np.testing.assert_array_equal(boxes, np.tile([0.5, 0.5, 1, 1], (count, 1)))
    return
  assert len(np.unique(boxes, axis=0)) == count
  assert (boxes[:, :2] > 0).all() and (boxes[:, :2] < 1).all()
  # Evenly spread: the mean centre of a full grid is the centre of the image.
  np.testing.assert_allclose(boxes[:, :2].mean(0), 0.5, atol=1e-6)


def test_grid_of_six_by_hand():
  boxes = sparse_rcnn.grid_boxes(jax.random.key(0), (6, 4))
  centres = [[x, y] for y in (0.25, 0.75) for x in (1 / 6, 0.5, 5 / 6)]
  np.testing.assert_allclose(boxes[:, :2], centres, rtol=1e-6)
  np.testing.assert_allclose(boxes[:, 2:], [[0.35, 0.5]] * 6)
