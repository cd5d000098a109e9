"""The boxes of a video as stored in records: normalised, inside the frame, one row per person."""

from typing import NamedTuple

import numpy as np


class Boxes(NamedTuple):
  """The boxes of a video, by frame; M rows."""

  frames: np.ndarray  # (M,) int64, 0-based, non-decreasing
  boxes: np.ndarray  # (M, 4) float32 xyxy in [0, 1]
  labels: np.ndarray  # (M, A) uint8 multi-hot


def gather_boxes(
  frames: np.ndarray, boxes: np.ndarray, labels: np.ndarray, num_classes: int
) -> tuple[Boxes, dict[str, str]]:
  """Rows of (frame, box, label) -> boxes; merges rows of one box into one row with several labels.

  Args:
    frames: (R,) frame numbers.
    boxes: (R, 4) xyxy; 1 is the far side of the frame.
    labels: (R,) label numbers.
    num_classes: A.

  Returns:
    The boxes, those of one frame in the order of their first rows; and a description of what was
    wrong, by kind: 'unknown label', 'duplicate row', 'box without area', 'box outside the frame'.
  """
  frames, labels = np.asarray(frames, np.int64), np.asarray(labels, np.int64)
  boxes, found = np.asarray(boxes, np.float32).reshape(-1, 4), {}
  known = (labels >= 0) & (labels < num_classes)
  if not known.all():
    odd = ', '.join(map(str, np.unique(labels[~known])))
    found['unknown label'] = f'{(~known).sum()} rows dropped (label numbers {odd})'
  frames, boxes, labels = frames[known], boxes[known], labels[known]
  first, person = _first_rows(frames, boxes)
  multi_hot = np.zeros((len(first), num_classes), np.uint8)
  multi_hot[person, labels] = 1
  repeated = len(labels) - int(multi_hot.sum())
  if repeated:
    found['duplicate row'] = f'{repeated} dropped'
  clipped = np.clip(boxes[first], 0, 1)
  real = (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
  outside = int((real & (clipped != boxes[first]).any(axis=1)).sum())
  if outside:
    found['box outside the frame'] = f'{outside} clipped'
  if not real.all():
    found['box without area'] = f'{(~real).sum()} dropped'
  return Boxes(frames[first][real], clipped[real], multi_hot[real]), found


def _first_rows(frames: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(M,) the first row of every distinct box, by frame, and (R,) the index of every row's box."""
  rows = np.column_stack([frames.astype(np.float64), boxes])
  _, first, person = np.unique(rows, axis=0, return_index=True, return_inverse=True)
  order = np.lexsort((first, frames[first]))
  place = np.empty_like(order)
  place[order] = np.arange(len(order))
  return first[order], place[person.ravel()]
