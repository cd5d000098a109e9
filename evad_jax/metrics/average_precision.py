"""Average precision of one class: match by IoU, rank by score, area under the precision envelope.

This is the AVA challenge's rule, used for every metric here. Detections are ranked by descending
score over the full set; equal scores keep their order. In that order, each detection looks only at
the ground-truth box of its frame with the highest IoU (the first of equal ones). It is a hit if the
IoU reaches the threshold and no earlier detection took that box, else a false positive. There is no
second choice.

So a detection *claims* at most one truth box, whatever the others do, and only claims need a rank.
"""

from typing import NamedTuple

import numpy as np

from evad_jax.box_pairs import best_of_each, overlapping_pairs

_LAST = np.uint64(2**64 - 1)  # after every key of a ranking


class AveragePrecision(NamedTuple):
  """One average precision, with what it was computed from."""

  value: float  # in [0, 1]; NaN if there is no ground truth
  num_truth: int  # ground-truth boxes
  num_detections: int


def average_precision(
  detection_frames: np.ndarray,  # (N,) int, any number that names the frame
  detection_boxes: np.ndarray,  # (N, 4) xyxy
  scores: np.ndarray,  # (N,) higher is more certain
  truth_frames: np.ndarray,  # (M,) int, the same numbering
  truth_boxes: np.ndarray,  # (M, 4) xyxy, same units as the detections
  iou_threshold: float = 0.5,
) -> AveragePrecision:
  """The average precision of one class over a set of frames.

  The units of the boxes do not matter as long as they are the same on both sides: IoU does not
  change when an axis is scaled. Raises ValueError if a score or a coordinate is not finite.
  """
  check_finite(detection_boxes, scores, truth_boxes)
  pairs = best_of_each(
    overlapping_pairs(detection_frames, detection_boxes, truth_frames, truth_boxes, iou_threshold)
  )
  return claims_average_precision(pairs.detection, pairs.truth, scores, len(truth_frames))


def claims_average_precision(
  claimants: np.ndarray,  # (C,) int rows of detections that overlap enough, each once
  claims: np.ndarray,  # (C,) int, the truth box that each of them claims, any numbering
  scores: np.ndarray,  # (N,) of all detections
  num_truth: int,
) -> AveragePrecision:
  """The average precision of known claims: the highest-ranked claimant of a box hits it."""
  if not num_truth:
    return AveragePrecision(float('nan'), 0, len(scores))
  keys = _ranking_keys(scores)
  best = np.full(claims.max(initial=-1) + 1, _LAST)
  np.minimum.at(best, claims, keys[claimants])
  hits = np.sort(best[best != _LAST])
  value = envelope_area(np.searchsorted(np.sort(keys), hits), num_truth)
  return AveragePrecision(value, num_truth, len(scores))


def _ranking_keys(scores: np.ndarray) -> np.ndarray:
  """(N,) scores -> (N,) distinct uint64 that ascend as scores descend, and by row among equals.

  A plain sort of these is many times faster than the stable argsort of as many float32 scores.
  """
  rows = np.arange(len(scores), dtype=np.uint64)
  if scores.dtype != np.float32:
    keys = np.empty(len(scores), np.uint64)
    keys[np.argsort(-scores, kind='stable')] = rows
    return keys
  bits = (scores + np.float32(0)).view(np.int32)  # the sum makes -0 a 0
  # The bits of positive floats rise with the number, those of negative ones fall.
  rising = np.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).astype(np.int64)
  return ((0x7FFFFFFF - rising).astype(np.uint64) << np.uint64(32)) | rows


def envelope_area(hit_places: np.ndarray, num_truth: int) -> float:
  """Ascending ranks of the hits, from 0 -> area under the monotone precision envelope.

  Recall rises by 1 / num_truth at every hit, so the area is the mean over the ground truth of the
  envelope at the hits; boxes that were never hit count 0.
  """
  precision = np.arange(1, len(hit_places) + 1) / (hit_places + 1)
  envelope = np.maximum.accumulate(precision[::-1])
  return float(envelope.sum() / num_truth)


def mean_over_classes(per_class: list[AveragePrecision]) -> float:
  """The mean over the classes that have ground truth; NaN if there is none."""
  values = [result.value for result in per_class if result.num_truth]
  return float(np.mean(values)) if values else float('nan')


def check_finite(detection_boxes: np.ndarray, scores: np.ndarray, truth_boxes: np.ndarray) -> None:
  """Raises ValueError for NaN or infinite numbers."""
  arrays = {'score': scores, 'detected box': detection_boxes, 'ground-truth box': truth_boxes}
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise ValueError(f'average precision needs finite numbers, but a {name} is NaN or infinite.')
