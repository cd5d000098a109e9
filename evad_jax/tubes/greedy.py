"""Greedy linking of a complete graph: the result of `online`, many times faster."""

from typing import NamedTuple

import numpy as np

from evad_jax.tubes.graph import Graph
from evad_jax.tubes.rules import SCORE_DIGITS, Rule


def chains(graph: Graph, rule: Rule) -> list[list[int]]:
  """Indices of the boxes of every tube, in the order in which tubes start.

  In each frame, the tubes, in falling mean score (for ties, the oldest first), each take the
  highest-scored free box that can follow their last one. Remaining boxes start tubes.
  """
  scores, times = graph.scores.tolist(), graph.times.tolist()
  tubes: list[list[int]] = []
  sums: list[float] = []
  alive: list[int] = []
  for start, end in _runs(graph.times):
    alive = [t for t in alive if times[start] - times[tubes[t][-1]] <= rule.max_missing + 1]
    free = list(range(start, end))
    for tube in sorted(alive, key=lambda t: -round(sums[t] / len(tubes[t]), SCORE_DIGITS)):
      last = tubes[tube][-1]
      box = next((box for box in free if last in graph.earlier[box]), None)
      if box is not None:
        free.remove(box)
        tubes[tube].append(box)
        sums[tube] += scores[box]
    for box in free:
      alive.append(len(tubes))
      tubes.append([box])
      sums.append(scores[box])
  return tubes


class Run(NamedTuple):
  """The boxes of one frame."""

  start: int
  end: int  # exclusive


def _runs(times: np.ndarray) -> list[Run]:
  limits = [0, *(np.flatnonzero(np.diff(times)) + 1).tolist(), len(times)]
  return [Run(*pair) for pair in zip(limits[:-1], limits[1:], strict=True)]
