"""Non-maximum suppression: of the boxes that overlap in a frame, keeps the best."""

import numpy as np

from evad_jax.box_pairs import overlapping_pairs
from evad_jax.tubes.rules import Rule


def suppress(
  frames: np.ndarray,  # (n,) int
  boxes: np.ndarray,  # (n, 4) xyxy, in pixels if the rule has an extra pixel
  scores: np.ndarray,  # (n,)
  rule: Rule,
) -> tuple[np.ndarray, np.ndarray]:
  """Boxes of one class -> the rows that stay and their scores, frame by frame, best first.

  In falling score, each box of the queue suppresses the worse ones of its frame that overlap it by
  more than `suppression_iou`: they leave the queue and are dropped, or (soft suppression) have
  their score multiplied by 1 - IoU. At most `max_boxes` per frame stay. For equal scores, the first
  row comes first, or the last if the rule says so.
  """
  boxes, scores = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
  rows = _ranked(frames, scores, rule)
  grown = boxes[rows] + [0, 0, rule.extra_pixel, rule.extra_pixel]
  pairs = overlapping_pairs(frames[rows], grown, frames[rows], grown, rule.suppression_iou)
  near = (pairs.iou > rule.suppression_iou) & (pairs.truth > pairs.detection)
  queued, share = [True] * len(rows), np.ones(len(rows))
  for better, worse, iou in zip(*(column[near].tolist() for column in pairs), strict=True):
    if queued[better] and queued[worse]:
      queued[worse], share[worse] = False, 1 - iou
  if rule.soft_suppression:
    scores = scores.copy()
    scores[rows] *= share
    rows = _ranked(frames, scores, rule)
  else:
    rows = rows[np.array(queued, bool)]
  place = np.arange(len(rows)) - np.searchsorted(frames[rows], frames[rows], side='left')
  rows = rows[place < rule.max_boxes]
  return rows, scores[rows]


def _ranked(frames: np.ndarray, scores: np.ndarray, rule: Rule) -> np.ndarray:
  row = np.arange(len(scores))
  return np.lexsort((-row if rule.last_of_equal_first else row, -scores, frames))
