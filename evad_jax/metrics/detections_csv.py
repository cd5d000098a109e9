"""Detections as a text file in AVA's order of columns, written and read.

    video,timestamp,x1,y1,x2,y2,action_id,score

without a header. Boxes are parts of the frame's width and height; the timestamp is the second for
AVA and the frame number elsewhere; action ids start at 1. A row is one box scored for one class.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax import ava_files, csv_columns
from evad_jax.csv_columns import Lines

COLUMNS = {
  'video': str,
  'timestamp': int,
  'x1': float,
  'y1': float,
  'x2': float,
  'y2': float,
  'action_id': int,
  'score': float,
}


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

  Raises InputError for a file that cannot be read or is empty, and for a bad row, naming its line.
  """
  return read_with_lines(path)[0]


def read_with_lines(path: str | os.PathLike) -> tuple[DetectionTable, Lines]:
  """The same with the lines that the rows came from, for messages."""
  lines = csv_columns.read_lines(path, 'a csv file of detections')
  columns = csv_columns.parse(lines, COLUMNS)
  table = DetectionTable(
    videos=columns['video'],
    timestamps=columns['timestamp'],
    boxes=np.stack([columns[name] for name in ('x1', 'y1', 'x2', 'y2')], axis=1),
    action_ids=columns['action_id'],
    scores=columns['score'],
  )
  ava_files.check_boxes(lines, table.boxes)
  ava_files.check_action_ids(lines, table.action_ids)
  return table, lines
