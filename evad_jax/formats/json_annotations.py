"""Reads annotations in JSON, in the format that `data_prep/custom.py` describes.

An error names its location, as in `kitchen_01: tubes[0]: boxes[3] is not [x1, y1, x2, y2]`.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from evad_jax import limits
from evad_jax.errors import InputError
from evad_jax.files import storage
from evad_jax.formats.annotation_types import Annotations, Tube, VideoAnnotation
from evad_jax.formats.problems import Problems, complain
from evad_jax.value_rules import shown

RATES = (1e-3, 1e4)  # frames a second
NOUN = 'annotations, as `python -m data_prep.custom --help` shows'  # what a file should have been
TIMED_RATE = 30.0  # frames a second of a video whose boxes have times, if the file has no fps

_FILE_KEYS = ('classes', 'videos', 'fps')
_VIDEO_KEYS = (
  *('file', 'split', 'num_frames', 'fps', 'width', 'height', 'normalised', 'tubes', 'boxes'),
)
_TUBE_KEYS, _BOX_KEYS = ('labels', 'start', 'boxes'), ('labels', 'frame', 'time', 'box')


class _Fault(ValueError):
  """A violation of the format; str(error) says which."""


def is_own(content: Any) -> bool:
  """Whether the content of a JSON file should be in this format, not in another known one."""
  return not isinstance(content, dict) or 'classes' in content or 'gttubes' not in content


def read_own(content: Any, problems: Problems | None = None) -> Annotations:
  """The annotations of a JSON file.

  Args:
    content: of the file.
    problems: where faults of single videos, tubes and boxes are reported, which are then left out;
      None rejects the file.

  Raises:
    InputError: not this format, or a fault without `problems`.
  """
  try:
    return _read_file(content, problems)
  except _Fault as fault:
    raise InputError(
      f'{fault}; `python -m data_prep.custom --help` shows how it must look'
    ) from fault


def _read_file(content, problems: Problems | None) -> Annotations:
  _check(content, dict, 'the file')
  _check_keys(content, _FILE_KEYS, 'the file')
  classes, entries = content.get('classes'), content.get('videos')
  _check(classes, list, '"classes"')
  if not classes or not all(isinstance(name, str) for name in classes):
    raise _Fault('"classes" is not a list of names')
  labels = {name: label for label, name in enumerate(classes)}
  if len(labels) < len(classes):
    raise _Fault('"classes" has a name twice')
  if len(classes) > limits.LARGEST_CLASS + 1:
    raise _Fault(f'"classes" has {len(classes)} names, more than {limits.LARGEST_CLASS + 1}')
  _check(entries, dict, '"videos"')
  default_fps = _number(content, 'fps', *RATES) if 'fps' in content else None
  videos, splits = {}, {}
  for name, entry in entries.items():
    try:
      splits.setdefault(_split_of(entry), [])
      _check_name(name, 'its name')
      videos[name] = _read_video(name, entry, labels, default_fps, problems)
      splits[_split_of(entry)].append(name)
    except _Fault as fault:
      complain(problems, 'bad annotation', name, str(fault), 'the video is left out')
  train, test = ([splits[split]] if split in splits else None for split in ('train', 'test'))
  return Annotations(videos, tuple(classes), train, test, splits)


def _check_name(name: str, what: str) -> None:
  fault = storage.fault_of_name(name)
  if fault:
    raise _Fault(f'{what} {name[:100]!r} {fault}; give a path below --videos')


def _split_of(entry) -> str:
  _check(entry, dict, 'its entry')
  split = entry.get('split', 'train')
  if not isinstance(split, str) or not re.fullmatch('[a-z][a-z0-9_]*', split) or split == 'all':
    raise _Fault(f'"split" {split!r} is not a lower-case word such as "train" or "test"')
  return split


def _read_video(
  name: str,
  entry: dict,
  classes: dict[str, int],
  default_fps: float | None,
  problems: Problems | None,
) -> VideoAnnotation:
  """One video; faults of its tubes and boxes are reported, its own raise _Fault.

  classes: labels by name.
  """
  _check_keys(entry, _VIDEO_KEYS, 'its entry')
  if 'file' in entry:
    if not isinstance(entry['file'], str):
      raise _Fault('"file" is not a path')
    _check_name(entry['file'], '"file"')
  fps = _fps(entry, default_fps)

  def labels_of(item: dict) -> list[int]:
    names = item.get('labels', [])
    _check(names, list, '"labels"')
    if not names and ('box' in item or 'boxes' in item):
      raise _Fault('"labels" is empty; name what the person does')
    if not all(isinstance(each, str) for each in names):
      raise _Fault('"labels" are not all names')
    names = dict.fromkeys(names)  # a label that is written twice is still one
    for odd in (each for each in names if each not in classes):
      complain(problems, 'unknown label', name, f'{shown(odd)} is not in "classes"', 'dropped')
    return [classes[each] for each in names if each in classes]

  def items(key: str, read: Callable) -> Iterator:
    found = entry.get(key, [])
    _check(found, list, f'"{key}"')
    for place, item in enumerate(found):
      try:
        _check(item, dict, 'it')
        yield from read(item)
      except _Fault as fault:
        complain(problems, 'bad annotation', name, f'{key}[{place}]: {fault}', 'left out')

  tubes = list(items('tubes', lambda item: _tubes(item, labels_of(item))))
  boxes = list(items('boxes', lambda item: _single_boxes(item, labels_of(item), fps)))
  empty = sorted({int(box.frames[0]) for box in boxes if box.label is None})
  return VideoAnnotation(
    num_frames=_whole(entry, 'num_frames', 0, most=limits.LARGEST_FRAME),
    height=_size(entry)[0],
    width=_size(entry)[1],
    tubes=tubes,
    single_boxes=tuple(box for box in boxes if box.label is not None),
    empty_frames=np.array(empty, np.int64),
    fps=fps,
    file=entry.get('file'),
  )


def _size(entry: dict) -> tuple[int, int]:
  """Height and width that boxes refer to: 1, 1 if normalised, 0, 0 for the video's own."""
  sides = [key for key in ('width', 'height') if key in entry]
  if entry.get('normalised', False):
    if sides:
      raise _Fault('boxes are in pixels of a width and height, or normalised, not both')
    return 1, 1
  if len(sides) == 1:
    raise _Fault(f'{sides[0]} is given alone; give width and height, or neither')
  height, width = (_whole(entry, key, 0, most=limits.LARGEST_SIDE) for key in ('height', 'width'))
  return height, width


