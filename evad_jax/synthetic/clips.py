"""Draws the clips of the synthetic data set: one to three stick figures on a drifting grey.

Positions and poses at the keyframe are drawn before the actions, so that they reveal nothing about
them; `stick_figures.py` has the people and their motions.
"""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

from evad_jax import boxes as box_ops
from evad_jax.errors import InputError
from evad_jax.synthetic import stick_figures
from evad_jax.synthetic.stick_figures import ACTIONS, Person

MAX_IOU = 0.2  # of any two people's boxes in the keyframe
MIN_VISIBLE = 0.75  # unoccluded share of each person's pixels in the keyframe
PLACEMENT_TRIES = 20


@dataclasses.dataclass(frozen=True)
class Settings:
  """What to generate; the defaults are the demo's."""

  train: int = 4096  # clips
  test: int = 256  # clips
  height: int = 64  # pixels
  width: int = 64  # pixels
  clip_frames: int = 8
  frame_stride: int = 1
  seed: int = 0
  hard: bool = False  # smaller and more people, coloured background noise, moving distractors
  workers: int = 2  # processes

  def __post_init__(self):
    """Raises InputError for settings that cannot be drawn."""
    if min(self.height, self.width) < 32:
      raise InputError(
        f'--size {self.height}x{self.width} is too small to draw people: use 32x32 or more.'
      )
    for name in ('train', 'test', 'clip_frames', 'frame_stride', 'workers'):
      if getattr(self, name) < 1:
        raise InputError(
          f'--{name.replace("_", "-")} must be 1 or more, but is {getattr(self, name)}.'
        )
    if self.clip_frames % 2:
      raise InputError(f'--clip-frames must be even, but is {self.clip_frames}.')
    if self.seed < 0:
      raise InputError(f'--seed must be 0 or more, but is {self.seed}.')


class Clip(NamedTuple):
  """One clip and the ground truth of its keyframe, frame T // 2."""

  frames: np.ndarray  # (T, H, W, 3) uint8 RGB
  boxes: np.ndarray  # (n, 4) float32 xyxy, divided by width and height
  labels: np.ndarray  # (n, A) uint8 multi-hot
  people: list[Person]  # from the farthest to the nearest


class Look(NamedTuple):
  """Difficulty of a clip."""

  people: tuple[int, ...]  # possible numbers of people, equally likely
  heights: tuple[float, float]  # standing, as fractions of the picture's shorter side
  contrast: float  # of the background, grey levels
  coloured: bool  # whether the background's channels differ
  drift: float  # of the background, pixels per step
  distractors: int


EASY = Look((1, 2, 3), (0.50, 0.68), 7.0, False, 0.3, 0)
HARD = Look((2, 3, 4), (0.38, 0.55), 35.0, True, 1.5, 3)


def make_clip(rng: np.random.Generator, settings: Settings) -> Clip:
  """Draws one clip; the same generator state gives the same clip."""
  look = HARD if settings.hard else EASY
  shape = (settings.height, settings.width)
  grey = rng.uniform(105, 150)
  people = _sample_people(rng, shape, look, grey)
  times = np.arange(settings.clip_frames) - settings.clip_frames // 2
  frames = background(rng, shape, look, grey, times)
  if look.distractors:
    _draw_distractors(rng, frames, times, look.distractors)
  for frame, time in zip(frames, times, strict=True):
    for person in people:
      stick_figures.draw_person(frame, person, stick_figures.pose_at(person, time))
  masks = [stick_figures.person_mask(shape, p, p.pose) for p in people]
  boxes = box_ops.normalise(np.array([tight_box(mask) for mask in masks], np.float32), shape)
  return Clip(frames, boxes, np.array([p.labels for p in people]), people)


def _sample_people(rng, shape, look: Look, grey: float) -> list[Person]:
  """Draws poses and positions first, independently of actions; then the motions."""
  people, masks = [], []
  wanted = int(rng.choice(look.people))
  for _ in range(wanted * PLACEMENT_TRIES):
    if len(people) == wanted:
      break
    person, mask = _sample_person(rng, shape, look, grey)
    if person is not None and _fit_together([*masks, mask]):
      people.append(person)
      masks.append(mask)
  if not people:  # every try failed, because the hands reach beyond the picture
    return _sample_people(rng, shape, look, grey)
  moves = [stick_figures.sample_motion(rng) for _ in people]
  return [
    p._replace(motion=motion, labels=labels)
    for p, (motion, labels) in zip(people, moves, strict=True)
  ]


