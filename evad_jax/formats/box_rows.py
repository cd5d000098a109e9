"""Detections and ground truth as rows, one for each box and class: what files hold.

Rows keep the order of the file: it decides between equal scores. A row whose class is not scored
has the label `NOT_SCORED`, and counts for person AP alone.
"""

from typing import NamedTuple

import numpy as np

NOT_SCORED = -1


class ScoredBoxes(NamedTuple):
  """Detections."""

  frame: np.ndarray  # (N,) int64, any number that names the frame, from 0
  boxes: np.ndarray  # (N, 4) xyxy, in one unit
  label: np.ndarray  # (N,) int64, position in the list of classes, or NOT_SCORED
  score: np.ndarray  # (N,) higher is more certain


class TrueBoxes(NamedTuple):
  """Ground truth; a box with two labels is two rows."""

  frame: np.ndarray  # (M,) int64, the same numbering
  boxes: np.ndarray  # (M, 4) xyxy, in the same unit
  label: np.ndarray  # (M,) int64


def of_frames(rows: NamedTuple, keep: np.ndarray) -> NamedTuple:
  """The rows (ScoredBoxes or TrueBoxes) whose frame is one of `keep`."""
  mask = np.isin(rows.frame, keep)
  return type(rows)(*(column[mask] for column in rows))


def scored_rows(rows: NamedTuple) -> NamedTuple:
  """The rows (ScoredBoxes or TrueBoxes) whose class is scored."""
  if (rows.label >= 0).all():
    return rows
  keep = np.flatnonzero(rows.label >= 0)
  return type(rows)(*(column[keep] for column in rows))


def keep_highest_per_frame(detections: ScoredBoxes, number: int) -> ScoredBoxes:
  """All but the `number` highest scored rows of every frame become NOT_SCORED.

  Of equal scores the first are kept; rows that were not scored before do not count.
  """
  rows = np.flatnonzero(detections.label >= 0)
  frame, score = detections.frame[rows], detections.score[rows]
  order = np.lexsort((-score, frame))  # stable
  place = np.arange(len(order)) - np.searchsorted(frame[order], frame[order], side='left')
  label = detections.label.copy()
  label[rows[order[place >= number]]] = NOT_SCORED
  return detections._replace(label=label)
