"""AP against hand-worked tables and a slow obvious implementation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evad_jax.metrics.average_precision import average_precision, envelope_area
from tests.metrics import slow_map

LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)
NOWHERE = (0.45, 0.45, 0.55, 0.55)


def ap(detections, truth, **kwargs):
  """Rows (frame, box, score) and (frame, box) -> the value."""
  frames, boxes, scores = zip(*detections, strict=True) if detections else ((), (), ())
  truth_frames, truth_boxes = zip(*truth, strict=True) if truth else ((), ())
  return average_precision(
    np.array(frames, int),
    np.reshape(np.array(boxes, float), (-1, 4)),
    np.array(scores, float),
    np.array(truth_frames, int),
    np.reshape(np.array(truth_boxes, float), (-1, 4)),
    **kwargs,
  )


@pytest.mark.parametrize(
  ('hits', 'num_truth', 'expected'),
  [
    ([True], 1, 1.0),
    ([False, True], 1, 1 / 2),
    ([True, False, True], 2, (1 + 2 / 3) / 2),
    # Precision 0, 1/2, 2/3, 1/2, 3/5: the envelope lifts the first hit to 2/3.
    ([False, True, True, False, True], 4, (2 / 3 + 2 / 3 + 3 / 5) / 4),
    ([False, False], 3, 0.0),
    ([], 2, 0.0),
  ],
)
def test_envelope_area_table(hits, num_truth, expected):
  assert envelope_area(np.flatnonzero(hits), num_truth) == pytest.approx(expected, abs=1e-15)


def test_perfect_detector_scores_exactly_one():
  rng = np.random.default_rng(0)
  truth = [(f, (x, 0.1, x + 0.3, 0.9)) for f in range(13) for x in rng.choice([0.0, 0.35, 0.7], 2)]
  truth = sorted(set(truth))
  detections = [(f, box, s) for (f, box), s in zip(truth, rng.random(len(truth)), strict=True)]
  result = ap(detections, truth)
  assert result.value == 1.0
  assert (result.num_truth, result.num_detections) == (len(truth), len(truth))


@pytest.mark.parametrize(('iou', 'expected'), [(0.49, 0.0), (0.5, 1.0), (0.51, 1.0)])
def test_threshold(iou, expected):
  assert ap([(0, (0.0, 0.0, iou, 1.0), 0.9)], [(0, (0.0, 0.0, 1.0, 1.0))]).value == expected


def test_duplicate_is_a_false_positive():
  truth = [(0, LEFT), (0, RIGHT)]
  assert ap([(0, LEFT, 0.9), (0, LEFT, 0.8), (0, RIGHT, 0.7)], truth).value == (1 + 2 / 3) / 2


def test_no_second_choice():
  # The second detection overlaps both; its best box is taken, and it may not take the other.
  a, b = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.7, 1.0)
  between = (0.0, 0.0, 0.9, 1.0)
  assert slow_map.iou(between, b) > 0.5
  assert ap([(0, a, 0.9), (0, between, 0.8)], [(0, a), (0, b)]).value == 0.5


def test_of_two_equal_overlaps_the_first_is_taken():
  low, high = (0.0, 0.0, 0.75, 1.0), (0.25, 0.0, 1.0, 1.0)
  both = (0, (0.0, 0.0, 1.0, 1.0), 0.9)  # IoU 3/4 with either
  assert ap([both, (0, high, 0.8)], [(0, low), (0, high)]).value == 1.0
  assert ap([both, (0, low, 0.8)], [(0, low), (0, high)]).value == 0.5


def test_box_in_another_frame_is_no_hit():
  assert ap([(1, LEFT, 0.9)], [(0, LEFT)]).value == 0.0


def test_equal_scores_keep_their_order():
  wrong, right = (0, NOWHERE, 0.5), (0, LEFT, 0.5)
  assert ap([right, wrong], [(0, LEFT)]).value == 1.0
  assert ap([wrong, right], [(0, LEFT)]).value == 0.5


def test_without_truth_or_detections():
  result = ap([(0, LEFT, 0.9)], [])
  assert np.isnan(result.value)
  assert (result.num_truth, result.num_detections) == (0, 1)
  assert ap([], [(0, LEFT)]).value == 0.0


def test_nan_score_is_an_error():
  with pytest.raises(ValueError, match='score is NaN'):
    ap([(0, LEFT, np.nan)], [(0, LEFT)])


# A coarse grid of corners and scores makes equal IoUs, equal scores and empty boxes common.
corner = st.integers(0, 4)
box = st.tuples(corner, corner, corner, corner).map(
  lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
frame = st.integers(0, 2)


@settings(max_examples=120, deadline=None)
@given(
  st.lists(st.tuples(frame, box, st.integers(0, 5)), max_size=14),
  st.lists(st.tuples(frame, box), min_size=1, max_size=8),
)
def test_equals_slow_implementation(detections, truth):
  expected = slow_map.average_precision(detections, truth)
  assert ap(detections, truth).value == pytest.approx(expected, abs=1e-12)


def test_order_of_rows_does_not_matter_where_scores_differ():
  rng = np.random.default_rng(1)
  low = rng.random((40, 2)) * 0.5
  boxes = np.concatenate([low, low + 0.2 + 0.3 * rng.random((40, 2))], axis=1)
  frames, scores = rng.integers(6, size=40).tolist(), rng.random(40)
  detections = list(zip(frames, map(tuple, boxes), scores, strict=True))
  truth = [(f, tuple(np.add(b, 0.02))) for f, b, _ in detections[::3]]
  value = ap(detections, truth).value
  assert 0.05 < value < 0.95
  for _ in range(5):
    shuffled = [detections[i] for i in rng.permutation(40)]
    other = [truth[i] for i in rng.permutation(len(truth))]
    assert ap(shuffled, other).value == pytest.approx(value, abs=1e-15)


@settings(max_examples=80, deadline=None)
@given(
  st.lists(
    st.tuples(frame, box, st.sampled_from([-1.5, -0.0, 0.0, 1e-30, 0.25, 0.5, 1.0])), max_size=14
  ),
  st.lists(st.tuples(frame, box), min_size=1, max_size=8),
)
def test_float32_scores_are_ranked_as_float64_ones(detections, truth):
  frames, boxes, scores = zip(*detections, strict=True) if detections else ((), (), ())
  truth_frames, truth_boxes = map(np.array, zip(*truth, strict=True))
  frames, boxes = np.array(frames, int), np.reshape(np.array(boxes, float), (-1, 4))
  results = [
    average_precision(frames, boxes, np.array(scores, dtype), truth_frames, truth_boxes)
    for dtype in (np.float32, np.float64)
  ]
  assert results[0] == results[1]
