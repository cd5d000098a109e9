"""Writes and reads detections as a csv file; a row is one box scored for one class.

    AVA       video,timestamp,x1,y1,x2,y2,action_id,score
    elsewhere video,frame,x1,y1,x2,y2,label,score

AVA's boxes are fractions of the frame's width and height, its timestamps are seconds, and its
action ids are those of the label map. Elsewhere boxes are pixels of the annotation, frames start at
1 and labels at 0 (read by `tube_csv`). Written files have a header, which says which of the two
they are; AVA's files are read with or without one.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError
from evad_jax.files import atomic_files
from evad_jax.formats import ava_files, csv_columns
from evad_jax.formats.box_table import BoxTable
from evad_jax.formats.csv_columns import Lines

NOUN = 'a csv file of detections'
COLUMNS = {'video': str, 'timestamp': int, **csv_columns.BOX, 'action_id': int, 'score': float}


class ScoredDetections(NamedTuple):
  """What an evaluation has scored: N boxes, each with a score for all of A classes.

  A table with one row per class would take A times the memory.
  """

  columns: tuple[str, ...]  # names of the eight columns of a file
  videos: np.ndarray  # (N,) str
  timestamps: np.ndarray  # (N,) int64, second or frame number, as the columns say
  boxes: np.ndarray  # (N, 4) float64 xyxy, as the columns say
  class_numbers: np.ndarray  # (A,) int64, action ids or labels
  scores: np.ndarray  # (N, A) float32


def write_detections(path: str | os.PathLike, found: ScoredDetections) -> int:
  """Writes a row for every box and class, box by box, and returns the number of rows.

  Scores have all digits: shortened ones would rank otherwise than those that were scored, where two
  tubes are nearly equal. The write is atomic.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_files.writing(path) as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(found.columns)
    writer.writerows(_text_rows(found))
  return found.scores.size


def _text_rows(found: ScoredDetections) -> Iterator[tuple]:
  numbers = found.class_numbers.tolist()
  columns = (found.videos.tolist(), found.timestamps.tolist(), found.boxes, found.scores)
  rows = zip(*columns, strict=True)
  for video, timestamp, box, scores in rows:
    # Four digits, as in AVA's own files; readers parse the number.
    head = (video, f'{timestamp:04d}', *(f'{x:.9g}' for x in box.tolist()))
    for number, score in zip(numbers, scores.tolist(), strict=True):
      yield *head, number, score


def read_with_lines(path: str | os.PathLike) -> tuple[BoxTable, Lines]:
  """Reads a file of AVA: frames in seconds, normalised boxes, and action ids as labels.

  Also returns the lines that the rows came from, for messages. Empty lines are skipped.

  Raises InputError for a file that cannot be read or is empty, and for a bad row, naming its line.
  """
  lines, kinds = csv_columns.read_lines(path, NOUN), COLUMNS
  heads = csv_columns.header(lines, COLUMNS)
  if heads is not None:
    if 'frame' in heads and 'timestamp' not in heads:
      raise InputError(
        f'{path}: has frame numbers and pixels, not the seconds and normalised boxes of AVA; '
        'score it with --protocol frame or video.'
      )
    kinds = csv_columns.named_columns(lines, heads, COLUMNS)
    lines = csv_columns.without_header(lines, NOUN)
  columns = csv_columns.parse(lines, kinds)
  boxes = np.stack([columns[name] for name in csv_columns.BOX], axis=1)
  ava_files.check_boxes(lines, boxes)
  ava_files.check_action_ids(lines, columns['action_id'])
  frame, label, score, video = (
    columns[name] for name in ('timestamp', 'action_id', 'score', 'video')
  )
  return BoxTable(frame, boxes, label, score, video), lines
