"""What a detector gets wrong, and what each kind of error costs (after TIDE, arXiv 2008.08115).

Every detection that is not a hit has exactly one kind of error, the first of these that fits.
People may do several things at once; a person is *of the class* if it is one of their labels.

  duplicate       on a person of the class whom a higher-scored detection hit
  localisation    overlaps a person of the class (IoU of at least 0.1), but below the threshold
  classification  on a person who is not of the class
  both            overlaps a person who is not of the class, but below the threshold
  background      overlaps nobody

Each of the first three is *about* a label of one person: the class, or for a classification error
the first of the person's labels that nothing hit. A label is *missed* if nothing hit it and no
localisation or classification error is about it.

The cost of a kind is the mAP without its errors, minus the mAP. Of the localisation errors about
one label that nothing hit, the highest-scored becomes a hit; so does that of the classification
errors, which move to the label's class. All other errors of the kind are removed, and missed labels
no longer count as ground truth. Each kind is fixed alone, so the costs do not add up.
"""

from typing import NamedTuple

import numpy as np

from evad_jax.box_pairs import Pairs, overlapping_pairs
from evad_jax.formats.box_table import BoxTable
from evad_jax.metrics.average_precision import envelope_area
from evad_jax.metrics.frame_map import Truth
from evad_jax.metrics.scored_boxes import rows_by_label

KINDS = ('duplicate', 'localisation', 'classification', 'both', 'background', 'missed')
DUPLICATE, LOCALISATION, CLASSIFICATION, BOTH, BACKGROUND, MISSED = range(len(KINDS))
HIT = -1
SIZES = ('small', 'medium', 'large')  # thirds of the ground truth by area
BACKGROUND_IOU = 0.1


class Breakdown(NamedTuple):
  """Errors of A classes, of six kinds, and of three sizes."""

  mean_ap: float  # as it is
  costs: np.ndarray  # (6,) gain in the mean from fixing one kind; NaN without ground truth
  class_costs: np.ndarray  # (A, 6) gain of a class; NaN if it has no ground truth (left)
  counts: np.ndarray  # (A, 6) int64
  size_counts: np.ndarray  # (3, 6) int64; a detection by its own size, a missed label by its box
  size_truth: np.ndarray  # (3,) int64 labels of the ground truth
  size_found: np.ndarray  # (3,) int64 those that were hit
  size_limits: np.ndarray  # (2,) areas between small, medium and large, in the boxes' unit


class _Judged(NamedTuple):
  """The n detections of one class, as ranked."""

  scores: np.ndarray  # (n,)
  rows: np.ndarray  # (n,) int64 row of the box
  kinds: np.ndarray  # (n,) int8
  people: np.ndarray  # (n,) int64 whom a hit or an error is about; -1: nobody


def of_rows(
  detections: BoxTable, truth: BoxTable, num_classes: int, iou_threshold: float = 0.5
) -> Breakdown:
  """The errors of a set of rows."""
  people = _people(truth, num_classes)
  least = min(BACKGROUND_IOU, iou_threshold)
  frames, boxes = detections.frame, detections.boxes
  pairs = overlapping_pairs(frames, boxes, people.frame, people.boxes, least)
  first_pair = np.searchsorted(pairs.detection, np.arange(len(frames) + 1))
  judged = [
    _judge(rows, detections.score[rows], people.labels[:, label], pairs, first_pair, iou_threshold)
    for label, rows in enumerate(rows_by_label(detections.label, num_classes))
  ]
  found = np.zeros(people.labels.shape, bool)
  for label, some in enumerate(judged):
    found[some.people[some.kinds == HIT], label] = True
  about = np.zeros_like(found)  # labels of errors that could have hit
  for label, some in enumerate(judged):
    about[some.people[some.kinds == LOCALISATION], label] = True
  moved = _moved(judged, people.labels & ~found)
  about[[m.person for m in moved], [m.label for m in moved]] = True
  missed = people.labels & ~found & ~about
  aps, mended = _average_precisions(judged, people.labels, found, missed, moved)
  has_truth = people.labels.any(axis=0)
  mean_ap = aps[has_truth].mean() if has_truth.any() else np.nan
  means = [column[~np.isnan(column)] for column in mended.T]
  counts = np.stack(
    [np.bincount(some.kinds[some.kinds >= 0], minlength=len(KINDS)) for some in judged]
  )
  counts[:, MISSED] = missed.sum(axis=0)
  return Breakdown(
    mean_ap=float(mean_ap),
    costs=np.array([values.mean() - mean_ap if len(values) else np.nan for values in means]),
    class_costs=mended - aps[:, None],
    counts=counts,
    **_by_size(boxes, judged, people, found, missed),
  )


