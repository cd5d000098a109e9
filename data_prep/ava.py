"""Prepares AVA v2.1 or v2.2, from whole films, their minutes 15 to 30, or extracted frames.

  python -m data_prep.ava --videos videos_15min --output data/ava \\
    --train-csv ava_train_v2.2.csv --train-excluded ava_train_excluded_timestamps_v2.2.csv \\
    --val-csv ava_val_v2.2.csv --val-excluded ava_val_excluded_timestamps_v2.2.csv \\
    --labels ava_action_list_v2.2.pbtxt \\
    --scored-labels ava_action_list_v2.2_for_activitynet_2019.pbtxt

Videos are found by name: NAME.mp4, .mkv, ... With --frames, the frames of a video are
NAME/NAME_000001.jpg, ..., taken at 30 per second from minute 15 on, and stored as they are unless
--short-side is given. Second s is frame (s - 900) * 30. A video of another rate is resampled by
time, as `ffmpeg -ss 900 -t 901 ... -r 30` does; seconds count from the start of the file, its sound
included. A video of 20 minutes or more is taken for a whole film and read from minute 15 on; --cut
or --uncut overrides this for all videos, and manifest.json records the decision. A record is one
keyframe with the frames of its clip; no other frames are stored.

Keyframes without boxes are left out of train and kept in val. Problems in the input are reported
and listed in manifest.json, and the rest is prepared. If the command is killed, the same command
resumes it.
"""

import argparse
from fractions import Fraction

import numpy as np

from data_prep.common import command_line
from data_prep.common.boxes import gather_boxes
from data_prep.common.clip_records import Source
from data_prep.common.sources import Found, Frames, find_frames, with_empty_keyframes
from evad_jax.command_line import Parser, run
from evad_jax.errors import InputError
from evad_jax.formats import class_lists
from evad_jax.formats.ava_files import read_exclusions, read_label_map, read_truth
from evad_jax.formats.box_table import BoxTable
from evad_jax.formats.problems import Problems
from evad_jax.video import decode
from evad_jax.video.decode import VideoFile

NAME = 'ava'
RATE = 30  # frames per second
ORIGIN = 900  # the second of frame 0
SECONDS = 901  # to read
FILM = 1200  # seconds; a video of this length or more is a whole film
RUN = 1  # keyframes per record: neighbours are a second apart and share few frames


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  problems = Problems(args.strict)
  labels = read_label_map(args.labels)
  ids = sorted(labels)
  classes = class_names(labels)
  rows, excluded = {}, {}
  for split in ('train', 'val'):
    if getattr(args, f'{split}_csv'):
      rows[split], excluded[split] = read_split(
        getattr(args, f'{split}_csv'), getattr(args, f'{split}_excluded')
      )
  if not rows:
    raise InputError('no ground truth is given; give --train-csv, --val-csv, or both')
  names = sorted({name for mine in rows.values() for name in mine.video.tolist()})
  found, video_time = locate(names, args, problems)
  sources = {
    split: plan_split(mine, ids, found, split != 'train', problems) for split, mine in rows.items()
  }
  own = {
    'timestamp_origin': ORIGIN,
    'timestamp_rate': RATE,
    'class_ids': ids,
    'excluded_keyframes': excluded,
    'video_time': video_time,
  }
  if args.scored_labels:
    own['scored_classes'] = scored_classes(classes, ids, args.scored_labels)
  command_line.carry_out(NAME, classes, sources, RUN, own, args, problems)


def class_names(labels: dict[int, str]) -> tuple[str, ...]:
  """Names in the order of their ids; where two ids share a name, the id is appended."""
  ids = sorted(labels)
  return tuple(class_lists.distinct([labels[i] for i in ids], ids))


def scored_classes(classes: tuple[str, ...], ids: list[int], path: str) -> list[str]:
  """Reads a list of scored classes; returns their names, in label order."""
  scored = read_label_map(path)
  strange = sorted(set(scored) - set(ids))
  if strange:
    raise InputError(
      f'{path}: scores id {strange[0]}, which --labels does not have; give the --labels that match'
    )
  return [name for name, number in zip(classes, ids, strict=True) if number in scored]


