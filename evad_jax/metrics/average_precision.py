"""Average precision of one class: match by IoU, rank by score, area under the precision envelope.

The rule is the one of the AVA challenge, used for every frame-mAP here. Detections are ranked by
falling score over the whole set, and equal scores keep their order. In that order each detection
looks only at the ground-truth box of its frame with the highest IoU: it is a hit if the IoU
reaches the threshold and no earlier detection took that box, else a false positive. There is no
second choice.
"""

from typing import NamedTuple

import numpy as np

from evad_jax import boxes


class AveragePrecision(NamedTuple):
  """One figure, with what it was computed from."""

  value: float  # in [0, 1]; NaN where there is no ground truth
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
  change when an axis is scaled. Raises ValueError where a score or a coordinate is not finite.
  """
  arrays = {'score': scores, 'detected box': detection_boxes, 'ground-truth box': truth_boxes}
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise ValueError(f'average precision needs finite numbers, but a {name} is NaN or infinite.')
  num_truth, num_detections = len(truth_frames), len(scores)
  if not num_truth:
    return AveragePrecision(float('nan'), 0, num_detections)
  best, best_iou = _best_truth(detection_frames, detection_boxes, truth_frames, truth_boxes)
  claims = np.where(best_iou >= iou_threshold, best, -1)
  ranked_claims = claims[np.argsort(-scores, kind='stable')]
  value = envelope_area(_first_claims(ranked_claims), num_truth)
  return AveragePrecision(value, num_truth, num_detections)


def envelope_area(hits: np.ndarray, num_truth: int) -> float:
  """(N,) bool by falling score -> the area under the monotone precision envelope, all points.

  Recall rises by 1 / num_truth at every hit, so the area is the mean over the ground truth of the
  envelope at the hits; boxes that were never hit count 0.
  """
  precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
  envelope = np.maximum.accumulate(precision[::-1])[::-1]
  return float(envelope[hits].sum() / num_truth)


def _first_claims(claims: np.ndarray) -> np.ndarray:
  """(N,) truth numbers by rank, -1 for none -> (N,) bool: the first to name its truth box."""
  ranks = np.flatnonzero(claims >= 0)
  _, first = np.unique(claims[ranks], return_index=True)
  hits = np.zeros(len(claims), bool)
  hits[ranks[first]] = True
  return hits


def _best_truth(
  detection_frames: np.ndarray,
  detection_boxes: np.ndarray,
  truth_frames: np.ndarray,
  truth_boxes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """For every detection the number of the truth box with the highest IoU in its frame, and the IoU.

  Of equal ones the first; -1 and 0 where no truth box of the frame overlaps. The loop goes over
  the place of a truth box within its frame, so it runs as often as the fullest frame has boxes.
  """
  order = np.argsort(truth_frames, kind='stable')
  sorted_frames = truth_frames[order]
  start = np.searchsorted(sorted_frames, detection_frames, side='left')
  count = np.searchsorted(sorted_frames, detection_frames, side='right') - start
  best = np.full(len(detection_frames), -1)
  best_iou = np.zeros(len(detection_frames))
  rows = np.flatnonzero(count > 0)
  place = 0
  while rows.size:
    truth = order[start[rows] + place]
    # In float64: float32 rounding would decide boxes at the threshold.
    pairs = (x[:, None].astype(np.float64) for x in (detection_boxes[rows], truth_boxes[truth]))
    iou = boxes.pairwise_iou(*pairs)[:, 0, 0]
    better = iou > best_iou[rows]
    best[rows[better]], best_iou[rows[better]] = truth[better], iou[better]
    place += 1
    rows = rows[count[rows] > place]
  return best, best_iou
