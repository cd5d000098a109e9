"""Overlapping boxes of two large sets: detections and ground truth, or frames and later frames.

Evaluations are large (an AVA validation holds millions of proposals) and overlaps are few, so all
later code works on the short list of pairs.
"""

from typing import NamedTuple

import numpy as np

from evad_jax import boxes as box_ops

PAIRS_AT_ONCE = 1 << 13  # one block; it fits in the CPU cache


class Pairs(NamedTuple):
  """Overlapping pairs of detection and ground-truth box, the best of each detection first."""

  detection: np.ndarray  # (K,) int64 row, ascending
  truth: np.ndarray  # (K,) int64 row; within a detection by descending IoU, ties ascending
  iou: np.ndarray  # (K,) float64


def overlapping_pairs(
  detection_frames: np.ndarray,  # (N,) int, any id of the frame
  detection_boxes: np.ndarray,  # (N, 4) xyxy
  truth_frames: np.ndarray,  # (M,) int, the same ids
  truth_boxes: np.ndarray,  # (M, 4) xyxy, same units as the detections
  least_iou: float,
) -> Pairs:
  """The pairs of a detection and a truth box in the same frame with an IoU of at least `least_iou`.

  Raises ValueError unless `least_iou` is above 0: else boxes that do not touch would be pairs.
  """
  if not least_iou > 0:
    raise ValueError(f'The least IoU of a pair must be above 0, but got {least_iou=}.')
  order = np.argsort(truth_frames, kind='stable')
  sorted_frames = np.asarray(truth_frames)[order]
  start = np.searchsorted(sorted_frames, detection_frames, side='left')
  count = np.searchsorted(sorted_frames, detection_frames, side='right') - start
  rows = np.flatnonzero(count)
  ends = np.cumsum(count[rows])
  limits = np.arange(PAIRS_AT_ONCE, count.sum(), PAIRS_AT_ONCE)
  found = [(rows[:0], rows[:0], np.zeros(0))]
  for block in np.split(rows, np.searchsorted(ends, limits)):
    detection = np.repeat(block, count[block])
    first = np.cumsum(count[block]) - count[block]
    place = np.arange(len(detection)) - np.repeat(first, count[block])
    truth = order[start[detection] + place]
    # In float64: float32 rounding would decide boxes at the threshold.
    iou = box_ops.elementwise_iou(
      detection_boxes[detection].astype(np.float64), truth_boxes[truth].astype(np.float64)
    )
    near = np.flatnonzero(iou >= least_iou)
    found.append((detection[near], truth[near], iou[near]))
  detection, truth, iou = (np.concatenate(column) for column in zip(*found, strict=True))
  return _best_first(Pairs(detection, truth, iou))


def _best_first(pairs: Pairs) -> Pairs:
  """Sorts the pairs of each detection, which are adjacent and by ascending truth, by their IoU."""
  starts = np.diff(pairs.detection, prepend=-1) > 0
  alone = starts & np.append(starts[1:], True)[: len(starts)]
  several = np.flatnonzero(~alone)  # few: the rest need no sorting
  order = np.arange(len(starts))
  order[several] = several[np.lexsort((-pairs.iou[several], pairs.detection[several]))]
  return Pairs(*(column[order] for column in pairs))


def select(pairs: Pairs, mask: np.ndarray) -> Pairs:
  """The pairs of a (K,) bool mask."""
  return Pairs(*(column[mask] for column in pairs))


def best_of_each(pairs: Pairs) -> Pairs:
  """The best pair of every detection."""
  return select(pairs, np.diff(pairs.detection, prepend=-1) > 0)