def _fps(entry: dict, default: float | None) -> float | None:
  """The rate at which frames are numbered; None: as they are decoded."""
  if 'fps' in entry:
    return _number(entry, 'fps', *RATES)
  boxes = entry.get('boxes', [])
  _check(boxes, list, '"boxes"')
  timed = [isinstance(box, dict) and 'time' in box for box in boxes]
  if default is not None or not any(timed):
    return default
  if not all(timed) or entry.get('tubes'):
    raise _Fault('it has frame numbers and times; "fps" must say at which rate frames are numbered')
  return TIMED_RATE


def _tubes(item: dict, labels: list[int]) -> Iterator[Tube]:
  """One tube per label."""
  _check_keys(item, _TUBE_KEYS, 'it')
  rows = item.get('boxes')
  _check(rows, list, '"boxes"')
  boxes = np.array([_box(row, f'boxes[{place}]') for place, row in enumerate(rows)], np.float32)
  frames = _whole(item, 'start', most=limits.LARGEST_FRAME) + np.arange(len(rows))
  return (Tube(label, frames, boxes.reshape(-1, 4)) for label in labels)


def _single_boxes(item: dict, labels: list[int], fps: float | None) -> Iterator[Tube]:
  """A tube of one frame for every label; one of label None for a frame without people."""
  _check_keys(item, _BOX_KEYS, 'it')
  if ('frame' in item) == ('time' in item):
    raise _Fault('it needs either "frame" or "time"')
  if 'frame' in item:
    frame = _whole(item, 'frame', most=limits.LARGEST_FRAME)
  else:
    frame = math.floor(_number(item, 'time', 0, limits.LARGEST_FRAME) * fps + 0.5)
    if frame > limits.LARGEST_FRAME:
      raise _Fault(f'"time" is {item["time"]!r}, beyond the end of any video')
  frames = np.array([frame], np.int64)
  if 'box' not in item:
    return iter([Tube(None, frames, np.zeros((0, 4), np.float32))])
  box = np.array([_box(item['box'], '"box"')], np.float32)
  return (Tube(label, frames, box) for label in labels)


def _box(row, what: str) -> list[float]:
  numbers = isinstance(row, list) and all(type(x) in (int, float) for x in row)
  most = limits.LARGEST_COORDINATE
  if not numbers or len(row) != 4 or not all(-most <= x <= most for x in row):
    raise _Fault(f'{what} is not [x1, y1, x2, y2]')
  return row


def _whole(entry: dict, key: str, default: int | None = None, *, most: int) -> int:
  value = entry.get(key, default)
  if type(value) is not int or not 0 <= value <= most:
    raise _Fault(f'"{key}" is {shown(value)}, not a whole number from 0 to {most}')
  return value


def _number(entry: dict, key: str, least: float, most: float) -> float:
  value = entry[key]
  if type(value) not in (int, float) or not least <= value <= most:
    raise _Fault(f'"{key}" is {shown(value)}, not a number from {least:g} to {most:g}')
  return float(value)


def _check(value, kind: type, what: str) -> None:
  if not isinstance(value, kind):
    raise _Fault(f'{what} is not {"an object" if kind is dict else "a list"}')


def _check_keys(entry: dict, known: tuple[str, ...], what: str) -> None:
  odd = sorted(set(entry) - set(known))
  if odd:
    raise _Fault(f'{what} has the unknown key {odd[0]!r} (known: {", ".join(known)})')
