"""Ground truth and detections of the frame and video protocols as csv files.

    truth       video,frame,x1,y1,x2,y2,label,tube_id
    detections  video,frame,x1,y1,x2,y2,label,score

Boxes are pixels, frames start at 1, labels at 0. A header may name the columns, in any order and
among others. It may then have `video_index`, the index in the list of videos from 0, instead of
`video`.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError
from evad_jax.formats import csv_columns
from evad_jax.formats.box_table import BoxTable, Counted
from evad_jax.formats.csv_columns import BOX, Lines
from evad_jax.limits import LARGEST_CLASS, LARGEST_COORDINATE, LARGEST_FRAME
from evad_jax.tubes.overlap import Tube

COMMON = {'video': str, 'frame': int, **BOX, 'label': int}
TRUTH_COLUMNS = COMMON | {'tube_id': str}
DETECTION_COLUMNS = COMMON | {'score': float}
NO_FRAMES = np.zeros(0, np.int64)


class VideoTruth(NamedTuple):
  """The videos that are scored, with their ground truth."""

  tubes: dict[str, list[Tube]]  # by video, also those without any; frames from 1, boxes in pixels
  num_frames: dict[str, int] | None  # None if the file does not say
  class_names: tuple[str, ...] | None  # by label; None if the file does not say
  sizes: dict[str, tuple[int, int]] | None = None  # height, width of the frames that were annotated
  single_boxes: dict[str, list[Tube]] = {}  # of one frame each, of people who are not tracked
  empty_frames: dict[str, np.ndarray] = {}  # (n,) int64 from 1, annotated as empty


def read_truth(path: str | os.PathLike) -> VideoTruth:
  """Reads a csv file of ground truth; rows with one video, label and tube_id are a tube.

  Raises:
    InputError: the file cannot be read or is empty; or, with its line, a wrong number of columns,
      something that is not a number, NaN, an inverted box, a frame below 1, a negative label, or a
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
) -> BoxTable:
  """Reads a csv file of detections in these videos and classes.

  Returns:
    Rows with frames from 1, boxes in pixels, labels from 0, and videos as indices into `videos`.

  Raises:
    InputError: as `read_truth`; and, with its line, a video that is not one of these, a frame
      beyond its end, and a label without a class.
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
  return BoxTable(frames, columns['boxes'], labels, columns['score'], video)


def frame_set(truth: VideoTruth, rows: BoxTable, all_frames: bool = False) -> Counted:
  """Selects what frame-mAP counts: the annotated frames, or all frames of the videos."""
  tubes = [
    (number, tube)
    for number, (video, some) in enumerate(truth.tubes.items())
    for tube in (*some, *truth.single_boxes.get(video, ()))
  ]
  empty = [truth.empty_frames.get(video, NO_FRAMES) for video in truth.tubes]
  frames = [rows.frame, *(tube.frames for _, tube in tubes), *empty]
  last = max(int(some.max(initial=0)) for some in frames)
  stretch = last + 1
  true = BoxTable(
    frame=_joined([number * stretch + tube.frames for number, tube in tubes], np.int64),
    boxes=_joined([tube.boxes for _, tube in tubes], np.float64).reshape(-1, 4),
    label=_joined([np.full(len(tube.frames), tube.label) for _, tube in tubes], np.int64),
  )
  detections = rows._replace(frame=rows.video * stretch + rows.frame, video=None)
  looked_at = [number * stretch + some for number, some in enumerate(empty)]
  annotated = np.unique(np.concatenate([true.frame, *looked_at]))
  if not all_frames:
    num_frames = len(annotated)
    detections = detections.select(np.isin(detections.frame, annotated))
  elif truth.num_frames is not None:
    num_frames = sum(truth.num_frames[video] for video in truth.tubes)
  else:
    num_frames = len(np.union1d(annotated, detections.frame))
  left_out = {'detections_on_other_frames': len(rows.frame) - len(detections.frame)}
  return Counted(detections, true, num_frames, left_out)


def exclude(
  truth: VideoTruth, rows: BoxTable, excluded: set[tuple[str, int]]
) -> tuple[VideoTruth, BoxTable]:
  """Both without these frames (video, number); tubes without any frames left are dropped."""
  videos = list(truth.tubes)
  out = {video: {number for name, number in excluded if name == video} for video in videos}

  def left(tubes: dict[str, list[Tube]]) -> dict[str, list[Tube]]:
    kept = {
      video: [_without(tube, out[video]) for tube in tubes.get(video, ())] for video in videos
    }
    return {video: [tube for tube in some if len(tube.frames)] for video, some in kept.items()}

  empty = {
    video: frames[~np.isin(frames, list(out[video]))]
    for video, frames in truth.empty_frames.items()
    if video in out
  }
  places = zip(rows.video.tolist(), rows.frame.tolist(), strict=True)
  keep = np.array([(videos[number], frame) not in excluded for number, frame in places], bool)
  truth = truth._replace(
    tubes=left(truth.tubes), single_boxes=left(truth.single_boxes), empty_frames=empty
  )
  return truth, rows.select(keep)


def _without(tube: Tube, frames: set[int]) -> Tube:
  keep = ~np.isin(tube.frames, list(frames))
  return tube._replace(frames=tube.frames[keep], boxes=tube.boxes[keep])


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
  return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _read(
  path: str | os.PathLike, kinds: dict[str, type], noun: str
) -> tuple[Lines, dict[str, np.ndarray]]:
  """The columns by name, in whatever order the file has them, with the boxes as one array."""
  lines = csv_columns.read_lines(path, noun)
  heads = csv_columns.header(lines, (*kinds, 'video_index', 'timestamp', 'action_id'))
  if heads is not None:
    if 'timestamp' in heads and 'frame' not in heads:
      raise InputError(
        f'{path}: has the seconds and normalised boxes of AVA, not frame numbers and pixels; score '
        'it with --protocol ava.'
      )
    if 'score' in kinds and 'video_index' in heads:
      kinds = {'video_index': int} | {name: kinds[name] for name in kinds if name != 'video'}
    kinds = csv_columns.named_columns(lines, heads, kinds)
    lines = csv_columns.without_header(lines, noun)
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
    (labels >= 0) & (labels <= LARGEST_CLASS),
    lines,
    lambda row: (
      f'there is no class {labels[row]}; labels start at 0 and go to {LARGEST_CLASS} at most.'
    ),
  )
  csv_columns.require(
    np.abs(boxes).max(axis=1, initial=0) <= LARGEST_COORDINATE,
    lines,
    lambda _: f'the box reaches beyond {LARGEST_COORDINATE:.0f} pixels; write x1,y1,x2,y2.',
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
