"""Articulated stick figures whose actions are motions: the actors of the synthetic data set.

A person is a pose at the keyframe plus a motion. The pose at the keyframe is drawn first, from the
same distribution for everyone; only then are the actions drawn, which say how the pose changes
before and after. So a single frame shows where people are, but not what they do.

Time is counted in steps of the clip from the keyframe (0). Lengths are in pixels unless a comment
says "heights", which are multiples of the person's standing height; y points down.
"""

from typing import NamedTuple

import cv2
import numpy as np

ACTIONS = ('walk', 'jump', 'crouch', 'rise', 'wave', 'stand')

# Motions of the body and their probabilities. 'wave' is independent of them; 'stand' is neither.
BODY_MOTIONS = {'walk': 0.19, 'jump': 0.19, 'crouch': 0.19, 'rise': 0.19, 'none': 0.24}
WAVE_PROBABILITY = 0.28

# Ranges of the pose. Waving and walking pass through their range as a triangle wave, which spends
# equal time everywhere, so a uniform pose at the keyframe looks like any frame of the motion.
ARM_ANGLES = (25.0, 155.0)  # degrees from hanging (0) to straight up (180)
FOOT_SPREADS = (-0.16, 0.16)  # heights; negative: the feet are crossed
CROUCHES = (0.40, 0.60)  # 0 upright, 1 squatting; leaves room to crouch and rise

LEG, TORSO, ARM = 0.45, 0.29, 0.34  # heights
HEAD_RADIUS, TORSO_WIDTH, LEG_WIDTH, ARM_WIDTH = 0.105, 0.17, 0.10, 0.085  # heights
SQUAT_DEPTH = 0.75  # share of the leg's length by which a full squat lowers the hip

SHIFT_BITS = 4  # OpenCV's fixed point: coordinates are sixteenths of a pixel


class Pose(NamedTuple):
  """Pose of a person in one frame."""

  x: float  # of the midpoint between the feet
  y: float  # of the feet
  crouch: float  # 0 upright, 1 squatting
  spread: float  # heights from the middle to the right foot
  arms: tuple[float, float]  # degrees, left and right: 0 hanging, 180 straight up


class Motion(NamedTuple):
  """How a pose changes; all zeros: not at all."""

  walk: float = 0.0  # heights per step, negative to the left
  foot_speed: float = 0.0  # heights per step, of the feet's spread
  jump: float = 0.0  # heights between the lowest and the highest point
  jump_period: float = 1.0  # steps
  jump_phase: float = 0.0  # periods, at the keyframe
  crouch: float = 0.0  # crouch per step; negative when rising
  arm_speeds: tuple[float, float] = (0.0, 0.0)  # degrees per step, left and right


class Person(NamedTuple):
  """A person in a clip: keyframe pose, motion, appearance."""

  height: float  # pixels, standing upright
  pose: Pose  # at the keyframe
  motion: Motion
  colours: np.ndarray  # (3, 3) uint8 RGB of shirt, trousers, skin
  labels: np.ndarray  # (A,) uint8 multi-hot, in the order of ACTIONS


def sample_motion(rng: np.random.Generator) -> tuple[Motion, np.ndarray]:
  """Draws one body motion or none, with or without waving; returns it and (A,) uint8 labels."""
  body = rng.choice(list(BODY_MOTIONS), p=list(BODY_MOTIONS.values()))
  waves = rng.random() < WAVE_PROBABILITY
  fields = {}
  if body == 'walk':
    fields = {'walk': _sign(rng) * rng.uniform(0.085, 0.115)}
    fields['foot_speed'] = _sign(rng) * rng.uniform(0.10, 0.15)
  elif body == 'jump':
    fields = {'jump': rng.uniform(0.26, 0.34), 'jump_period': rng.uniform(4.0, 5.5)}
    fields['jump_phase'] = rng.random()
  elif body in ('crouch', 'rise'):
    fields = {'crouch': rng.uniform(0.09, 0.105) * (1 if body == 'crouch' else -1)}
  if waves:
    moving = [(True, True), (True, False), (False, True)][rng.choice(3, p=[0.8, 0.1, 0.1])]
    speeds = [_sign(rng) * rng.uniform(40, 60) for _ in range(2)]
    fields['arm_speeds'] = tuple(s if m else 0.0 for s, m in zip(speeds, moving, strict=True))
  names = {body, 'wave' if waves else 'none'}
  names = {'stand'} if names == {'none'} else names
  return Motion(**fields), np.array([name in names for name in ACTIONS], np.uint8)


def sample_pose(rng: np.random.Generator) -> Pose:
  """Draws a keyframe pose with the feet at the origin, independently of actions."""
  arms = (rng.uniform(*ARM_ANGLES), rng.uniform(*ARM_ANGLES))
  return Pose(0.0, 0.0, rng.uniform(*CROUCHES), rng.uniform(*FOOT_SPREADS), arms)


