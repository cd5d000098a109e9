"""Prepares UCF101-24: videos and annotations -> records for training and evaluation.

  python -m data_prep.ucf24 --videos UCF-101 --annotations pyannot.pkl --output data/ucf24 \\
    --train-list trainlist01.txt --test-list testlist01.txt

Keyframes of `train` are every 4th annotated frame; those of `test`, and of `train_eval` (the
training videos again), are all annotated frames. With --every-test-frame, those of `test` are all
frames of its videos, which video-mAP needs: tubes continue through frames without annotation. Boxes
are normalised by the annotated resolution, 320 x 240, so videos of another size fit too. Problems
in the input are reported and listed in manifest.json, and the rest is prepared. If the command is
killed, the same command resumes it. The same input gives the same bytes, whatever --workers.
"""

import argparse
from pathlib import Path

from data_prep.common import command_line
from data_prep.common.clip_records import RUN
from data_prep.common.sources import find_frames, find_sources
from data_prep.common.splits import choose_splits, report_shared_groups
from evad_jax.command_line import Parser, positive, run
from evad_jax.errors import InputError
from evad_jax.formats.annotation_types import Annotations
from evad_jax.formats.annotations import read_annotations
from evad_jax.formats.problems import Problems
from evad_jax.video import decode

NAME = 'ucf24'
CLASSES = tuple(  # in label order
  'Basketball BasketballDunk Biking CliffDiving CricketBowling Diving Fencing FloorGymnastics '
  'GolfSwing HorseRiding IceDancing LongJump PoleVault RopeClimbing SalsaSpin SkateBoarding Skiing '
  'Skijet SoccerJuggling Surfing TennisSwing TrampolineJumping VolleyballSpiking '
  'WalkingWithDog'.split()
)


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  problems = Problems(args.strict)
  annotations = read_annotations(args.annotations, problems)
  if annotations.classes not in (None, CLASSES):
    raise InputError(
      f'{args.annotations}: its classes are not the 24 of UCF101-24; give the right file'
    )
  splits = choose_splits(args.train_list, args.test_list, annotations, CLASSES, args.annotations)
  report_shared_groups(splits, problems)
  if args.train_eval and 'train' in splits:
    splits['train_eval'] = splits['train']
  names = sorted({name for names in splits.values() for name in names})
  found = find_frames(names, args.videos, args.frames)
  if args.videos:
    report_videos_without_annotation(decode.find_videos(args.videos), annotations, problems)
  sources = {}
  for split, names in splits.items():
    every = args.keyframe_stride if split == 'train' else 1
    sources[split] = find_sources(
      names,
      found,
      annotations,
      len(CLASSES),
      problems,
      every=every,
      every_frame=args.every_test_frame and split == 'test',
    )
  own = {'keyframe_stride': args.keyframe_stride}
  command_line.carry_out(NAME, CLASSES, sources, RUN, own, args, problems)


def report_videos_without_annotation(
  videos: dict[str, Path], annotations: Annotations, problems: Problems
) -> None:
  """Reports videos of the 24 classes, named v_Class_..., without annotation (UCF101 has 13)."""
  annotated = {name.rpartition('/')[2] for name in annotations.videos}
  for stem in sorted(set(videos) - annotated):
    label = stem.split('_')[1] if stem.count('_') else ''
    if label in CLASSES:
      problems.report('no annotation', f'{label}/{stem}', 'a video without annotation, left out')


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = Parser('data_prep.ucf24', __doc__)
  command_line.add_frames_flags(parser)
  add = parser.add_argument
  add('--annotations', required=True, help='pyannot.pkl, or a pickle laid out as UCF101v2-GT.pkl')
  add('--train-list', help='training videos, one per line; default: the splits of the annotations')
  add('--test-list', help='test videos, one per line')
  add('--keyframe-stride', type=positive, default=4, help='training: every n-th frame (default 4)')
  add('--train-eval', action='store_true', help='also write train_eval, see above')
  command_line.add_every_frame_flag(parser)
  command_line.add_shared_flags(parser)
  return parser.parse_args(argv)


if __name__ == '__main__':
  run(main)
