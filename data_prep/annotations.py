"""Reads annotation files: the pickles of UCF101-24 and JHMDB, without trusting them, and JSON.

Two families of pickles exist, told apart by their content: the corrected annotations of G. Singh
(`pyannot.pkl`: one dict a video, start and end frame, xywh boxes) and the layout of the ACT
detector (`UCF101v2-GT.pkl`, `JHMDB-GT.pkl`: one dict a column, 1-based frames, xyxy boxes). The
JSON format is described in `custom.py`. All become the same `Annotations`. A pickle can run any
code when it is loaded, so only NumPy arrays and plain Python values are let through, and what was
refused is named.
"""

import collections
import os
import pickle
from pathlib import Path

import numpy as np

from data_prep import json_annotations
from data_prep.problems import Problems, complain
from data_prep.tubes import Annotations, Tube, VideoAnnotation
from evad_jax.errors import InputError

__all__ = ['Annotations', 'Tube', 'VideoAnnotation', 'load_plain_pickle', 'read_annotations']

UCF101_SIZE = (240, 320)  # height, width in pixels of every frame that pyannot.pkl annotates


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
  if Path(path).suffix.lower() == '.json':
    return json_annotations.read_json(path, problems)
  content = load_plain_pickle(path)
  try:
    if isinstance(content, dict) and 'gttubes' in content:
      return _from_act(content, problems)
    if isinstance(content, dict) and content and all('annotations' in v for v in content.values()):
      videos = {str(n): _from_pyannot(str(n), entry, problems) for n, entry in content.items()}
      return Annotations(videos, None, None, None)
  except InputError as error:
    raise InputError(f'{path}: {error}; correct it, or download the file again') from error
  except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
    raise InputError(
      f'{path}: an annotation has an unexpected form ({error!r}); download the file again'
    ) from error
  raise InputError(
    f'{path}: is neither laid out like pyannot.pkl nor like UCF101v2-GT.pkl; give one of these'
  )


def _from_pyannot(name: str, entry: dict, problems: Problems | None) -> VideoAnnotation:
  tubes = []
  for tube in entry['annotations']:
    boxes = np.asarray(tube['boxes']).astype(np.float32)  # unsigned, so x + w would wrap at 256
    boxes[:, 2:] += boxes[:, :2]
    frames = np.arange(int(tube['sf']), int(tube['ef']))
    tubes += _checked_tube(name, int(tube['label']), frames, boxes, problems)
  return VideoAnnotation(int(entry['numf']), *UCF101_SIZE, tubes)


def _from_act(content: dict, problems: Problems | None) -> Annotations:
  videos = {}
  for name, by_label in content['gttubes'].items():
    tubes = []
    for label, rows in ((label, rows) for label, some in by_label.items() for rows in some):
      rows = np.asarray(rows, np.float64)
      frames, boxes = rows[:, 0].astype(np.int64) - 1, rows[:, 1:].astype(np.float32)
      tubes += _checked_tube(str(name), int(label), frames, boxes, problems)
    height, width = (int(side) for side in content['resolution'][name])
    videos[str(name)] = VideoAnnotation(int(content['nframes'][name]), height, width, tubes)
  classes = tuple(str(label) for label in content['labels'])
  train, test = (
    [[str(name) for name in names] for names in content[key]]
    for key in ('train_videos', 'test_videos')
  )
  return Annotations(videos, classes, train, test)


def _checked_tube(
  name: str, label: int, frames: np.ndarray, boxes: np.ndarray, problems: Problems | None
) -> list[Tube]:
  """The tube, of every frame its first row; or none, if it is beyond repair."""
  fault = ''
  if boxes.shape != (len(frames), 4):
    fault = f'{len(frames)} frames have boxes of shape {boxes.shape}'
  elif not np.isfinite(boxes).all():
    fault = 'a box is not finite'
  elif len(frames) and (frames[0] < 0 or (np.diff(frames) < 0).any()):
    fault = 'its frames do not increase from 0'
  if fault:
    complain(problems, 'bad tube', name, fault, 'left out')
    return []
  first = np.diff(frames, prepend=-1) > 0
  if not first.all():
    fault = f'{(~first).sum()} rows repeat a frame of their tube'
    complain(problems, 'duplicate row', name, fault, 'left out')
  return [Tube(label, frames[first], boxes[first])]


def load_plain_pickle(path: str | os.PathLike):
  """Unpickles NumPy arrays, Python containers and scalars, and refuses all else by name.

  Text of Python 2 is read as latin-1.

  Raises:
    InputError: no such file, not a whole pickle, or something in it that was refused.
  """
  try:
    with open(path, 'rb') as file:
      return _PlainUnpickler(file, Path(path)).load()
  except InputError:
    raise
  except OSError as error:
    raise InputError(
      f'{path}: the annotations cannot be read ({error.strerror}); check the path'
    ) from error
  except Exception as error:  # bytes that are no pickle raise almost anything
    raise InputError(
      f'{path}: is not a whole pickle file ({error!r}); download it again'
    ) from error


def _latin1_bytes(text: str, encoding: str) -> bytes:
  """How protocol 2 spells bytes; any other codec has no place in data."""
  if encoding not in ('latin1', 'latin-1'):
    raise InputError(f'the pickle asks for the codec {encoding!r}, which plain data do not need')
  return text.encode('latin1')


_ARRAY, _SCALAR = np.zeros(0), np.float64(0)
_MULTIARRAY = {'_reconstruct': _ARRAY.__reduce__()[0], 'scalar': _SCALAR.__reduce__()[0]}
_FROM_BUFFER = {'_frombuffer': np.zeros(1).__reduce_ex__(5)[0]}
_PLAIN_TYPES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
_BUILTINS = {kind.__name__: kind for kind in _PLAIN_TYPES}
_PYTHON_2 = {'unicode': str, 'long': int}
_ALLOWED = {
  'numpy': {'ndarray': np.ndarray, 'dtype': np.dtype},
  'numpy.core.multiarray': _MULTIARRAY,  # NumPy 1
  'numpy._core.multiarray': _MULTIARRAY,  # NumPy 2
  'numpy.core.numeric': _FROM_BUFFER,
  'numpy._core.numeric': _FROM_BUFFER,
  'builtins': _BUILTINS,
  '__builtin__': _BUILTINS | _PYTHON_2,
  'collections': {
    'OrderedDict': collections.OrderedDict,
    'defaultdict': collections.defaultdict,
  },
  '_codecs': {'encode': _latin1_bytes},
}


class _PlainUnpickler(pickle.Unpickler):
  """An unpickler that finds nothing but what `_ALLOWED` lists."""

  def __init__(self, file, path: Path):
    super().__init__(file, encoding='latin1')
    self._path = path

  def find_class(self, module: str, name: str):
    """The allowed object of that name."""
    try:
      return _ALLOWED[module][name]
    except KeyError:
      raise InputError(
        f'{self._path}: the pickle asks for {module}.{name}, which is not plain data, so it was '
        f'not loaded; take the file from its publisher and do not trust this one'
      ) from None
