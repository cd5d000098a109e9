"""Detections as a text file in AVA's order of columns, written and read.

    video,timestamp,x1,y1,x2,y2,action_id,score

without a header. Boxes are parts of the frame's width and height; the timestamp is the second for
AVA and the frame number elsewhere; action ids start at 1. A row is one box scored for one class.
"""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError

COLUMNS = ('video', 'timestamp', 'x1', 'y1', 'x2', 'y2', 'action_id', 'score')
# Detectors may reach a little over the edge; numbers beyond this are pixels.
LARGEST_COORDINATE = 2.0


class DetectionTable(NamedTuple):
  """One row a box and class, in the order of the file, which decides between equal scores."""

  videos: np.ndarray  # (N,) str
  timestamps: np.ndarray  # (N,) int64
  boxes: np.ndarray  # (N, 4) float64, normalised xyxy
  action_ids: np.ndarray  # (N,) int64, from 1
  scores: np.ndarray  # (N,) float64


def table_of_boxes(
  videos: Sequence[str],  # N
  timestamps: Sequence[int],  # N
  boxes: np.ndarray,  # (N, 4) normalised xyxy
  scores: np.ndarray,  # (N, A)
) -> DetectionTable:
  """Boxes with a score for every class -> N * A rows, box by box, action ids 1 to A."""
  num_boxes, num_actions = scores.shape
  return DetectionTable(
    videos=np.repeat(np.asarray(videos, str), num_actions),
    timestamps=np.repeat(np.asarray(timestamps, np.int64), num_actions),
    boxes=np.repeat(boxes, num_actions, axis=0),
    action_ids=np.tile(np.arange(1, num_actions + 1), num_boxes),
    scores=scores.reshape(-1),
  )


def write_detections(
  path: str | os.PathLike, tables: DetectionTable | Iterable[DetectionTable]
) -> int:
  """Writes one table, or several one after the other, and returns the number of rows.

  Nine digits keep every float32 exactly. The file appears under its name only when it is whole.
  """
  path = Path(path)
  tables = [tables] if isinstance(tables, DetectionTable) else tables
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.partial')
  path.parent.mkdir(parents=True, exist_ok=True)
  num_rows = 0
  try:
    with open(temporary, 'w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      for table in tables:
        writer.writerows(_text_rows(table))
        num_rows += len(table.scores)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return num_rows


def _text_rows(table: DetectionTable) -> Iterator[tuple]:
  columns = (table.videos, table.timestamps, table.boxes, table.action_ids, table.scores)
  rows = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
  for video, timestamp, box, action_id, score in rows:
    # Four digits, as in AVA's own files; readers take the number, not the text.
    yield video, f'{timestamp:04d}', *(f'{x:.9g}' for x in box), action_id, f'{score:.9g}'


def read_detections(path: str | os.PathLike) -> DetectionTable:
  """Reads a file of this format; empty lines are skipped.

  Raises InputError for a file that cannot be read, and for a bad row, naming file and line.
  """
  rows = list(_parsed_rows(Path(path)))
  videos, timestamps, boxes, action_ids, scores = zip(*rows, strict=True) if rows else [()] * 5
  return DetectionTable(
    videos=np.array(videos, str),
    timestamps=np.array(timestamps, np.int64),
    boxes=np.array(boxes, np.float64).reshape(-1, 4),
    action_ids=np.array(action_ids, np.int64),
    scores=np.array(scores, np.float64),
  )


def _parsed_rows(path: Path) -> Iterator[tuple]:
  try:
    with open(path, encoding='utf-8', newline='') as file:
      reader = csv.reader(file)
      for row in reader:
        if row:
          yield _parse(row, f'{path}, line {reader.line_num}')
  except OSError as error:
    raise InputError(
      f'{path} cannot be read ({error.strerror}); give a file of detections.'
    ) from error
  except UnicodeDecodeError as error:
    raise InputError(f'{path} is not UTF-8 text; give a csv file of detections.') from error
  except csv.Error as error:
    raise InputError(f'{path} is not a csv file ({error}); give a file of detections.') from error


def _parse(row: list[str], place: str) -> tuple:
  if len(row) != len(COLUMNS):
    raise InputError(
      f'{place}: {len(row)} columns instead of {len(COLUMNS)}; write {",".join(COLUMNS)}.'
    )
  timestamp, action_id = (_number(row, i, int, place) for i in (1, 6))
  box = [_number(row, i, float, place) for i in (2, 3, 4, 5)]
  score = _number(row, 7, float, place)
  if not row[0]:
    raise InputError(f'{place}: the video has no name; write it in the first column.')
  if box[2] < box[0] or box[3] < box[1]:
    raise InputError(f'{place}: the box ends before it starts; write x1,y1,x2,y2.')
  if max(map(abs, box)) > LARGEST_COORDINATE:
    raise InputError(
      f'{place}: the box is not normalised; divide x by the width and y by the height of the frame.'
    )
  if action_id < 1:
    raise InputError(f'{place}: action_id is {action_id}, but action ids start at 1.')
  return row[0], timestamp, box, action_id, score


def _number(row: list[str], column: int, kind: type, place: str) -> float:
  try:
    value = kind(row[column])
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    noun = 'a whole number' if kind is int else 'a finite number'
    raise InputError(f'{place}: {COLUMNS[column]} is {row[column]!r}; write {noun}.') from None
  return value