def _sample_person(rng, shape, look: Look, grey: float) -> tuple[Person | None, np.ndarray | None]:
  """A person without a motion, entirely inside the picture, and the mask; or (None, None)."""
  height = rng.uniform(*look.heights) * min(shape)
  pose = stick_figures.sample_pose(rng)
  colours = stick_figures.sample_colours(rng, grey)
  person = Person(height, pose, stick_figures.Motion(), colours, np.zeros(len(ACTIONS), np.uint8))
  # Drawn once in the middle of a picture twice as large, to measure how far the limbs reach.
  middle = pose._replace(x=shape[1], y=shape[0] * 1.5)
  large = stick_figures.person_mask((2 * shape[0], 2 * shape[1]), person, middle)
  x1, y1, x2, y2 = tight_box(large) - np.array([middle.x, middle.y] * 2)
  low, high = np.array([-x1, -y1]) + 1, np.array([shape[1] - x2, shape[0] - y2]) - 1
  if (low > high).any():
    return None, None
  x, y = rng.uniform(low, high)
  person = person._replace(pose=pose._replace(x=x, y=y))
  return person, stick_figures.person_mask(shape, person, person.pose)


def _fit_together(masks: list[np.ndarray]) -> bool:
  """Whether everyone is visible enough when drawn in this order."""
  boxes = np.array([tight_box(mask) for mask in masks], np.float32)
  iou = box_ops.pairwise_iou(boxes, boxes)
  if (iou - np.eye(len(masks)) > MAX_IOU).any():
    return False
  covered = np.zeros_like(masks[0])
  for mask in reversed(masks):
    if (mask & ~covered).sum() < MIN_VISIBLE * mask.sum():
      return False
    covered |= mask
  return True


def tight_box(mask: np.ndarray) -> np.ndarray:
  """(4,) xyxy pixels around the True pixels, their far edges included."""
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def background(rng, shape, look: Look, grey: float, times: np.ndarray) -> np.ndarray:
  """(T, H, W, 3) uint8: smooth noise around a grey, drifting uniformly."""
  height, width = shape
  margin = int(np.ceil(look.drift * np.abs(times).max())) + 2
  coarse = (height // 8 + 2, width // 8 + 2, 3 if look.coloured else 1)
  noise = rng.uniform(-look.contrast, look.contrast, coarse).astype(np.float32)
  size = (width + 2 * margin, height + 2 * margin)
  texture = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC).reshape(size[1], size[0], -1)
  texture = np.broadcast_to(np.clip(texture + grey, 0, 255), (size[1], size[0], 3))
  texture = np.round(texture).astype(np.uint8)
  angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, look.drift)
  frames = []
  for time in times:
    x = (size[0] - 1) / 2 + speed * time * np.cos(angle)
    y = (size[1] - 1) / 2 + speed * time * np.sin(angle)
    frames.append(cv2.getRectSubPix(texture, (width, height), (x, y)))
  return np.array(frames)


def _draw_distractors(rng, frames: np.ndarray, times: np.ndarray, count: int) -> None:
  """Draws discs and bars that cross the picture behind the people, in place."""
  size = np.array([frames.shape[2], frames.shape[1]])
  for _ in range(count):
    centre, velocity = rng.uniform(0, size), rng.uniform(-0.05, 0.05, 2) * size
    length = rng.uniform(-0.15, 0.15, 2) * size * (rng.random() < 0.5)  # 0: a disc
    thickness = int(rng.integers(3, max(4, size.min() // 8)))
    colour = rng.integers(0, 256, 3).tolist()
    for frame, time in zip(frames, times, strict=True):
      start = centre + velocity * time
      ends = [np.round(p * 16).astype(int).tolist() for p in (start, start + length)]
      cv2.line(frame, *ends, colour, thickness, cv2.LINE_AA, stick_figures.SHIFT_BITS)
