"""Suppression against its rule word by word, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evad_jax.tubes.rules import RULES
from evad_jax.tubes.suppression import suppress
from tests.metrics import slow_map

A, NEAR_A, FAR = (0, 0, 10, 10), (0, 0, 10, 8), (20, 0, 30, 10)

side = st.integers(0, 5)
box = st.tuples(side, side, st.integers(1, 4), st.integers(1, 4)).map(
  lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
rows = st.lists(st.tuples(st.integers(0, 2), box, st.integers(1, 4)), max_size=14)


def slow_suppress(boxes, scores, rule):
  """One frame: (row, score), best first."""
  sign = -1 if rule.last_of_equal_first else 1
  queue = sorted(range(len(boxes)), key=lambda row: (-scores[row], sign * row))
  final = {}
  while queue:
    best = queue.pop(0)
    final[best] = scores[best]
    for row in list(queue):
      grown = [(b[0], b[1], b[2] + rule.extra_pixel, b[3] + rule.extra_pixel) for b in boxes]
      overlap = slow_map.iou(grown[best], grown[row])
      if overlap > rule.suppression_iou:
        queue.remove(row)
        if rule.soft_suppression:
          final[row] = scores[row] * (1 - overlap)
  ranked = sorted(final, key=lambda row: (-final[row], sign * row))
  return [(row, final[row]) for row in ranked[: rule.max_boxes]]


@settings(max_examples=200, deadline=None)
@given(rows, st.sampled_from(['greedy', 'multisports']), st.integers(1, 10))
def test_equals_the_rule_word_by_word(rows, name, max_boxes):
  rule = RULES[name]._replace(max_boxes=max_boxes)
  frames, boxes, scores = zip(*rows, strict=True) if rows else ((), (), ())
  frames, boxes = np.array(frames, np.int64), np.reshape(np.array(boxes, float), (-1, 4))
  kept, kept_scores = suppress(frames, boxes, np.array(scores, float), rule)
  expected = []
  for frame in range(3):
    here = np.flatnonzero(frames == frame)
    result = slow_suppress(boxes[here].tolist(), [scores[i] for i in here], rule)
    expected += [(here[row], score) for row, score in result]
  assert kept.tolist() == [row for row, _ in expected]
  np.testing.assert_allclose(kept_scores, [score for _, score in expected], rtol=1e-12)


def test_hard_by_hand():
  kept, scores = suppress(
    np.zeros(3, int), np.array([NEAR_A, A, FAR]), np.array([0.5, 0.9, 0.6]), RULES['greedy']
  )
  assert (kept.tolist(), scores.tolist()) == ([1, 2], [0.9, 0.6])


def test_soft_by_hand():
  # With inclusive pixels the boxes are 11 x 11 and 11 x 9: IoU 9/11.
  kept, scores = suppress(
    np.zeros(3, int), np.array([NEAR_A, A, FAR]), np.array([0.5, 0.9, 0.6]), RULES['multisports']
  )
  assert kept.tolist() == [1, 2, 0]
  assert scores.tolist() == pytest.approx([0.9, 0.6, 0.5 * 2 / 11], abs=1e-15)
