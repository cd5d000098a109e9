"""Prepares any folder of videos for pre-training, which needs no annotation.

  python -m data_prep.unlabelled --videos DIR --output data/mine

Every video below DIR is used; its name is its path there. --frames takes folders of numbered
pictures instead. By default whole videos are stored, so that training may draw any clip. With
--clips-per-video only so many clips of each are stored, evenly spread, which saves space where
videos are long.

--test-fraction holds out videos for evaluation, as the split `test`. Name and --seed alone decide,
so a video stays in its split when others are added. --test-list names them instead, one per line.

Pre-training reads the frames stored here, so --short-side saves space and decoding: 240 or 320
pixels are common for crops of 224. Keyframes are the middles of the clips that training may draw.
Problems in the input are reported and listed in manifest.json, and the rest is prepared. If the
command is killed, the same command resumes it.
"""

import argparse
import functools
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.common import command_line
from data_prep.common.boxes import Boxes
from data_prep.common.clip_records import Source, Spread
from data_prep.common.frame_folder import FrameFolder, find_folder
from data_prep.common.sources import Frames
from evad_jax import limits
from evad_jax.command_line import Parser, positive, run
from evad_jax.errors import InputError
from evad_jax.files.storage import fault_of_name
from evad_jax.formats import video_lists
from evad_jax.formats.problems import Problems
from evad_jax.formats.video_lists import VIDEO_SUFFIXES
from evad_jax.video import video_source
from evad_jax.video.decode import VideoFile

NAME = 'unlabelled'
CLASSES = (NAME,)  # records have at least one class; no box has it
RUN = 128  # keyframes per record of a whole video: a record also has a clip's span of other frames


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  problems = Problems(args.strict)
  found = find_all(args.videos, args.frames, problems)
  splits = choose_splits(found, args, problems)
  lengths = expected_lengths(found, args.workers, problems)
  spread = functools.partial(
    Spread,
    clips=args.clips_per_video,
    clip_frames=args.clip_frames,
    frame_stride=args.frame_stride,
  )
  no_boxes = Boxes(
    np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros((0, len(CLASSES)), np.uint8)
  )
  sources = {
    split: [
      Source(name, found[name], no_boxes, no_boxes.frames, 0, spread=spread(lengths[name]))
      for name in names
      if name in lengths
    ]
    for split, names in splits.items()
  }
  own = {'clips_per_video': args.clips_per_video}
  run_length = 1 if args.clips_per_video else RUN
  command_line.carry_out(NAME, CLASSES, sources, run_length, own, args, problems)


def find_all(videos: str | None, frames: str | None, problems: Problems) -> dict[str, Frames]:
  """All videos, or all folders of numbered pictures, below a directory, by name, in order.

  Hidden files and folders are left out.

  Raises:
    InputError: there is no such directory, or nothing in it.
  """
  root = Path(videos or frames)
  if not root.is_dir():
    raise InputError(f'{root}: no such directory; give the directory that holds the videos')
  paths = _video_files(root, problems) if videos else _folders(root, problems)
  found = {}
  for name, source in paths:
    fault = fault_of_name(name)
    if fault:
      problems.report('unusable name', name, f'left out (it {fault}; rename it)')
    else:
      found[name] = source
  if not found:
    what = f'video ({", ".join(VIDEO_SUFFIXES)})' if videos else 'folder of numbered pictures'
    raise InputError(f'{root}: holds no {what} that can be used; check the path')
  return dict(sorted(found.items()))


def _directories(root: Path, problems: Problems) -> Iterator[tuple[Path, list[str]]]:
  """Every directory below a root, itself included, and the names of its files.

  Links are followed; what two of them lead to comes up once.
  """
  seen = set()

  def told(error: OSError) -> None:
    problems.report('unreadable directory', error.filename, f'left out ({error.strerror})')

  for path, below, files in os.walk(root, onerror=told, followlinks=True):
    real = os.path.realpath(path)
    below[:] = sorted(name for name in below if not name.startswith('.'))
    if real in seen:
      below.clear()
      continue
    seen.add(real)
    yield Path(path), [name for name in files if not name.startswith('.')]


