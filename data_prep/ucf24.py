"""Prepares UCF101-24: videos and annotations -> records that training and evaluation read.

  python -m data_prep.ucf24 --videos UCF-101 --annotations pyannot.pkl --output data/ucf24 \\
    --train-list trainlist01.txt --test-list testlist01.txt

Keyframes of `train` are every 4th annotated frame, those of `test` (and of `train_eval`, the
training videos once more) all of them. Boxes are divided by the resolution that was annotated,
320 x 240, so videos of another size fit too. What is wrong with the input is told by name and
listed in manifest.json, and the rest is prepared. The same input gives the same bytes, whatever
--workers.
"""

import argparse
import collections
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import av
from tqdm import tqdm

from data_prep import clip_records, video
from data_prep.annotations import Annotations, read_annotations
from data_prep.clip_records import Settings
from data_prep.problems import Problems
from data_prep.sources import (
  Source,
  bytes_per_frame,
  find_sources,
  planned_counts,
  report_videos_without_annotation,
)
from data_prep.splits import choose_splits, report_shared_groups
from evad_jax.data.record_writer import RecordWriter, claim_directory, write_dataset_metadata
from evad_jax.data.records import Record
from evad_jax.errors import InputError, exit_on_input_error

NAME = 'ucf24'
RECORDS_PER_SHARD = 128  # of about a megabyte each
CLASSES = tuple(  # in label order
  'Basketball BasketballDunk Biking CliffDiving CricketBowling Diving Fencing FloorGymnastics '
  'GolfSwing HorseRiding IceDancing LongJump PoleVault RopeClimbing SalsaSpin SkateBoarding Skiing '
  'Skijet SoccerJuggling Surfing TennisSwing TrampolineJumping VolleyballSpiking '
  'WalkingWithDog'.split()
)


class Prepared(NamedTuple):
  """What one video gave."""

  records: list[Record]
  num_frames: int  # as decoded; 0 if that failed
  error: str  # why decoding failed, or ''


def check_annotations(annotations: Annotations, path: str) -> None:
  """Raises InputError unless the classes are UCF101-24's."""
  if annotations.classes not in (None, CLASSES):
    raise InputError(f'{path}: its classes are not the 24 of UCF101-24; give the right file')
  for name, entry in annotations.videos.items():
    bad = [tube.label for tube in entry.tubes if not 0 <= tube.label < len(CLASSES)]
    if bad:
      raise InputError(f'{path}: {name} has label {bad[0]}, outside 0..23; give the right file')


def prepare_video(source: Source, settings: Settings) -> Prepared:
  """Decodes and encodes one video; a video that cannot be decoded gives the reason instead."""
  try:
    records, decoded = clip_records.video_records(
      source.name,
      source.path,
      source.boxes,
      source.num_frames,
      source.every,
      len(CLASSES),
      settings,
    )
  except InputError as error:
    return Prepared([], 0, str(error))
  return Prepared(records, decoded, '' if decoded else f'{source.path}: holds no frame')


def report_prepared(source: Source, prepared: Prepared, problems: Problems) -> None:
  """Tells what decoding has shown."""
  if prepared.error:
    problems.report('undecodable video', source.name, f'left out ({prepared.error})')
    return
  if prepared.num_frames != source.num_frames:
    detail = f'annotated {source.num_frames}, decoded {prepared.num_frames}; the latter is used'
    problems.report('other number of frames', source.name, detail)
  beyond = int((source.boxes.frames >= prepared.num_frames).sum())
  if beyond:
    problems.report('annotation beyond the end', source.name, f'{beyond} boxes dropped')
  if not prepared.records:
    problems.report('no usable box', source.name, 'left out')


def in_order(function: Callable, items: Iterable, workers: int) -> Iterator:
  """Maps in threads (decoders release the lock), yields in order, runs only a little ahead."""
  with ThreadPoolExecutor(workers) as pool:
    waiting = collections.deque()
    try:
      for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > workers:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()


def print_plan(splits: dict[str, list[Source]], settings: Settings, problems: Problems) -> None:
  """What a preparation would write, for --dry-run."""
  for split, sources in splits.items():
    counts = planned_counts(sources, settings)
    size = counts['frames'] * bytes_per_frame(sources, settings, problems)
    told = ', '.join(f'{count} {what}' for what, count in counts.items())
    print(f'{split}: {told}, about {round(size)} bytes ({size / 1e6:.1f} MB)')