def read_split(truth: str, exclusions: str | None) -> tuple[BoxTable, int]:
  """Reads the rows of a split without its excluded seconds, and the number of these keyframes."""
  rows = read_truth(truth)
  excluded = read_exclusions(exclusions) if exclusions else set()
  keyframes = list(zip(rows.video.tolist(), rows.frame.tolist(), strict=True))
  kept = np.array([keyframe not in excluded for keyframe in keyframes], bool)
  return rows.select(kept), len(excluded.intersection(keyframes))


def locate(
  names: list[str], args: argparse.Namespace, problems: Problems
) -> tuple[Found, dict[str, str]]:
  """Finds the frames of every video, and decides which videos are 'cut' and which 'uncut'."""
  there = find_frames(names, args.videos, args.frames, RATE)
  if args.videos is None:
    return there, {}
  found, decided = {}, {}
  for name, file in there.frames.items():
    try:
      length = decode.duration(file.path)
    except InputError as error:
      problems.report('undecodable video', name, f'left out ({error})')
      continue
    whole_film = args.uncut or (not args.cut and length is not None and length >= FILM)
    found[name] = VideoFile(file.path, Fraction(RATE), ORIGIN if whole_film else 0, SECONDS)
    decided[name] = 'uncut' if whole_film else 'cut'
  return there._replace(frames=found), decided


def plan_split(
  rows: BoxTable, ids: list[int], found: Found, keep_empty: bool, problems: Problems
) -> list[Source]:
  """The videos of a split that can be prepared; reports the others, and invalid rows."""
  sources = []
  order = np.argsort(rows.video, kind='stable')
  names, starts = np.unique(rows.video[order], return_index=True)
  for name, mine in zip(names.tolist(), np.split(order, starts[1:]), strict=True):
    if name in found.frames:
      sources += plan_video(name, rows.select(mine), ids, found.frames[name], keep_empty, problems)
    elif name not in problems.names('undecodable video'):
      found.report_missing(name, problems)
  return sources


def plan_video(
  name: str,
  rows: BoxTable,
  ids: list[int],
  frames: Frames,
  keep_empty: bool,
  problems: Problems,
) -> list[Source]:
  """One video with its boxes and keyframes, from its rows; [] where no row is usable."""
  early = rows.frame < ORIGIN
  if early.any():
    detail = f'{early.sum()} rows before second {ORIGIN} dropped'
    problems.report('second out of range', name, detail)
    rows = rows.select(~early)
  numbers = (rows.frame - ORIGIN) * RATE
  has_box = rows.label > 0
  people = has_box & np.isin(rows.label, ids)
  unknown = np.unique(rows.label[has_box & ~people])
  if len(unknown):
    told = ', '.join(map(str, unknown))
    problems.report('unknown label', name, f'rows of action ids {told} dropped')
  labels = np.searchsorted(ids, rows.label)
  boxes, found = gather_boxes(numbers[people], rows.boxes[people], labels[people], len(ids))
  for kind, detail in found.items():
    problems.report(kind, name, detail)
  source = Source(name, frames, boxes, np.unique(boxes.frames), SECONDS * RATE)
  return with_empty_keyframes(source, numbers, keep_empty, problems)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = Parser('data_prep.ava', __doc__)
  command_line.add_frames_flags(parser)
  add = parser.add_argument
  add('--train-csv', help='ava_train_v2.?.csv; without it, no split train is written')
  add('--val-csv', help='ava_val_v2.?.csv; without it, no split val is written')
  add('--train-excluded', help='ava_train_excluded_timestamps_v2.?.csv')
  add('--val-excluded', help='ava_val_excluded_timestamps_v2.?.csv')
  add('--labels', required=True, help='ava_action_list_v2.?.pbtxt, all 80 actions')
  add('--scored-labels', help='list of the 60 scored actions; without it, all are scored')
  either = parser.add_mutually_exclusive_group()
  either.add_argument('--cut', action='store_true', help='every video starts at minute 15')
  either.add_argument('--uncut', action='store_true', help='every video is a whole film')
  command_line.add_shared_flags(parser)
  return parser.parse_args(argv)


if __name__ == '__main__':
  run(main)
