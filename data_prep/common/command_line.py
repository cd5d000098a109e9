"""The flags that all preparations share, and the code that acts on them."""

import argparse
from pathlib import Path

from data_prep.common.clip_records import Settings
from data_prep.common.plan import Plan, print_plan
from data_prep.common.preparation import prepare
from data_prep.common.sources import Source
from evad_jax.command_line import above_zero, positive
from evad_jax.formats.problems import Problems

SHARD_FRAMES = 6000  # about 200 MB of frames of 320 x 240


def add_frames_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that say where the pictures come from."""
  either = parser.add_mutually_exclusive_group(required=True)
  either.add_argument('--videos', help='directory of the videos, searched recursively')
  either.add_argument('--frames', help='directory of folders of numbered pictures, jpg or png')


def add_every_frame_flag(parser: argparse.ArgumentParser) -> None:
  """Adds the flag for data sets whose videos are longer than their annotations."""
  parser.add_argument(
    '--every-test-frame',
    action='store_true',
    help='make every frame of the test videos a keyframe, so that evaluation computes video-mAP',
  )


def add_shared_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that say what is stored, where, and how."""
  add = parser.add_argument
  add('--output', required=True, help='directory to write; the same command resumes in it')
  add('--short-side', type=positive, help='shrink frames to this short side, pixels (default: no)')
  add('--jpeg-quality', type=above_zero(int, 100), default=95, help='1 to 100 (default 95)')
  add('--clip-frames', type=positive, default=16, help='frames in the longest clip (default 16)')
  add('--frame-stride', type=positive, default=4, help='step between frames of a clip (default 4)')
  add(
    '--shard-frames',
    type=positive,
    default=SHARD_FRAMES,
    help=f'approximate stored frames per shard (default {SHARD_FRAMES})',
  )
  add('--workers', type=positive, default=2, help='decoding threads, one shard each (default 2)')
  add('--dry-run', action='store_true', help='only print counts and expected bytes')
  add('--strict', action='store_true', help='stop with status 2 at the first problem')
  add(
    '--overwrite',
    action='store_true',
    help='replace the data set there once the new one is complete',
  )


def carry_out(
  name: str,
  classes: tuple[str, ...],
  splits: dict[str, list[Source]],
  run: int,
  manifest: dict,
  args: argparse.Namespace,
  problems: Problems,
) -> None:
  """Prepares the splits, or with --dry-run prints what that would write.

  Args:
    name: of the data set.
    classes: A names, in label order.
    splits: the videos of each.
    run: keyframes per record.
    manifest: entries that only this data set's manifest has.
    args: the shared flags.
    problems: found so far.
  """
  settings = Settings(args.clip_frames, args.frame_stride, args.short_side, args.jpeg_quality, run)
  plan = Plan(name, classes, splits, settings, args.shard_frames, manifest)
  if args.dry_run:
    print_plan(plan, problems)
  else:
    output = Path(args.output)
    prepare(plan, output, problems, workers=args.workers, overwrite=args.overwrite)
  told = ', '.join(f'{count} {kind}' for kind, count in problems.counts().items())
  print(f'problems: {told or "none"}')
