"""Overlapping pairs against every pair, one at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evad_jax import box_pairs
from evad_jax.box_pairs import best_of_each, overlapping_pairs
from tests.metrics import slow_map

corner = st.integers(0, 4)
box = st.tuples(corner, corner, corner, corner).map(
  lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
placed = st.lists(st.tuples(st.integers(-1, 2), box), max_size=12)


def slow_pairs(detections, truth, least):
  pairs = [
    (i, j, slow_map.iou(a, b))
    for i, (frame, a) in enumerate(detections)
    for j, (other, b) in enumerate(truth)
    if frame == other and slow_map.iou(a, b) >= least
  ]
  return sorted(pairs, key=lambda pair: (pair[0], -pair[2], pair[1]))


def arrays(rows):
  frames, boxes = zip(*rows, strict=True) if rows else ((), ())
  return np.array(frames, np.int64), np.reshape(np.array(boxes, np.float32), (-1, 4))


@settings(max_examples=150, deadline=None)
@given(placed, placed, st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([1, 3, 1 << 13]))
def test_equals_every_pair(detections, truth, least, block):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(box_pairs, 'PAIRS_AT_ONCE', block)
    pairs = overlapping_pairs(*arrays(detections), *arrays(truth), least)
  expected = slow_pairs(detections, truth, least)
  assert list(zip(*(column.tolist() for column in pairs), strict=True)) == expected
  best = {}
  for i, j, _ in expected:
    best.setdefault(i, j)
  found = best_of_each(pairs)
  assert dict(zip(found.detection.tolist(), found.truth.tolist(), strict=True)) == best


def test_an_iou_of_zero_is_no_overlap():
  with pytest.raises(ValueError, match='above 0'):
    overlapping_pairs(*arrays([(0, (0, 0, 1, 1))]), *arrays([(0, (2, 2, 3, 3))]), 0.0)