def _judge(
  rows: np.ndarray,
  scores: np.ndarray,
  of_class: np.ndarray,  # (M,) bool
  pairs: Pairs,
  first_pair: np.ndarray,  # (R + 1,) where the pairs of each box begin
  iou_threshold: float,
) -> _Judged:
  order = np.argsort(-scores, kind='stable')
  rows, scores = rows[order], scores[order]
  count = first_pair[rows + 1] - first_pair[rows]
  detection = np.repeat(np.arange(len(rows)), count)
  place = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
  pair = first_pair[rows[detection]] + place  # best first for each detection
  right = of_class[pairs.truth[pair]]
  right_iou, right_person = _best(pairs, pair[right], detection[right], len(rows))
  wrong_iou, wrong_person = _best(pairs, pair[~right], detection[~right], len(rows))
  claims = np.flatnonzero(right_iou >= iou_threshold)
  _, first = np.unique(right_person[claims], return_index=True)
  hit = np.zeros(len(rows), bool)
  hit[claims[first]] = True
  conditions = [
    hit,
    right_iou >= iou_threshold,
    right_iou >= BACKGROUND_IOU,
    wrong_iou >= iou_threshold,
    wrong_iou >= BACKGROUND_IOU,
  ]
  kinds = np.select(conditions, [HIT, DUPLICATE, LOCALISATION, CLASSIFICATION, BOTH], BACKGROUND)
  people = np.select(conditions[:4], [right_person] * 3 + [wrong_person], -1)
  return _Judged(scores, rows, kinds.astype(np.int8), people)


def _best(
  pairs: Pairs, pair: np.ndarray, detection: np.ndarray, num_detections: int
) -> tuple[np.ndarray, np.ndarray]:
  """IoU and person of the first pair of every detection; 0 and -1 if it has none."""
  first = np.diff(detection, prepend=-1) > 0
  iou, person = np.zeros(num_detections), np.full(num_detections, -1)
  iou[detection[first]] = pairs.iou[pair[first]]
  person[detection[first]] = pairs.truth[pair[first]]
  return iou, person


class _Moved(NamedTuple):
  """A classification error as a detection of a label that nothing hit."""

  label: int
  person: int
  score: float


def _moved(judged: list[_Judged], unfound: np.ndarray) -> list[_Moved]:
  """The highest-scored classification error about each label; the first of equal ones."""
  best: dict[tuple[int, int], float] = {}
  asked = unfound.any(axis=1)
  first_label = unfound.argmax(axis=1)
  for some in judged:
    for row in np.flatnonzero(some.kinds == CLASSIFICATION).tolist():
      person, score = int(some.people[row]), float(some.scores[row])
      if asked[person]:
        key = (int(first_label[person]), person)
        best[key] = max(score, best.get(key, -np.inf))
  return [_Moved(label, person, score) for (label, person), score in sorted(best.items())]


