"""Links detections from keyframe to keyframe and gives every person an id.

NumPy only. People are linked online (`tubes.online`), regardless of their actions: an id belongs to
one person from the first keyframe on which they are seen to the last, and is never reused.
"""

from typing import NamedTuple

import numpy as np

from evad_jax.structures import Detections
from evad_jax.tubes import online
from evad_jax.tubes.rules import PEOPLE


class People(NamedTuple):
  """The people of one keyframe."""

  frame: int  # number of the keyframe within the video, from 0
  ids: np.ndarray  # (n,) int64
  boxes: np.ndarray  # (n, 4) float32 xyxy, divided by the frame's width and height
  person_scores: np.ndarray  # (n,) float32 in [0, 1]
  action_scores: np.ndarray  # (n, A) float32 in [0, 1]
  ended: tuple[int, ...] = ()  # ids that cannot return


def start() -> online.State:
  """The state before the first keyframe."""
  return online.start(PEOPLE)


def follow(
  state: online.State,
  detections: Detections,  # of one keyframe: boxes (P, 4), scores (P,) and (P, A)
  frame: int,  # above the last one
  keyframe_stride: int,  # frames between keyframes: the unit in which gaps are counted
  person_threshold: float,  # lower scores are dropped
) -> tuple[online.State, People]:
  """Gives everyone on the next keyframe an id; of near-duplicate boxes, keeps the best."""
  rows = np.flatnonzero(detections.person_scores >= person_threshold)
  boxes, scores = detections.boxes[rows], detections.person_scores[rows]
  state, links = online.step(state, frame // keyframe_stride, boxes, scores)
  kept = links.ids >= 0
  rows = rows[kept]
  return state, People(
    frame=frame,
    ids=links.ids[kept],
    boxes=detections.boxes[rows],
    person_scores=detections.person_scores[rows],
    action_scores=detections.action_scores[rows],
    ended=links.ended,
  )
