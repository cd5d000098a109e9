"""The graph of boxes that can be linked, on which offline rules work.

All classes of a video form one graph: each class has its own stretch of one time line, too far from
the next for any link.
"""

from typing import NamedTuple

import numpy as np

from evad_jax.box_pairs import overlapping_pairs
from evad_jax.tubes.rules import Rule
from evad_jax.tubes.suppression import suppress


class Graph(NamedTuple):
  """The n boxes left by suppression, in order of time, best first within a frame."""

  rows: np.ndarray  # (n,) int64, rows of the input
  times: np.ndarray  # (n,) int64, rising: the frame within the class's stretch
  scores: np.ndarray  # (n,) float64
  earlier: list[dict[int, float]]  # per box: earlier boxes that it can follow -> IoU


def connect(
  frames: np.ndarray,  # (n,) int
  labels: np.ndarray,  # (n,) int
  boxes: np.ndarray,  # (n, 4) xyxy, in pixels if the rule has an extra pixel
  scores: np.ndarray,  # (n,)
  rule: Rule,
) -> Graph:
  """Suppresses boxes and finds the pairs that overlap enough and are few enough frames apart."""
  stretch = np.ptp(frames) + rule.max_missing + 2
  times = labels * stretch + (frames - frames.min())
  rows, kept_scores = suppress(times, boxes, scores, rule)
  times, boxes = times[rows], boxes[rows]
  earlier: list[dict[int, float]] = [{} for _ in rows]
  for gap in range(1, rule.max_missing + 2):
    pairs = overlapping_pairs(times, boxes, times + gap, boxes, rule.link_iou)
    for later, before, iou in zip(*(column.tolist() for column in pairs), strict=True):
      earlier[later][before] = iou
  return Graph(rows, times, kept_scores, earlier)
