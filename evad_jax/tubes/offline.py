"""Tubes of a complete video: links boxes, fills gaps, drops weak, short and duplicate tubes."""

import numpy as np

from evad_jax.tubes import greedy, viterbi
from evad_jax.tubes.graph import connect
from evad_jax.tubes.overlap import Tube, tube_iou
from evad_jax.tubes.rules import SCORE_DIGITS, Rule


def link(
  frames: np.ndarray,  # (n,) int, in any order
  labels: np.ndarray,  # (n,) int, from 0
  boxes: np.ndarray,  # (n, 4) xyxy, in pixels if the rule has an extra pixel
  scores: np.ndarray,  # (n,)
  rule: Rule,
) -> list[Tube]:
  """The scored boxes of one video -> its tubes, by label, then in the order in which they start.

  Rows of one frame and class keep their order, which breaks ties between scores. Raises ValueError
  for a rule that works only online.
  """
  if rule.by_overlap:
    raise ValueError(f'the rule {rule.name!r} only links online, frame by frame.')
  possible = np.flatnonzero(_highest_of_label(labels, scores) >= rule.min_score)
  if not possible.size:
    return []  # the mean score of a tube is at most its highest
  frames, labels, scores = (np.asarray(x)[possible] for x in (frames, labels, scores))
  boxes = np.asarray(boxes, np.float64)[possible]
  graph = connect(frames, labels, boxes, scores, rule)
  tubes = []
  for chain in (viterbi if rule.look_ahead else greedy).chains(graph, rule):
    rows = graph.rows[chain]
    every = np.arange(frames[rows[0]], frames[rows[-1]] + 1)
    score = float(np.mean(graph.scores[chain]))
    if len(every) >= rule.min_frames and round(score, SCORE_DIGITS) >= rule.min_score:
      filled = _interpolate(every, frames[rows], boxes[rows])
      tubes.append(Tube(int(labels[rows[0]]), every, filled, score))
  return tubes if rule.tube_iou is None else _without_doubles(tubes, rule)


def _highest_of_label(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """(n,) the highest score among rows with the same label."""
  highest = np.full(labels.max(initial=0) + 1, -np.inf)
  np.maximum.at(highest, labels, scores)
  return highest[labels]


def _interpolate(every: np.ndarray, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
  """Interpolates boxes at some frames linearly to every frame."""
  if len(every) == len(frames):
    return boxes
  return np.stack([np.interp(every, frames, column) for column in boxes.T], axis=1)


def _without_doubles(tubes: list[Tube], rule: Rule) -> list[Tube]:
  """Drops tubes that overlap a better one by more than the rule's `tube_iou`, best first."""
  kept: list[int] = []
  scores = [round(tube.score, SCORE_DIGITS) for tube in tubes]
  for number in np.argsort(np.negative(scores), kind='stable').tolist():
    better = (tubes[i] for i in kept if tubes[i].label == tubes[number].label)
    overlaps = (tube_iou(tubes[number], other, rule.counts_frames) for other in better)
    if all(overlap <= rule.tube_iou for overlap in overlaps):
      kept.append(number)
  return [tubes[number] for number in sorted(kept)]
