"""Metrics of detections and ground truth given as rows, one for each box and class.

Files have this form (`formats.box_table`), and so has everything but a pass over a split (see
`frame_map` for that).
"""

import numpy as np

from evad_jax.box_pairs import best_of_each, overlapping_pairs
from evad_jax.formats.box_table import BoxTable
from evad_jax.metrics.average_precision import (
  AveragePrecision,
  average_precision,
  check_finite,
  claims_average_precision,
  mean_over_classes,
)
from evad_jax.metrics.frame_map import FrameMap

AS_GIVEN = 'given scores'


def compute(
  detections: BoxTable,
  truth: BoxTable,
  num_classes: int,
  num_frames: int,
  iou_threshold: float = 0.5,
) -> FrameMap:
  """Mean and per-class average precision, and person AP, of a set of rows.

  Frames without ground truth count: their detections are false positives. Remove these rows first
  if a protocol does not count them. Raises ValueError for non-finite numbers.
  """
  per_class = class_average_precisions(detections, truth, num_classes, iou_threshold)
  people = merge_classes(detections)
  true_people = merge_classes(truth._replace(score=np.zeros(len(truth.frame))))
  return FrameMap(
    scoring=AS_GIVEN,
    iou_threshold=iou_threshold,
    mean_ap=mean_over_classes(per_class),
    per_class=per_class,
    person=average_precision(
      people.frame,
      people.boxes,
      people.score,
      true_people.frame,
      true_people.boxes,
      iou_threshold,
    ),
    num_frames=num_frames,
    num_truth_boxes=len(true_people.frame),
    num_boxes=len(people.frame),
  )


def class_average_precisions(
  detections: BoxTable, truth: BoxTable, num_classes: int, iou_threshold: float = 0.5
) -> tuple[AveragePrecision, ...]:
  """The average precision of every class."""
  check_finite(detections.boxes, detections.score, truth.boxes)
  detections, truth = (rows.select(rows.label >= 0) for rows in (detections, truth))
  # Only boxes of one frame and one class can match.
  places = (rows.frame * num_classes + rows.label for rows in (detections, truth))
  detection_places, truth_places = places
  pairs = best_of_each(
    overlapping_pairs(detection_places, detections.boxes, truth_places, truth.boxes, iou_threshold)
  )
  claim = np.full(len(detections.frame), -1)
  claim[pairs.detection] = pairs.truth
  num_truth = np.bincount(truth.label, minlength=num_classes)
  results = []
  for rows, count in zip(rows_by_label(detections.label, num_classes), num_truth, strict=True):
    claimants = np.flatnonzero(claim[rows] >= 0)
    claims = claim[rows][claimants]
    results.append(claims_average_precision(claimants, claims, detections.score[rows], int(count)))
  return tuple(results)


def rows_by_label(label: np.ndarray, num_classes: int) -> list[np.ndarray]:
  """The rows of each class, in order."""
  order = np.argsort(label, kind='stable')
  limits = np.searchsorted(label[order], np.arange(num_classes + 1))
  return [order[start:end] for start, end in zip(limits[:-1], limits[1:], strict=True)]


def merge_classes(detections: BoxTable) -> BoxTable:
  """Every distinct box of a frame once, with its highest score, in order of appearance; label 0.

  These are the people of a file without person scores: a certain action means a certain person.
  """
  keys = (*detections.boxes.T, detections.frame)
  order = np.lexsort(keys)  # stable, so each run of equal boxes starts with the first
  if not len(order):
    return detections
  differs = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
  starts = np.flatnonzero(np.append(True, differs))
  score = np.maximum.reduceat(detections.score[order], starts)
  by_appearance = np.argsort(order[starts])
  people = detections.select(order[starts][by_appearance])
  return people._replace(label=np.zeros_like(people.label), score=score[by_appearance])
