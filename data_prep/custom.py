"""Prepares your own videos, annotated in one JSON file.

  python -m data_prep.custom --annotations kitchen.json --output data/kitchen

The file lists the classes, and the people in every video:

  {
    "classes": ["walk", "wave", "pour"],
    "videos": {
      "kitchen_01": {
        "file": "cams/kitchen_01.mp4",
        "split": "train",
        "width": 1280, "height": 720,
        "tubes": [
          {"labels": ["walk", "wave"], "start": 12,
           "boxes": [[400, 90, 560, 700], [404, 90, 566, 702]]}
        ]
      },
      "kitchen_02": {
        "split": "test",
        "normalised": true,
        "boxes": [
          {"time": 0.5, "box": [0.25, 0.1, 0.5, 0.9], "labels": ["pour"]},
          {"time": 1.5, "labels": []}
        ]
      }
    }
  }

classes  in label order; every label has to be one of them
videos   by name; for each:
  file        a video, or a folder of pictures numbered from 1, below --videos (by default the
              directory of the JSON file), never outside; without it, a video of that name is
              searched for
  split       "train" (default), "test", or any lower-case word; each becomes a split
  num_frames  optional; checked against the video
  width, height   the size in pixels that boxes refer to (default: the size of the video); or
  normalised  true for boxes that are divided by width and height, from 0 to 1
  tubes       people over time: labels, first frame, and a box [x1, y1, x2, y2] per frame
  boxes       people on single frames: frame or time, box, labels; no box: the frame is empty
  fps         optional, here or beside "classes": frames are numbered at this rate, so that frame n
              is the one shown at n / fps seconds. Without it, decoded frames count from 0; where
              boxes have times, it defaults to 30. Give it for videos of a variable frame rate.

Every frame with a box becomes a keyframe (--keyframe-stride thins out those of "train"). Empty
frames are keyframes of all splits but "train". With --every-test-frame, so are all other frames of
these splits, which video-mAP needs. Problems in the input are reported and listed in manifest.json,
and the rest is prepared. If the command is killed, the same command resumes it.
Look at the result: python -m data_prep.inspect_records data/kitchen
"""

import argparse
from fractions import Fraction
from pathlib import Path

from data_prep.common import command_line
from data_prep.common.clip_records import RUN
from data_prep.common.frame_folder import find_folder
from data_prep.common.sources import OUTSIDE, Found, Frames, file_below, find_sources
from evad_jax.command_line import Parser, positive, run
from evad_jax.errors import InputError
from evad_jax.files.storage import below
from evad_jax.formats.annotation_types import Annotations, VideoAnnotation
from evad_jax.formats.annotations import read_annotations
from evad_jax.formats.problems import Problems
from evad_jax.video import decode
from evad_jax.video.decode import VideoFile

NAME = 'custom'


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  problems = Problems(args.strict)
  annotations = read_annotations(args.annotations, problems)
  splits = splits_of(annotations, args.annotations)
  root = Path(args.videos or Path(args.annotations).parent)
  found = find_all(annotations, root, problems)
  sources = {}
  for split, names in splits.items():
    every = args.keyframe_stride if split == 'train' else 1
    sources[split] = find_sources(
      names,
      found,
      annotations,
      len(annotations.classes),
      problems,
      every=every,
      keep_empty=split != 'train',
      every_frame=args.every_test_frame and split != 'train',
    )
  own = {'keyframe_stride': args.keyframe_stride}
  command_line.carry_out(NAME, annotations.classes, sources, RUN, own, args, problems)


def splits_of(annotations: Annotations, path: str) -> dict[str, list[str]]:
  """The names of every split, in order."""
  splits = annotations.splits
  if splits is None and annotations.train_videos and annotations.test_videos:
    splits = {'train': annotations.train_videos[0], 'test': annotations.test_videos[0]}
  if splits == {}:
    raise InputError(f'{path}: none of its videos can be used; correct the problems reported above')
  if annotations.classes is None or not splits:
    raise InputError(f'{path}: names no classes or no splits; give a JSON file as --help shows it')
  return {split: sorted(names) for split, names in splits.items()}


def find_all(annotations: Annotations, root: Path, problems: Problems) -> Found:
  """Finds the frames of all videos, which have to be below `root`."""
  if not root.is_dir():
    raise InputError(f'{root}: no such directory; give the directory that holds the videos')
  entries, paths = annotations.videos, {}
  for name, entry in entries.items():
    try:
      paths[name] = below(root, entry.file or name)
    except InputError as error:
      problems.report(OUTSIDE, name, f'left out ({error})')
  found = {name: _frames_at(path, entries[name]) for name, path in paths.items()}
  searched = [name for name in found if entries[name].file is None and found[name] is None]
  if searched:
    videos = decode.videos_below(root)
    for name in searched:
      path = videos.get(decode.stem_of(name))
      found[name] = path and _frames_at(path, entries[name])

  def looked_for(name: str) -> str:
    return f'file or folder {paths[name]}' if entries[name].file else file_below(root, name)

  return Found({name: frames for name, frames in found.items() if frames is not None}, looked_for)


def _frames_at(path: Path, entry: VideoAnnotation) -> Frames | None:
  if path.is_file():
    rate = None if entry.fps is None else Fraction(entry.fps).limit_denominator(1001)
    return VideoFile(path, rate)
  return find_folder(path, entry.fps or 0.0)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = Parser('data_prep.custom', __doc__)
  add = parser.add_argument
  add('--annotations', required=True, help='the JSON file')
  add('--videos', help="directory of the videos (default: the JSON file's)")
  add('--keyframe-stride', type=positive, default=1, help='training: every n-th frame (default 1)')
  command_line.add_every_frame_flag(parser)
  command_line.add_shared_flags(parser)
  return parser.parse_args(argv)


if __name__ == '__main__':
  run(main)