def _average_precisions(
  judged: list[_Judged],
  labels: np.ndarray,  # (M, A) bool
  found: np.ndarray,
  missed: np.ndarray,
  moved: list[_Moved],
) -> tuple[np.ndarray, np.ndarray]:
  """(A,) as it is and (A, 6) with one kind fixed; NaN if there is no ground truth."""
  aps, mended = np.full(len(judged), np.nan), np.full((len(judged), len(KINDS)), np.nan)
  extra: list[list[float]] = [[] for _ in judged]
  for move in moved:
    extra[move.label].append(move.score)
  for label, (scores, _, kinds, people) in enumerate(judged):
    num_truth = int(labels[:, label].sum())
    if not num_truth:
      continue
    aps[label] = _area(kinds == HIT, num_truth)
    for kind in (DUPLICATE, BOTH, BACKGROUND):
      mended[label, kind] = _area((kinds == HIT)[kinds != kind], num_truth)
    errors = np.flatnonzero(kinds == LOCALISATION)
    errors = errors[~found[people[errors], label]]
    _, first = np.unique(people[errors], return_index=True)
    hits = kinds == HIT
    hits[errors[first]] = True
    mended[label, LOCALISATION] = _area(hits[hits | (kinds != LOCALISATION)], num_truth)
    stay = kinds != CLASSIFICATION
    with_extra = np.concatenate([scores[stay], np.array(extra[label], scores.dtype)])
    hits = np.append((kinds == HIT)[stay], np.ones(len(extra[label]), bool))
    order = np.argsort(-with_extra, kind='stable')
    mended[label, CLASSIFICATION] = _area(hits[order], num_truth)
    left = num_truth - int(missed[:, label].sum())
    if left:
      mended[label, MISSED] = _area(kinds == HIT, left)
  return aps, mended


def _area(hits: np.ndarray, num_truth: int) -> float:
  return envelope_area(np.flatnonzero(hits), num_truth)


def _by_size(
  boxes: np.ndarray, judged: list[_Judged], people: Truth, found: np.ndarray, missed: np.ndarray
) -> dict[str, np.ndarray]:
  areas, true_areas = (_areas(some) for some in (boxes, people.boxes))
  limits = np.quantile(true_areas, [1 / 3, 2 / 3]) if len(true_areas) else np.zeros(2)
  size, true_size = (np.searchsorted(limits, some, side='left') for some in (areas, true_areas))
  counts = np.zeros((len(SIZES), len(KINDS)), np.int64)
  for some in judged:
    wrong = some.kinds != HIT
    np.add.at(counts, (size[some.rows[wrong]], some.kinds[wrong]), 1)
  by_size = {}
  for name, mask in (('missed', missed), ('found', found), ('truth', people.labels)):
    by_size[name] = np.bincount(true_size, mask.sum(axis=1), len(SIZES)).astype(np.int64)
  counts[:, MISSED] = by_size['missed']
  return {
    'size_counts': counts,
    'size_truth': by_size['truth'],
    'size_found': by_size['found'],
    'size_limits': limits,
  }


def _areas(boxes: np.ndarray) -> np.ndarray:
  boxes = boxes.astype(np.float64)
  return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _people(truth: BoxTable, num_classes: int) -> Truth:
  """Rows of one box and label -> people with all their labels.

  Rows with the same frame and box are one person, unless they have the same label too.
  """
  seen: dict[tuple, int] = {}
  number: dict[tuple, int] = {}
  person = np.empty(len(truth.frame), np.int64)
  rows = zip(truth.frame.tolist(), truth.boxes.tolist(), truth.label.tolist(), strict=True)
  for row, (frame, box, label) in enumerate(rows):
    key = (frame, *box)
    seen[key, label] = occurrence = seen.get((key, label), -1) + 1
    person[row] = number.setdefault((key, occurrence), len(number))
  _, first = np.unique(person, return_index=True)
  labels = np.zeros((len(number), num_classes), bool)
  scored = np.flatnonzero(truth.label >= 0)
  labels[person[scored], truth.label[scored]] = True
  return Truth(truth.frame[first], truth.boxes[first], labels)
