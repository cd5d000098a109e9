"""Offline linking: repeatedly extracts the path with the largest sum through all frames.

The value of a path is the sum of its box scores and of the overlaps between neighbours, as in
Finding Action Tubes (arXiv 1411.6031, section 4). A path may begin and end anywhere, and may miss
frames as the rule allows. Only boxes on some path of the rule's minimum length take part.
"""

import numpy as np

from evad_jax.tubes.graph import Graph
from evad_jax.tubes.rules import Rule


def chains(graph: Graph, rule: Rule) -> list[list[int]]:
  """Indices of the boxes of every path, in the order in which paths start."""
  times = graph.times.tolist()
  breaks = np.flatnonzero(np.diff(graph.times) > rule.max_missing + 1) + 1  # no path crosses these
  paths = []
  for part in np.split(np.arange(len(times)), breaks):
    left = part.tolist()
    while left := _on_long_paths(graph, times, left, rule.min_frames):
      paths.append(_best_path(graph, left))
      taken = set(paths[-1])
      left = [box for box in left if box not in taken]
  return sorted(paths)


def _best_path(graph: Graph, left: list[int]) -> list[int]:
  """The path of largest value among the remaining boxes; for ties, the one that ends first."""
  value: dict[int, float] = {}
  came_from: dict[int, int | None] = {}
  for box in left:
    value[box], came_from[box] = float(graph.scores[box]), None
    for before, iou in graph.earlier[box].items():
      if before in value and value[before] + iou + float(graph.scores[box]) > value[box]:
        value[box], came_from[box] = value[before] + iou + float(graph.scores[box]), before
  box = max(value, key=lambda box: (value[box], -box))
  path = []
  while box is not None:
    path.append(box)
    box = came_from[box]
  return path[::-1]


def _on_long_paths(graph: Graph, times: list[int], left: list[int], min_frames: int) -> list[int]:
  """Remaining boxes that lie on some path of at least `min_frames` frames, misses included."""
  first: dict[int, int] = {}
  for box in left:
    starts = [first[before] for before in graph.earlier[box] if before in first]
    first[box] = min([times[box], *starts])
  last = {box: times[box] for box in left}
  for box in reversed(left):
    for before in graph.earlier[box]:
      if before in last:
        last[before] = max(last[before], last[box])
  return [box for box in left if last[box] - first[box] + 1 >= min_frames]
