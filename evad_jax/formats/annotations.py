"""Reads annotation files: the pickles of UCF101-24 and JHMDB, without trusting them, and JSON.

Two families of pickles exist, told apart by their content: the corrected annotations of G. Singh
(`pyannot.pkl`: one dict a video, start and end frame, xywh boxes) and the layout of the ACT
detector (`UCF101v2-GT.pkl`, `JHMDB-GT.pkl`: one dict a column, 1-based frames, xyxy boxes), which
JSON may have, too, with labels as text. The JSON of people's own data is described in `custom.py`.
All become the same `Annotations`.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from evad_jax.errors import InputError
from evad_jax.files import text_files
from evad_jax.files.plain_pickle import load_plain_pickle
from evad_jax.formats import json_annotations, sample_annotations
from evad_jax.formats.annotation_types import (
  Annotations,
  Tube,
  VideoAnnotation,
  checked_tube,
  numbered,
  video_annotation,
)
from evad_jax.formats.problems import Problems

__all__ = ['Annotations', 'Tube', 'VideoAnnotation', 'read_annotations']

UCF101_SIZE = (240, 320)  # height, width in pixels of every frame that pyannot.pkl annotates
# What content of another form raises where it is read.
_UNEXPECTED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


def read_annotations(path: str | os.PathLike, problems: Problems | None = None) -> Annotations:
  """Reads an annotation file of any of these families.

  Args:
    path: of the file; JSON by its suffix `.json`, else a pickle.
    problems: where faults of single tubes and boxes are reported, which are then left out; None
      refuses the file.

  Raises:
    InputError: no such file, not a pickle, something in it that is not plain data (named), a
      layout that is none of these, or a fault and no `problems`.
  """
  is_json = Path(path).suffix.lower() == '.json'
  if is_json:
    content = text_files.read_json(path, json_annotations.NOUN)
  else:
    content = load_plain_pickle(path)
  try:
    return _of_content(content, is_json, problems)
  except InputError as error:
    raise InputError(f'{path}: {error}; correct it, or download the file again') from error


def _of_content(content: Any, is_json: bool, problems: Problems | None) -> Annotations:
  if is_json and json_annotations.is_own(content):
    return json_annotations.read_own(content, problems)
  try:
    if isinstance(content, dict) and 'gttubes' in content:
      return _from_act(content, problems)
    if is_json:
      return sample_annotations.read_sample(content)
    if isinstance(content, dict) and content and all('annotations' in v for v in content.values()):
      videos = {str(n): _from_pyannot(str(n), entry, problems) for n, entry in content.items()}
      return Annotations(videos, None, None, None)
  except InputError:
    raise
  except _UNEXPECTED as error:
    what = f'{type(error).__name__}: {error}'[:200]
    help_too = '; `python -m data_prep.custom --help` shows how JSON must look' * is_json
    raise InputError(f'an annotation has an unexpected form ({what}){help_too}') from error
  raise InputError('is neither laid out like pyannot.pkl nor like UCF101v2-GT.pkl')


def _from_pyannot(name: str, entry: dict, problems: Problems | None) -> VideoAnnotation:
  tubes = []
  for tube in entry['annotations']:
    boxes = np.asarray(tube['boxes']).astype(np.float32)  # unsigned, so x + w would wrap at 256
    boxes[:, 2:] += boxes[:, :2]
    frames = numbered(name, tube['sf'], tube['ef'], boxes)
    tubes += checked_tube(name, int(tube['label']), frames, boxes, problems)
  return video_annotation(name, entry['numf'], *UCF101_SIZE, tubes)


def _from_act(content: dict, problems: Problems | None) -> Annotations:
  videos = {}
  classes = tuple(str(label) for label in content['labels'])
  sizes = content.get('resolution', content.get('resolution_hw'))
  for name in dict.fromkeys([*content['gttubes'], *content['nframes']]):
    by_label, tubes = content['gttubes'].get(name, {}), []
    for label, rows in ((label, rows) for label, some in by_label.items() for rows in some):
      rows = np.asarray(rows, np.float64)
      rows = rows if rows.size else np.zeros((0, 5))
      frames, boxes = rows[:, 0] - 1, rows[:, 1:]
      tubes += checked_tube(str(name), int(label), frames, boxes, problems, len(classes))
    height, width = (0, 0) if sizes is None else sizes[name]
    count = content['nframes'][name]
    videos[str(name)] = video_annotation(str(name), count, height, width, tubes)
  train, test = (
    [[str(name) for name in names] for names in content[key]] if content.get(key) else None
    for key in ('train_videos', 'test_videos')
  )
  return Annotations(videos, classes, train, test)