def sample_colours(rng: np.random.Generator, background: float) -> np.ndarray:
  """Draws (3, 3) uint8 RGB of shirt, trousers and skin, each far from that grey level."""
  colours = []
  while len(colours) < 3:
    colour = rng.integers(0, 256, 3)
    if np.abs(colour - background).max() > 80 and np.abs(colour - background).mean() > 55:
      colours.append(colour)
  return np.array(colours, np.uint8)


def pose_at(person: Person, time: float) -> Pose:
  """The person's pose `time` steps after the keyframe (before it if negative)."""
  key, motion, height = person.pose, person.motion, person.height
  lift = _hop(motion, time) - _hop(motion, 0.0)
  arms = [
    _bounce(angle + speed * time, *ARM_ANGLES)
    for angle, speed in zip(key.arms, motion.arm_speeds, strict=True)
  ]
  return Pose(
    x=key.x + motion.walk * height * time,
    y=key.y - lift * height,
    crouch=min(max(key.crouch + motion.crouch * time, 0.0), 1.0),
    spread=_bounce(key.spread + motion.foot_speed * time, *FOOT_SPREADS),
    arms=tuple(arms),
  )


def draw_person(image: np.ndarray, person: Person, pose: Pose) -> None:
  """Draws the person into an (H, W, 3) uint8 picture, in place."""
  shirt, trousers, skin = ([int(c) for c in colour] for colour in person.colours)
  _draw(image, person.height, pose, shirt, trousers, skin)


def person_mask(shape: tuple[int, int], person: Person, pose: Pose) -> np.ndarray:
  """(H, W) bool: pixels that the person covers at least half, ignoring occlusion."""
  mask = np.zeros(shape, np.uint8)
  _draw(mask, person.height, pose, 255, 255, 255)
  return mask >= 128


def _sign(rng: np.random.Generator) -> int:
  return 1 if rng.random() < 0.5 else -1


def _hop(motion: Motion, time: float) -> float:
  """Heights above the lowest point of the jump."""
  phase = motion.jump_phase + time / motion.jump_period
  return motion.jump * (1 - np.cos(2 * np.pi * phase)) / 2


def _bounce(value: float, low: float, high: float) -> float:
  """A straight line folded into [low, high]: a triangle wave."""
  length = high - low
  folded = (value - low) % (2 * length)
  return low + min(folded, 2 * length - folded)


def _draw(image, height, pose, shirt, trousers, skin) -> None:
  """Draws from far leg to near arm; colours as for OpenCV: a number or a list of three."""
  hip = np.array([pose.x, pose.y - height * LEG * (1 - SQUAT_DEPTH * pose.crouch)])
  neck = hip - [0, height * TORSO]
  for side in (-1, 1):
    foot = np.array([pose.x + side * pose.spread * height, pose.y])
    start = hip + [side * height * 0.035, 0]
    knee = _knee(start, foot, height * LEG / 2, side)
    _limb(image, [start, knee, foot], height * LEG_WIDTH, trousers)
  _limb(image, [neck + [0, height * TORSO_WIDTH * 0.35], hip], height * TORSO_WIDTH, shirt)
  head = neck - [0, height * HEAD_RADIUS * 0.9]
  _disc(image, head, height * HEAD_RADIUS, skin)
  for side, angle in zip((-1, 1), np.deg2rad(pose.arms), strict=True):
    shoulder = neck + height * np.array([side * TORSO_WIDTH * 0.5, 0.05])
    hand = shoulder + height * ARM * np.array([side * np.sin(angle), np.cos(angle)])
    _limb(image, [shoulder, hand], height * ARM_WIDTH, skin)


def _knee(hip: np.ndarray, foot: np.ndarray, bone: float, side: int) -> np.ndarray:
  """The joint of two equally long bones between hip and foot, bent outwards."""
  line = foot - hip
  reach = np.linalg.norm(line)
  bend = np.sqrt(max(bone**2 - (reach / 2) ** 2, 0.0))
  outwards = np.array([line[1], -line[0]]) / max(reach, 1e-6) * side
  return (hip + foot) / 2 + 0.75 * bend * outwards


def _limb(image, points, width, colour) -> None:
  points = np.round(np.array(points) * (1 << SHIFT_BITS)).astype(np.int32)
  thickness = max(int(round(width)), 1)
  cv2.polylines(image, [points], False, colour, thickness, cv2.LINE_AA, SHIFT_BITS)


def _disc(image, centre, radius, colour) -> None:
  x, y, radius = (int(round(v * (1 << SHIFT_BITS))) for v in (*centre, radius))
  cv2.circle(image, (x, y), radius, colour, cv2.FILLED, cv2.LINE_AA, SHIFT_BITS)
