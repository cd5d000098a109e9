"""Makes a video of synthetic people who perform one action after another, to try a detector on.

  python -m data_prep.synthetic_video --output people.mp4
  python -m evad_jax.tools.detect_video people.mp4 --checkpoint runs/demo --output seen.mp4

The people are the stick figures of the demo; only their motion shows their action. The ground truth
is written beside the video, as OUTPUT_truth.csv, in the form that evad_jax.tools.score reads.
Between two actions, a person has no label.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from evad_jax import command_line
from evad_jax.errors import InputError
from evad_jax.files import storage
from evad_jax.files.atomic_files import replacing, writing
from evad_jax.synthetic import clips, stick_figures
from evad_jax.synthetic.stick_figures import ACTIONS, Motion, Person, Pose
from evad_jax.video.video_writer import VideoWriter, check_name

FPS = 8
SIZE = 64  # pixels, both sides, as in the demo's clips
ENLARGED = 4  # side in file pixels of each drawn pixel: codecs blur single ones
SWING = 120  # steps in which the background moves back and forth once
PERIOD = 9  # steps of one action; jumps take half as many, so they end on the ground
BETWEEN = 3  # steps at both ends of an action that a clip shares with its neighbours


class Actor(NamedTuple):
  """A person performing an action."""

  person: Person  # with the pose at the start of the action
  ground: float  # y of the feet when they stand, pixels


def frames(
  seconds: float, people: int, seed: int
) -> Iterator[tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]]:
  """Yields per frame (SIZE, SIZE, 3) uint8, and each person's box (4,) in pixels, labels (A,)."""
  rng = np.random.default_rng(seed)
  grey = rng.uniform(105, 150)
  actors = [_first(rng, place, people, grey) for place in range(people)]
  swing = 12 * np.sin(2 * np.pi * np.arange(SWING) / SWING)
  background = clips.background(rng, (SIZE, SIZE), clips.EASY, grey, swing)
  for step in range(round(seconds * FPS)):
    time = step % PERIOD
    if time == 0 and step:
      actors = [_next(rng, actor) for actor in actors]
    frame, found = background[step % SWING].copy(), []
    sure = BETWEEN <= time < PERIOD - BETWEEN + 1
    for actor in actors:
      pose = stick_figures.pose_at(actor.person, time)
      stick_figures.draw_person(frame, actor.person, pose)
      mask = stick_figures.person_mask((SIZE, SIZE), actor.person, pose)
      if mask.any():
        # A person who is all the way down, or up, is no longer crouching or rising.
        still = actor.person.motion.crouch != 0 and pose.crouch in (0.0, 1.0)
        labels = actor.person.labels * np.uint8(sure and not still)
        found.append((clips.tight_box(mask), labels))
    yield frame, found


def _first(rng: np.random.Generator, place: int, people: int, grey: float) -> Actor:
  """A new person, in their own part of the picture."""
  height = rng.uniform(*clips.EASY.heights) * SIZE
  x, ground = SIZE * (place + 0.5) / people, SIZE - rng.uniform(3, 8)
  pose = stick_figures.sample_pose(rng)._replace(x=x, y=ground)
  colours = stick_figures.sample_colours(rng, grey)
  person = Person(height, pose, Motion(), colours, np.zeros(len(ACTIONS), np.uint8))
  return _act(rng, Actor(person, ground))


def _next(rng: np.random.Generator, actor: Actor) -> Actor:
  """The same person, continuing on the ground from where the last action ended."""
  pose = stick_figures.pose_at(actor.person, PERIOD)._replace(y=actor.ground)
  return _act(rng, actor._replace(person=actor.person._replace(pose=pose)))


def _act(rng: np.random.Generator, actor: Actor) -> Actor:
  """Draws actions until one fits: with room to walk, and to crouch or rise."""
  while True:
    motion, labels = stick_figures.sample_motion(rng)
    motion = motion._replace(jump_period=PERIOD / 2, jump_phase=0.0)
    person = actor.person._replace(motion=motion, labels=labels)
    if _fits(person, stick_figures.pose_at(person, PERIOD)):
      return actor._replace(person=person)


def _fits(person: Person, end: Pose) -> bool:
  reach = 0.25 * person.height
  halfway = person.pose.crouch + person.motion.crouch * PERIOD / 2
  return reach <= end.x <= SIZE - reach and 0 <= halfway <= 1


def write(output: Path, seconds: float, people: int, seed: int) -> None:
  """Writes the video and OUTPUT_truth.csv; earlier ones stay until these are complete."""
  truth = output.with_name(f'{output.stem}_truth.csv')
  check_name(output)
  with (
    storage.told(output, 'another --output'),
    replacing(output) as place,
    VideoWriter(place, FPS) as video,
    writing(truth) as file,
  ):
    rows = csv.writer(file, lineterminator='\n')
    rows.writerow('video,frame,x1,y1,x2,y2,label,tube_id'.split(','))
    for number, (frame, found) in enumerate(frames(seconds, people, seed)):
      size = (ENLARGED * SIZE, ENLARGED * SIZE)
      video.write(cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST), number / FPS)
      for person, (box, labels) in enumerate(found):
        corners = (ENLARGED * box).tolist()
        for label in np.flatnonzero(labels).tolist():
          # A tube of the ground truth is one action of one person.
          rows.writerow([output.name, number + 1, *corners, label, f'{person}.{number // PERIOD}'])


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  parser = command_line.Parser('data_prep.synthetic_video', __doc__)
  add = parser.add_argument
  add('--output', type=Path, required=True, help='video to write: .mp4, .mov or .mkv')
  add('--seconds', type=float, default=20.0, help=f'length, at {FPS} frames/s (default 20)')
  add('--people', type=int, default=2, help='number of people, 1 to 3 (default 2)')
  add('--seed', type=int, default=0, help='another seed gives other people (default 0)')
  args = parser.parse_args(argv)
  if not (1 <= args.people <= 3 and 1 <= args.seconds * FPS < math.inf and args.seed >= 0):
    raise InputError(
      f'--people {args.people} --seconds {args.seconds} --seed {args.seed}: give 1 to 3 people, '
      f'at least 1/{FPS} of a second, and a seed of 0 or more.'
    )
  write(args.output, args.seconds, args.people, args.seed)
  print(f'{args.output}: {args.seconds:g} seconds, {args.people} people; ground truth beside it')


if __name__ == '__main__':
  command_line.run(main)