def write_split(
  split: str, sources: list[Source], args: argparse.Namespace, problems: Problems
) -> dict[str, int]:
  """Writes one split and returns its counts of keyframes, boxes and stored frames."""
  settings = settings_of(args)
  shards = math.ceil(planned_counts(sources, settings)['records'] / RECORDS_PER_SHARD)
  counts = collections.Counter(keyframes=0, boxes=0, frames=0)
  work = functools.partial(prepare_video, settings=settings)
  with RecordWriter(args.output, NAME, split, len(CLASSES), max(shards, 1)) as writer:
    progress = tqdm(in_order(work, sources, args.workers), split, len(sources), unit='video')
    for source, prepared in zip(sources, progress, strict=True):
      report_prepared(source, prepared, problems)
      for record in prepared.records:
        writer.write(record)
        counts['keyframes'] += len(record.keyframes)
        counts['boxes'] += len(record.boxes)
        counts['frames'] += len(record.frames)
    if not counts['keyframes']:
      raise InputError(
        f'split {split!r}: none of its {len(sources)} videos can be prepared; check --videos and '
        f'--annotations'
      )
  return dict(counts)


def settings_of(args: argparse.Namespace) -> Settings:
  """The part of the command line that decides the bytes of a record."""
  return Settings(args.clip_frames, args.frame_stride, args.short_side, args.jpeg_quality)


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  problems = Problems(args.strict)
  annotations = read_annotations(args.annotations)
  check_annotations(annotations, args.annotations)
  splits = choose_splits(args.train_list, args.test_list, annotations, CLASSES)
  report_shared_groups(splits, problems)
  if args.train_eval and 'train' in splits:
    splits['train_eval'] = splits['train']
  videos = video.find_videos(args.videos)
  report_videos_without_annotation(videos, annotations, CLASSES, problems)
  every = {'train': args.keyframe_stride}
  sources = {
    split: find_sources(names, videos, annotations, every.get(split, 1), problems)
    for split, names in splits.items()
  }
  if args.dry_run:
    print_plan(sources, settings_of(args), problems)
  else:
    prepare(sources, args, problems)
  told = ', '.join(f'{count} {kind}' for kind, count in problems.counts().items())
  print(f'problems: {told or "none"}')


def prepare(sources: dict[str, list[Source]], args: argparse.Namespace, problems: Problems) -> None:
  """Writes all splits, then the metadata."""
  claim_directory(args.output, NAME, args.overwrite)
  counts = {split: write_split(split, mine, args, problems) for split, mine in sources.items()}
  extra = {
    'splits': counts,
    'keyframe_stride': args.keyframe_stride,
    'short_side': args.short_side,
    'jpeg_quality': args.jpeg_quality,
    'decoder_versions': {'av': av.__version__} | _dotted(av.library_versions),
    'problem_counts': problems.counts(),
    'problems': problems.entries,
  }
  write_dataset_metadata(
    args.output,
    NAME,
    list(CLASSES),
    extra,
    clip_frames=args.clip_frames,
    frame_stride=args.frame_stride,
  )
  for split, numbers in counts.items():
    print(f'{split}: ' + ', '.join(f'{count} {what}' for what, count in numbers.items()))


def _dotted(versions: dict[str, tuple[int, ...]]) -> dict[str, str]:
  return {name: '.'.join(map(str, numbers)) for name, numbers in versions.items()}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = argparse.ArgumentParser(
    prog='python -m data_prep.ucf24',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--videos', required=True, help='directory of the videos, searched with all below it')
  add('--annotations', required=True, help='pyannot.pkl, or a pickle laid out as UCF101v2-GT.pkl')
  add('--output', required=True, help='directory to write; new or empty, unless --overwrite')
  add(
    '--train-list', help='training videos, one a line; without lists, the annotation file decides'
  )
  add('--test-list', help='test videos, one a line')
  count = _positive
  add('--keyframe-stride', type=count, default=4, help='training keyframes: every n-th (default 4)')
  add('--short-side', type=count, help='shrink frames to this short side, pixels (default: never)')
  add('--jpeg-quality', type=_quality, default=95, help='1 to 100 (default 95)')
  add('--clip-frames', type=count, default=16, help='frames of the longest clip (default 16)')
  add('--frame-stride', type=count, default=4, help='between the frames of a clip (default 4)')
  add('--train-eval', action='store_true', help='also write train_eval: every training keyframe')
  add('--workers', type=count, default=2, help='threads that decode (default 2)')
  add('--dry-run', action='store_true', help='only print counts and the bytes to expect')
  add('--strict', action='store_true', help='stop with status 2 at the first problem')
  add('--overwrite', action='store_true', help='replace what was prepared in the output directory')
  return parser.parse_args(argv)


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'{text} is not a positive number')
  return value


def _quality(text: str) -> int:
  value = _positive(text)
  if value > 100:
    raise argparse.ArgumentTypeError(f'{text} is above 100')
  return value


if __name__ == '__main__':
  with exit_on_input_error():
    main()
