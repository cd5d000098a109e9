"""Tubes, and the overlap of two tubes in space and time."""

from typing import NamedTuple

import numpy as np

from evad_jax import boxes as box_ops


class Tube(NamedTuple):
  """One person doing one action: a box in each of n frames."""

  label: int
  frames: np.ndarray  # (n,) int64, rising
  boxes: np.ndarray  # (n, 4) float64 xyxy
  score: float = 1.0  # mean score of its detected boxes; 1 for ground truth


def tube_iou(a: Tube, b: Tube, counts_frames: bool = True, spatial_only: bool = False) -> float:
  """Temporal IoU times the mean IoU of the boxes on common frames; 0 if there are none.

  Temporal extents reach from the first frame to the last. With `counts_frames`, a tube on frames
  3 to 5 lasts 3 frames, as in ACT and MOC; without it, 2, as in MultiSports. `spatial_only` omits
  the temporal factor, as ACT does for JHMDB, whose clips are trimmed to the action.
  """
  first, last = max(a.frames[0], b.frames[0]), min(a.frames[-1], b.frames[-1])
  if last < first:
    return 0.0
  common, rows_a, rows_b = np.intersect1d(
    a.frames, b.frames, assume_unique=True, return_indices=True
  )
  if not len(common):
    return 0.0
  spatial = float(box_ops.elementwise_iou(a.boxes[rows_a], b.boxes[rows_b]).mean())
  if spatial_only:
    return spatial
  extra = 1 if counts_frames else 0
  union = max(a.frames[-1], b.frames[-1]) - min(a.frames[0], b.frames[0]) + extra
  return float(last - first + extra) / float(union) * spatial if union else 0.0
