"""Cuts clips from a video that arrives frame by frame, exactly as from a complete one.

    state = start()
    for frame in video:
      state, clips = push(state, frame, plan, place)
    clips = finish(state, plan, place)

A clip extends (T / 2 - 1) strides beyond its keyframe, so it is complete that much later. Before
the first and after the last frame of the video, that frame is repeated, as in `clip_sampling`. The
state holds the frames of one clip's span and no more, however long the video. Frames that no clip
reaches, or that all clips step over, are never placed.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from evad_jax.data.clip_sampling import clip_frame_numbers
from evad_jax.errors import InputError

Place = Callable[[Any], np.ndarray]  # a frame as it arrives -> (H, W, 3) uint8 on its canvas


class Plan(NamedTuple):
  """Which clips to cut."""

  clip_frames: int  # T
  frame_stride: int  # video frames from one frame of a clip to the next
  keyframe_stride: int  # frames from one keyframe to the next; the first is frame 0

  def check(self) -> None:
    """Raises InputError for a plan that yields no clips."""
    for name, value in self._asdict().items():
      if value < 1:
        raise InputError(f'{name}={value} must be 1 or more.')

  def grid(self) -> int:
    """Frames whose number is not a multiple of this are in no clip, except the last frame."""
    return math.gcd(self.frame_stride, self.keyframe_stride)

  def before(self) -> int:
    """Frames from the start of a clip to its keyframe."""
    return self.clip_frames // 2 * self.frame_stride

  def after(self) -> int:
    """Frames from the keyframe of a clip to its end: the delay of its detections."""
    return (self.clip_frames - 1 - self.clip_frames // 2) * self.frame_stride


class Clip(NamedTuple):
  """One complete clip."""

  keyframe: int  # number of the frame, from 0
  frames: tuple[np.ndarray, ...]  # T of (H, W, 3) uint8


class State(NamedTuple):
  """The frames held, and how far the clips have been cut."""

  count: int  # frames received
  next_keyframe: int  # of the next clip
  first: int  # number of the first frame held
  placed: tuple[np.ndarray, ...]  # frames first, first + grid, ..., on their canvas
  newest: Any  # the last frame as it arrived; repeated after the end


def start() -> State:
  """The state before the first frame."""
  return State(0, 0, 0, (), None)


def push(state: State, frame: Any, plan: Plan, place: Place) -> tuple[State, list[Clip]]:
  """Takes the next frame; returns the clips that it completes, at most one."""
  number, placed = state.count, state.placed
  if number % plan.grid() == 0 and number >= state.first:
    placed = (*placed, place(frame))
  state = state._replace(count=number + 1, placed=placed, newest=frame)
  clips = []
  if number >= state.next_keyframe + plan.after():
    clips.append(_clip(state, plan))
    state = _forget(state._replace(next_keyframe=state.next_keyframe + plan.keyframe_stride), plan)
  return state, clips


def finish(state: State, plan: Plan, place: Place) -> list[Clip]:
  """The clips of the last keyframes, which extend beyond the last frame."""
  clips, last = [], None
  while state.next_keyframe < state.count:
    if last is None and (state.count - 1) % plan.grid():
      last = place(state.newest)
    clips.append(_clip(state, plan, last))
    state = state._replace(next_keyframe=state.next_keyframe + plan.keyframe_stride)
  return clips


def _clip(state: State, plan: Plan, last: np.ndarray | None = None) -> Clip:
  """The next clip; last: the last frame of the video if it is off the grid."""
  numbers = clip_frame_numbers(
    state.next_keyframe, state.count, plan.clip_frames, plan.frame_stride
  )
  grid = plan.grid()
  frames = [
    last if number % grid else state.placed[(number - state.first) // grid]
    for number in numbers.tolist()
  ]
  return Clip(state.next_keyframe, tuple(frames))


def _forget(state: State, plan: Plan) -> State:
  """Discards the frames before the next clip."""
  first = max(0, state.next_keyframe - plan.before())  # a multiple of the grid
  gone = (first - state.first) // plan.grid()
  return state._replace(first=first, placed=state.placed[gone:])
