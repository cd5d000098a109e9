"""Reads annotation files: the pickles of UCF101-24 and JHMDB, without trusting them, and JSON.

There are two families of pickles, recognised by their content: the corrected annotations of G.
Singh (`pyannot.pkl`: one dict per video, start and end frame, xywh boxes) and the layout of the ACT
detector (`UCF101v2-GT.pkl`, `JHMDB-GT.pkl`: one dict per column, 1-based frames, xyxy boxes). JSON
may have the latter too, with labels as text. `data_prep/custom.py` describes the JSON of your own
data. All become the same `Annotations`.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from evad_jax import limits
from evad_jax.errors import InputError
from evad_jax.files import text_files
from evad_jax.files.plain_pickle import load_plain_pickle
from evad_jax.formats import json_annotations
from evad_jax.formats.annotation_types import Annotations, Tube, VideoAnnotation
from evad_jax.formats.problems import Problems, complain

UCF101_SIZE = (240, 320)  # height, width in pixels of every frame that pyannot.pkl annotates
# What reading content of another form raises.
_UNEXPECTED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


def read_annotations(path: str | os.PathLike, problems: Problems | None = None) -> Annotations:
  """Reads an annotation file of any of these families.

  Args:
    path: of the file; JSON by its suffix `.json`, else a pickle.
    problems: where faults of single tubes and boxes are reported, which are then left out; None
      rejects the file.

  Raises:
    InputError: no such file, not a pickle, something in it that is not plain data (named), an
      unknown layout, or a fault without `problems`.
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
    first, end = int(tube['sf']), int(tube['ef'])
    if end - first != len(boxes):
      raise InputError(f'{name}: bad tube: frames {first} to {end - 1} have {len(boxes)} boxes')
    tubes += _checked_tube(name, int(tube['label']), np.arange(first, end), boxes, problems)
  return _video(name, entry['numf'], *UCF101_SIZE, tubes)


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
      tubes += _checked_tube(str(name), int(label), frames, boxes, problems, len(classes))
    height, width = (0, 0) if sizes is None else sizes[name]
    count = content['nframes'][name]
    videos[str(name)] = _video(str(name), count, height, width, tubes)
  train, test = (
    [[str(name) for name in names] for names in content[key]] if content.get(key) else None
    for key in ('train_videos', 'test_videos')
  )
  return Annotations(videos, classes, train, test)


def _video(
  name: str, num_frames: int, height: int, width: int, tubes: list[Tube]
) -> VideoAnnotation:
  """The annotation, from a file's numbers; InputError if no video can have them."""
  for what, number, most in (
    ('frames', num_frames, limits.LARGEST_FRAME),
    ('rows of pixels', height, limits.LARGEST_SIDE),
    ('columns of pixels', width, limits.LARGEST_SIDE),
  ):
    if not 0 <= int(number) <= most:
      raise InputError(f'{name}: has {number} {what}, not 0 to {most}')
  return VideoAnnotation(int(num_frames), int(height), int(width), tubes)


def _checked_tube(
  name: str,
  label: int,
  frames: np.ndarray,  # (n,) numbers from 0
  boxes: np.ndarray,  # (n, 4) numbers
  problems: Problems | None,
  num_classes: int = limits.LARGEST_CLASS + 1,
) -> list[Tube]:
  """The tube, with the first row of every frame; none if it is beyond repair."""
  fault = ''
  if not 0 <= label < num_classes:
    fault = f'there is no class {label}; they go from 0 to {num_classes - 1}'
  elif boxes.shape != (len(frames), 4):
    fault = f'{len(frames)} frames have boxes of shape {boxes.shape}'
  elif not (np.abs(boxes) <= limits.LARGEST_COORDINATE).all():
    fault = 'a box is not finite, or beyond any image'
  elif not np.isfinite(frames).all() or (frames % 1 != 0).any():
    fault = 'its frames are not whole numbers'
  elif len(frames) and (frames[0] < 0 or (np.diff(frames) < 0).any()):
    fault = 'its frames do not increase from 0'
  elif len(frames) and frames[-1] > limits.LARGEST_FRAME:
    fault = f'no video has a frame {frames[-1]:.0f}'
  if fault:
    complain(problems, 'bad tube', name, fault, 'left out')
    return []
  first = np.diff(frames, prepend=-1) > 0
  if not first.all():
    fault = f'{(~first).sum()} rows repeat a frame of their tube'
    complain(problems, 'duplicate row', name, fault, 'left out')
  return [Tube(label, frames[first].astype(np.int64), boxes[first])]
