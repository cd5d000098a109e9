"""Boxes as a table with a row for each box and class; readers return it, metrics take it.

Rows keep the order of the file, which decides between equal scores. A row whose class is not scored
has the label `NOT_SCORED`, and counts for person AP alone.
"""

from typing import NamedTuple

import numpy as np

NOT_SCORED = -1


class BoxTable(NamedTuple):
  """N detections or ground-truth boxes; a box with two labels is two rows."""

  frame: np.ndarray  # (N,) int64, frame or second within its video; without `video`, within all
  boxes: np.ndarray  # (N, 4) xyxy, in one unit
  label: np.ndarray  # (N,) int64: as in the file; for metrics the index of the class or NOT_SCORED
  score: np.ndarray | None = None  # (N,) higher is more certain; None: ground truth
  video: np.ndarray | None = None  # (N,) names, or int64 indices into a list of videos

  def select(self, rows: np.ndarray) -> 'BoxTable':
    """The rows of a (N,) bool mask, or of row numbers, in their order."""
    return BoxTable(*(column if column is None else column[rows] for column in self))

  @property
  def frame_of_all(self) -> np.ndarray:
    """(N,) int64: a number for each frame of each video."""
    if self.video is None:
      return self.frame
    video = np.unique(self.video, return_inverse=True)[1]
    return video * (self.frame.max(initial=0) + 1) + self.frame

  def highest_per_frame(self, number: int) -> np.ndarray:
    """(N,) bool: the `number` highest rows of every frame, as in the function below.

    Rows whose class is not scored are never among them, and do not count.
    """
    kept = self.label >= 0
    kept[kept] = highest_per_frame(self.frame_of_all[kept], self.score[kept], number)
    return kept


class Counted(NamedTuple):
  """Detections and ground truth of the frames that count, numbered through all videos."""

  detections: BoxTable
  truth: BoxTable
  num_frames: int
  left_out: dict[str, int]  # detections that do not count, by the reason that reports give


def highest_per_frame(frame: np.ndarray, scores: np.ndarray, number: int) -> np.ndarray:
  """Bool, shaped as `scores`: the `number` highest of every frame, whatever their class.

  Of equal scores, the first are kept. frame: (N,). scores: (N,), or (N, A) of A classes.
  """
  kept = np.zeros(scores.shape, bool)
  order = np.argsort(frame, kind='stable')
  for rows in np.split(order, np.flatnonzero(np.diff(frame[order])) + 1):
    some = scores[rows]
    mask = np.zeros(some.shape, bool)
    mask.flat[np.argsort(-some, axis=None, kind='stable')[:number]] = True
    kept[rows] = mask
  return kept
