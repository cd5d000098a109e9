"""Kinds of errors by hand, against the definitions word by word, and what fixing them gains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evad_jax.formats.box_table import BoxTable
from evad_jax.metrics import frame_map, scored_boxes
from evad_jax.metrics.error_breakdown import KINDS, of_rows
from evad_jax.structures import Detections, Targets
from tests.metrics import slow_map
from tests.metrics.box_rows import columns

CLASSES = 3


def broken_down(detections, truth, num_classes=CLASSES):
  return of_rows(columns(detections), columns(truth), num_classes)


A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)
PART_OF_A, PART_OF_B = (0, 0, 10, 4), (20, 0, 30, 4)  # IoU 0.4


def test_kinds_by_hand():
  truth = [(0, A, 0), (0, A, 1), (0, B, 2), (1, A, 0), (1, B, 1)]
  detections = [
    (0, A, 0, 0.9),  # hit
    (0, A, 0, 0.8),  # duplicate
    (0, PART_OF_A, 1, 0.7),  # localisation, about label 1 of A
    (0, B, 0, 0.6),  # classification, about label 2 of B
    (0, PART_OF_B, 1, 0.5),  # both
    (0, FAR, 2, 0.4),  # background
    (0, PART_OF_A, 0, 0.3),  # localisation, about what was hit
  ]
  errors = broken_down(detections, truth)
  counts = dict(zip(KINDS, errors.counts.T.tolist(), strict=True))
  assert counts == {
    'duplicate': [1, 0, 0],
    'localisation': [1, 1, 0],
    'classification': [1, 0, 0],
    'both': [0, 1, 0],
    'background': [0, 0, 1],
    'missed': [1, 1, 0],  # both of frame 1
  }
  # Class 0: .9 hit, .8, .6, .3 wrong, two to find: 1/2. Classes 1 and 2: nothing found.
  assert errors.mean_ap == pytest.approx(1 / 6)
  costs = dict(zip(KINDS, errors.class_costs.T.tolist(), strict=True))
  assert costs['duplicate'] == costs['both'] == costs['background'] == [0, 0, 0]
  # The .7 becomes the first of class 1; the .3 is taken away.
  assert costs['localisation'] == pytest.approx([0, 1 / 2, 0])
  # The .6 becomes the first of class 2.
  assert costs['classification'] == pytest.approx([0, 0, 1])
  # Class 0 has one to find, class 1 one (which a localisation error is about), class 2 one.
  assert costs['missed'] == pytest.approx([1 / 2, 0, 0])
  assert dict(zip(KINDS, errors.costs, strict=True)) == pytest.approx(
    {**dict.fromkeys(KINDS, 0), 'localisation': 1 / 6, 'classification': 1 / 3, 'missed': 1 / 6}
  )


def test_what_is_wrong_above_a_hit_costs():
  truth = [(0, A, 0), (1, A, 0)]
  detections = [(0, A, 0, 0.9), (0, A, 0, 0.8), (1, FAR, 0, 0.7), (1, A, 0, 0.6)]
  errors = broken_down(detections, truth, 1)
  base = (1 + 2 / 4) / 2
  assert errors.mean_ap == pytest.approx(base)
  costs = dict(zip(KINDS, errors.costs, strict=True))
  assert costs['duplicate'] == costs['background'] == pytest.approx((1 + 2 / 3) / 2 - base)


def test_sizes():
  small, medium, large = (0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3)
  truth = [(f, box, 0) for f, box in enumerate([small, medium, large])]
  detections = [(0, small, 0, 0.9), (2, (9, 9, 11, 11), 0, 0.8), (2, (5, 5, 9, 9), 0, 0.7)]
  errors = broken_down(detections, truth, 1)
  assert errors.size_truth.tolist() == [1, 1, 1]
  assert errors.size_found.tolist() == [1, 0, 0]
  assert errors.size_counts[:, KINDS.index('missed')].tolist() == [0, 1, 1]
  assert errors.size_counts[:, KINDS.index('background')].tolist() == [0, 1, 1]
  assert 1 < errors.size_limits[0] < 4 < errors.size_limits[1] < 9


def slow_kinds(detections, truth):
  """{row: kind or 'hit'} and the missed (person, label), by the definitions."""
  people = {}
  for frame, box, label in truth:
    people.setdefault((frame, box), set()).add(label)
  people = list(people.items())
  kinds, found, order = {}, set(), {}
  for label in range(CLASSES):
    rows = [i for i, row in enumerate(detections) if row[2] == label]
    true = [(p, place, box) for p, ((place, box), labels) in enumerate(people) if label in labels]
    matched = slow_map.match(
      [(detections[i][0], detections[i][1], detections[i][3]) for i in rows],
      [(place, box) for _, place, box in true],
      slow_map.iou,
    )
    for row, number in matched:
      order[rows[row]] = len(order)
      if number is not None:
        kinds[rows[row]] = 'hit'
        found.add((true[number][0], label))

  def best(row, of_class):
    frame, box, label, _ = detections[row]
    ious = [
      (slow_map.iou(box, other), -p)
      for p, ((place, other), labels) in enumerate(people)
      if place == frame and (label in labels) == of_class
    ]
    iou, number = max(ious, default=(0.0, 0))
    return iou, -number

  about = set()
  for row, (_, _, label, _) in enumerate(detections):
    if row in kinds:
      continue
    (right, person), (wrong, other) = best(row, True), best(row, False)
    if right >= 0.5:
      kinds[row] = 'duplicate'
    elif right >= 0.1:
      kinds[row] = 'localisation'
      about.add((person, label))
    elif wrong >= 0.5:
      kinds[row] = 'classification'
      open_labels = [c for c in sorted(people[other][1]) if (other, c) not in found]
      about |= {(other, c) for c in open_labels[:1]}
    else:
      kinds[row] = 'both' if wrong >= 0.1 else 'background'
  every = {(p, c) for p, (_, labels) in enumerate(people) for c in labels}
  return kinds, every - found - about


corner = st.integers(0, 4)
box = st.tuples(corner, corner, corner, corner).map(
  lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]) + 1, max(c[1], c[3]) + 1)
)
frame, label = st.integers(0, 1), st.integers(0, CLASSES - 1)


@settings(max_examples=200, deadline=None)
@given(
  st.lists(st.tuples(frame, box, label, st.integers(0, 4)), max_size=20),
  st.lists(st.tuples(frame, box, label), max_size=10, unique=True),
)
def test_equals_the_definitions_word_by_word(detections, truth):
  errors = broken_down(detections, truth)
  kinds, missed = slow_kinds(detections, truth)
  expected = np.zeros((CLASSES, len(KINDS)), int)
  for row, kind in kinds.items():
    if kind != 'hit':
      expected[detections[row][2], KINDS.index(kind)] += 1
  for _, number in missed:
    expected[number, KINDS.index('missed')] += 1
  np.testing.assert_array_equal(errors.counts, expected)
  result = scored_boxes.compute(columns(detections), columns(truth), CLASSES, 2)
  assert errors.mean_ap == pytest.approx(result.mean_ap, abs=1e-12, nan_ok=True)
  assert errors.size_found.sum() == sum(kind == 'hit' for kind in kinds.values())
  np.testing.assert_array_equal(errors.size_counts.sum(axis=0), errors.counts.sum(axis=0))
  # Removing an error, adding a hit, or finding less to find never lowers a metric.
  for costs in (errors.costs, errors.class_costs):
    assert (costs[~np.isnan(costs)] >= -1e-12).all()


def test_an_evaluation_equals_its_rows():
  rng = np.random.default_rng(0)
  low = rng.random((12, 4, 2)) * 0.5
  boxes = np.concatenate([low, low + 0.3], axis=-1).astype(np.float32)
  near = boxes[:, rng.integers(4, size=6)] + rng.normal(0, 0.05, (12, 6, 4)).astype(np.float32)
  detections = Detections(
    near.astype(np.float32),
    np.full((12, 6), 0.9, np.float32),
    rng.random((12, 6, 4)).astype(np.float32),
  )
  labels = (rng.random((12, 4, 4)) < 0.4).astype(np.float32)
  labels[..., 0] = 1  # everybody does something
  targets = Targets(boxes, labels, np.ones((12, 4), bool))
  state = frame_map.update(frame_map.start(), detections, targets, np.ones(12, bool), range(12))
  frame, person, label = np.nonzero(labels[..., [3, 0]])
  found = of_rows(
    BoxTable(
      np.repeat(np.arange(12), 12),
      np.repeat(near.reshape(-1, 4), 2, axis=0),
      np.tile([0, 1], 72),
      detections.action_scores[..., [3, 0]].ravel(),
    ),
    BoxTable(frame, boxes[frame, person], label),
    2,
  )
  assert found.mean_ap == frame_map.compute(state, range(12), scored_classes=[3, 0]).mean_ap
  assert found.counts[:, :5].sum() > 50 and found.counts[:, 5].sum() > 0
