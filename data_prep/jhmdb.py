"""Prepares the three splits of JHMDB, from frames or videos and JHMDB-GT.pkl, in one directory.

  python -m data_prep.jhmdb --frames Rename_Images --annotations JHMDB-GT.pkl --output data/jhmdb

The splits are train1, test1, train2, test2, train3 and test3; metrics are averaged over the three.
Every annotated frame is a keyframe (`--keyframe-stride` thins out those of training). The
annotation file has the layout of the ACT detector. Problems in the input are reported and listed in
manifest.json, and the rest is prepared. If the command is killed, the same command resumes it.
"""

import argparse

from data_prep.common import command_line
from data_prep.common.clip_records import RUN
from data_prep.common.sources import find_frames, find_sources
from evad_jax.command_line import Parser, positive, run
from evad_jax.errors import InputError
from evad_jax.formats.annotation_types import Annotations
from evad_jax.formats.annotations import read_annotations
from evad_jax.formats.problems import Problems

NAME = 'jhmdb'
CLASSES = tuple(  # in label order
  'brush_hair catch clap climb_stairs golf jump kick_ball pick pour pullup push run shoot_ball '
  'shoot_bow shoot_gun sit stand swing_baseball throw walk wave'.split()
)


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  problems = Problems(args.strict)
  annotations = read_annotations(args.annotations, problems)
  if annotations.classes != CLASSES:
    raise InputError(f'{args.annotations}: its classes are not the 21 of JHMDB; give JHMDB-GT.pkl')
  splits = choose_splits(annotations, args.splits, args.annotations)
  names = sorted({name for names in splits.values() for name in names})
  found = find_frames(names, args.videos, args.frames)
  sources = {}
  for split, names in splits.items():
    every = args.keyframe_stride if split.startswith('train') else 1
    sources[split] = find_sources(
      names,
      found,
      annotations,
      len(CLASSES),
      problems,
      every=every,
      every_frame=args.every_test_frame and split.startswith('test'),
    )
  own = {'keyframe_stride': args.keyframe_stride, 'trimmed': True}
  command_line.carry_out(NAME, CLASSES, sources, RUN, own, args, problems)


def choose_splits(annotations: Annotations, numbers: list[int], path: str) -> dict[str, list[str]]:
  """Returns {'train1': names, 'test1': names, ...} of the split numbers, which count from 1."""
  both = {'train': annotations.train_videos, 'test': annotations.test_videos}
  splits = {}
  for number in sorted(set(numbers)):
    for kind, lists in both.items():
      if not lists or len(lists) < number:
        raise InputError(f'{path}: holds no split {number}; give JHMDB-GT.pkl, which has three')
      splits[f'{kind}{number}'] = sorted(lists[number - 1])
  return splits


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = Parser('data_prep.jhmdb', __doc__)
  command_line.add_frames_flags(parser)
  add = parser.add_argument
  add('--annotations', required=True, help='JHMDB-GT.pkl, or a file with the same classes')
  add('--splits', type=positive, nargs='+', default=[1, 2, 3], metavar='N', help='default: 1 2 3')
  add('--keyframe-stride', type=positive, default=1, help='training: every n-th frame (default 1)')
  command_line.add_every_frame_flag(parser)
  command_line.add_shared_flags(parser)
  return parser.parse_args(argv)


if __name__ == '__main__':
  run(main)