def _video_files(root: Path, problems: Problems) -> Iterator[tuple[str, VideoFile]]:
  """Yields names and videos."""
  for directory, files in _directories(root, problems):
    paths = [directory / name for name in files]
    for path in (path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES):
      name = path.relative_to(root).as_posix()
      if os.path.isfile(path):
        yield name, VideoFile(path)
      else:
        problems.report('missing video', name, f'{path} leads to no file; left out')


def _folders(root: Path, problems: Problems) -> Iterator[tuple[str, FrameFolder]]:
  """Yields names and folders that hold numbered pictures."""
  for directory, _ in _directories(root, problems):
    name = directory.relative_to(root).as_posix()
    try:
      folder = find_folder(directory)
    except InputError as error:
      problems.report('unusable folder', name, f'left out ({error})')
      continue
    if folder is not None:
      yield root.resolve().name if name == '.' else name, folder


def expected_lengths(found: dict[str, Frames], workers: int, problems: Problems) -> dict[str, int]:
  """The number of frames of every video by its header, 0 if unknown; reports those without one."""
  lengths = {}
  with ThreadPoolExecutor(workers) as pool:
    looks = tqdm(
      pool.map(_expected_length, found.values()), 'headers', len(found), False, unit='video'
    )
    for name, length in zip(found, looks, strict=True):
      if isinstance(length, InputError):
        problems.report('undecodable video', name, f'left out ({length})')
      else:
        lengths[name] = min(length, limits.LARGEST_FRAME)
  return lengths


def _expected_length(frames: Frames) -> int | InputError:
  try:
    if isinstance(frames, FrameFolder):
      return sum(1 for _ in frames.frames())
    with video_source.opened(
      video_source.Source(str(frames.path), frames.path, False, {})
    ) as video:
      return video.num_frames or 0
  except InputError as error:
    return error


def choose_splits(
  found: dict[str, Frames], args: argparse.Namespace, problems: Problems
) -> dict[str, list[str]]:
  """{'train': names}, and 'test' where videos are held out.

  Raises:
    InputError: one of the two would be empty, or the list cannot be read.
  """
  if args.test_list:
    listed = video_lists.read(args.test_list, found)
    for name in listed.others:
      problems.report('missing video', name, f'listed in {args.test_list}, but not there')
    test, said = set(listed.known), f'--test-list {args.test_list}'
  elif args.test_fraction:
    test = {name for name in found if draw(name, args.seed) < args.test_fraction}
    said = f'--test-fraction {args.test_fraction:g} and --seed {args.seed}'
  else:
    return {'train': list(found)}
  if not test or len(test) == len(found):
    which = 'all' if test else 'none'
    raise InputError(
      f'{which} of the {len(found)} videos would be in the split test by {said}; change that, or '
      'leave it out'
    )
  splits = {'train': [], 'test': []}
  for name in found:
    splits['test' if name in test else 'train'].append(name)
  return splits


def draw(name: str, seed: int) -> float:
  """A number in [0, 1) that depends on name and seed alone."""
  digest = hashlib.sha256(f'{seed}/{name}'.encode()).digest()
  return int.from_bytes(digest[:6], 'big') / 2**48


def fraction(text: str) -> float:
  """Flag type: a number in [0, 1)."""
  value = float(text)
  if not 0 <= value < 1:
    raise argparse.ArgumentTypeError(f'{text} is not in [0, 1)')
  return value


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = Parser('data_prep.unlabelled', __doc__)
  command_line.add_frames_flags(parser)
  add = parser.add_argument
  add(
    '--clips-per-video',
    type=positive,
    default=0,
    metavar='N',
    help='store only so many clips of each video (default: the whole video)',
  )
  held = parser.add_mutually_exclusive_group()
  held.add_argument(
    '--test-fraction',
    type=fraction,
    default=0.0,
    metavar='F',
    help='approximate share of the videos that is held out as the split test (default 0)',
  )
  held.add_argument('--test-list', metavar='FILE', help='names of the videos to hold out')
  add('--seed', type=int, default=0, help='another seed holds out other videos (default 0)')
  command_line.add_shared_flags(parser)
  return parser.parse_args(argv)


if __name__ == '__main__':
  run(main)
