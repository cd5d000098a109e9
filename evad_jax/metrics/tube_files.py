"""Ground truth and detections of the frame and video protocols as csv files.

    truth       video,frame,x1,y1,x2,y2,label,tube_id
    detections  video,frame,x1,y1,x2,y2,label,score

Boxes are pixels, frames start at 1, labels at 0. Columns may also be named by a first line, in any
order and among others; `video_index` may then stand for `video`: the place in the list of videos,
from 0.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evad_jax import csv_columns
from evad_jax.csv_columns import Lines
from evad_jax.errors import InputError
from evad_jax.tubes.overlap import Tube

BOX = ('x1', 'y1', 'x2', 'y2')
COMMON = {'video': str, 'frame': int, **dict.fromkeys(BOX, float), 'label': int}
TRUTH_COLUMNS = COMMON | {'tube_id': str}
DETECTION_COLUMNS = COMMON | {'score': float}
LARGEST_FRAME = 10**7  # four days at 25 frames a second


class VideoTruth(NamedTuple):
  """The videos that are scored, with their ground truth."""

  tubes: dict[str, list[Tube]]  # by video, also those without any; frames from 1, boxes in pixels
  num_frames: dict[str, int] | None  # None where the file does not say
  class_names: tuple[str, ...] | None  # by label; None where the file does not say


class Rows(NamedTuple):
  """A detection file in its own order, which decides between equal scores."""

  video: np.ndarray  # (N,) int64, place in the list of videos
  frames: np.ndarray  # (N,) int64, from 1
  boxes: np.ndarray  # (N, 4) float64 xyxy, pixels
  labels: np.ndarray  # (N,) int64, from 0
  scores: np.ndarray  # (N,) float64


def read_truth(path: str | os.PathLike) -> VideoTruth:
  """Reads a csv file of ground truth; a tube is what has one video, label and tube_id.

  Raises:
    InputError: the file cannot be read or is empty; or, with its line, another number of columns,
      no number where one belongs, NaN, an inverted box, a frame below 1, a negative label, or a
      second box of a tube in one frame.
  """
  lines, columns = _read(path, TRUTH_COLUMNS, 'a csv file of ground truth')
  _check(lines, columns)
  rows_of: dict[tuple[str, int, str], list[int]] = {}
  keys = zip(*(columns[name].tolist() for name in ('video', 'label', 'tube_id')), strict=True)
  for row, key in enumerate(keys):
    rows_of.setdefault(key, []).append(row)
  tubes: dict[str, list[Tube]] = {video: [] for video in columns['video'].tolist()}
  for (video, label, _), rows in rows_of.items():
    rows = np.array(rows)[np.argsort(columns['frame'][rows], kind='stable')]
    frames = columns['frame'][rows]
    double = np.flatnonzero(np.diff(frames) == 0)
    if double.size:
      raise InputError(
        f'{lines.place(rows[double[0] + 1])}: the tube has another box in this frame already; '
        'give every tube of a video a tube_id of its own.'
      )
    tubes[video].append(Tube(label, frames, columns['boxes'][rows]))
  return VideoTruth(tubes, None, None)


def read_detections(
  path: str | os.PathLike,
  videos: Sequence[str],
  num_classes: int,
  num_frames: dict[str, int] | None = None,
) -> Rows:
  """Reads a csv file of detections in these videos and classes.

  Raises:
    InputError: as `read_truth`; and, with its line, a video that is not one of these, a frame
      beyond its end, and a label that is no class.
  """
  lines, columns = _read(path, DETECTION_COLUMNS, 'a csv file of detections')
  _check(lines, columns)
  video = _video_numbers(lines, columns, videos)
  labels, frames = columns['label'], columns['frame']
  csv_columns.require(
    labels < num_classes,
    lines,
    lambda row: f'there is no class {labels[row]}; the labels go from 0 to {num_classes - 1}.',
  )
  if num_frames is not None:
    ends = np.array([num_frames[name] for name in videos])[video]
    csv_columns.require(
      frames <= ends,
      lines,
      lambda row: (
        f'there is no frame {frames[row]} in {videos[video[row]]}, which has {ends[row]} frames.'
      ),
    )
  return Rows(video, frames, columns['boxes'], labels, columns['score'])


def _read(
  path: str | os.PathLike, kinds: dict[str, type], noun: str
) -> tuple[Lines, dict[str, np.ndarray]]:
  """The columns by name, however they are arranged, with the boxes as one array."""
  lines = csv_columns.read_lines(path, noun)
  heads = [cell.strip() for cell in lines.text[0].split(',')]
  if 'label' in heads:
    wanted = dict(kinds)
    if 'score' in kinds and 'video_index' in heads:
      wanted = {'video_index': int} | {name: wanted[name] for name in wanted if name != 'video'}
    missing = [name for name in wanted if heads.count(name) != 1]
    if missing:
      raise InputError(
        f'{lines.place(0)}: the header names {missing[0]} {heads.count(missing[0])} times; '
        f'it must name each of {",".join(wanted)} once.'
      )
    kinds = {
      name if name in wanted else f'column {place}': wanted.get(name)
      for place, name in enumerate(heads)
    }
    lines = Lines(lines.path, lines.text[1:], lines.numbers[1:])
    if not lines.text:
      raise InputError(f'{lines.path} has a header and no rows; give {noun}.')
  columns = csv_columns.parse(lines, kinds)
  return lines, columns | {'boxes': np.stack([columns[name] for name in BOX], axis=1)}


def _check(lines: Lines, columns: dict[str, np.ndarray]) -> None:
  frames, labels, boxes = (columns[name] for name in ('frame', 'label', 'boxes'))
  csv_columns.require(
    (frames >= 1) & (frames <= LARGEST_FRAME),
    lines,
    lambda row: f'there is no frame {frames[row]}; frames are counted from 1.',
  )
  csv_columns.require(
    labels >= 0, lines, lambda row: f'there is no class {labels[row]}; labels start at 0.'
  )
  csv_columns.require(
    (boxes[:, 2:] >= boxes[:, :2]).all(axis=1),
    lines,
    lambda _: 'the box ends before it starts; write x1,y1,x2,y2.',
  )


def _video_numbers(
  lines: Lines, columns: dict[str, np.ndarray], videos: Sequence[str]
) -> np.ndarray:
  if 'video' not in columns:
    number = columns['video_index']
    csv_columns.require(
      (number >= 0) & (number < len(videos)),
      lines,
      lambda row: f'there is no video {number[row]}; {len(videos)} videos are scored, from 0 on.',
    )
    return number
  numbers = {name: number for number, name in enumerate(videos)}
  found = np.array([numbers.get(name, -1) for name in columns['video'].tolist()], np.int64)
  csv_columns.require(
    found >= 0,
    lines,
    lambda row: (
      f'video {str(columns["video"][row])!r} is not one of the {len(videos)} that are scored.'
    ),
  )
  return found
