"""Metrics of rows: against the rule word by word, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evad_jax.formats.box_table import NOT_SCORED, BoxTable
from evad_jax.metrics import scored_boxes
from tests.metrics import slow_map
from tests.metrics.box_rows import columns

CLASSES = 3
corner = st.integers(0, 4)
box = st.tuples(corner, corner, corner, corner).map(
  lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
frame, label = st.integers(0, 2), st.integers(NOT_SCORED, CLASSES - 1)
# Few corners and few scores: duplicates, crowds and equal scores are common.
scored = st.lists(st.tuples(frame, box, label, st.integers(0, 4)), max_size=25)
true = st.lists(st.tuples(frame, box, label), max_size=12)


def slow_class(detections, truth, number):
  return slow_map.average_precision(
    [(f, b, s) for f, b, c, s in detections if c == number],
    [(f, b) for f, b, c in truth if c == number],
  )


def slow_person(detections, truth):
  best = {}
  for f, b, _, s in detections:
    best[f, b] = max(s, best.get((f, b), s))
  people = [(f, b, s) for (f, b), s in best.items()]
  return slow_map.average_precision(people, list(dict.fromkeys((f, b) for f, b, _ in truth)))


@settings(max_examples=200, deadline=None)
@given(scored, true)
def test_equals_the_rule_word_by_word(detections, truth):
  result = scored_boxes.compute(columns(detections), columns(truth), CLASSES, 3)
  expected = [slow_class(detections, truth, number) for number in range(CLASSES)]
  for ap, value in zip(result.per_class, expected, strict=True):
    assert ap.value == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True)
  mean, person = slow_map.mean(expected), slow_person(detections, truth)
  assert result.mean_ap == pytest.approx(np.nan if mean is None else mean, abs=1e-12, nan_ok=True)
  person = np.nan if person is None else person
  assert result.person.value == pytest.approx(person, abs=1e-12, nan_ok=True)
  assert result.num_detections == sum(c >= 0 for _, _, c, _ in detections)
  assert result.num_boxes == len({(f, b) for f, b, _, _ in detections})


@settings(max_examples=60, deadline=None)
@given(scored, true, st.randoms())
def test_order_of_rows_does_not_matter_where_scores_differ(detections, truth, random):
  detections = [(f, b, c, i / 7) for i, (f, b, c, _) in enumerate(detections)]
  truth = list(dict.fromkeys(truth))
  expected = [slow_class(detections, truth, number) for number in range(CLASSES)]
  # Of two truth boxes with the same IoU the first counts, so only detections are shuffled.
  random.shuffle(detections)
  result = scored_boxes.class_average_precisions(columns(detections), columns(truth), CLASSES)
  for ap, value in zip(result, expected, strict=True):
    assert ap.value == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(('shift', 'expected'), [(0.0, 1.0), (0.51, 0.0)])
def test_perfect_detector_and_shifted_boxes(shift, expected):
  # Boxes of height 1 that are moved by a share s of it overlap by (1 - s) / (1 + s).
  rng = np.random.default_rng(0)
  frames = np.repeat(np.arange(40), 2)
  left = np.tile([0.0, 2.0], 40) + rng.random(80) * 0.5
  boxes = np.stack([left, np.zeros(80), left + 1, np.ones(80)], axis=1)
  share = (1 - 0.49) / (1 + 0.49) if shift else 0.0
  moved = boxes + [0, share, 0, share]
  labels = rng.integers(0, 5, 80)
  detections = BoxTable(frames, moved, labels, rng.random(80))
  result = scored_boxes.compute(detections, BoxTable(frames, boxes, labels), 5, 40)
  assert result.mean_ap == result.person.value == expected
  if shift:
    lower = scored_boxes.compute(detections, BoxTable(frames, boxes, labels), 5, 40, 0.48)
    assert lower.mean_ap == 1.0


@settings(max_examples=80, deadline=None)
@given(scored, st.integers(1, 4))
def test_highest_of_each_frame(detections, number):
  mask = columns(detections).highest_per_frame(number)
  expected = [c >= 0 for _, _, c, _ in detections]
  for f in range(3):
    rows = [i for i, (g, _, c, _) in enumerate(detections) if g == f and c >= 0]
    for row in sorted(rows, key=lambda row: -detections[row][3])[number:]:
      expected[row] = False
  assert mask.tolist() == expected


def test_nan_is_an_error():
  rows = columns([(0, (0, 0, 1, 1), 0, 0.5)])
  truth = columns([(0, (0, 0, 1, 1), 0)])
  with pytest.raises(ValueError, match='score is NaN'):
    scored_boxes.compute(rows._replace(score=np.array([np.nan])), truth, 1, 1)
