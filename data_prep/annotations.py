"""Reads the annotation pickles of UCF101-24 and JHMDB, without trusting them.

Two families exist, told apart by their content: the corrected annotations of G. Singh
(`pyannot.pkl`: one dict a video, start and end frame, xywh boxes) and the layout of the ACT
detector (`UCF101v2-GT.pkl`, `JHMDB-GT.pkl`: one dict a column, 1-based frames, xyxy boxes). Both
become the same `Annotations`. A pickle can run any code when it is loaded, so only NumPy arrays and
plain Python values are let through, and what was refused is named.
"""

import collections
import os
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError

UCF101_SIZE = (240, 320)  # height, width in pixels of every frame that pyannot.pkl annotates


class Tube(NamedTuple):
  """One person doing one action, over n frames."""

  label: int
  frames: np.ndarray  # (n,) int64, 0-based, increasing
  boxes: np.ndarray  # (n, 4) float32 xyxy in pixels of the annotation's own resolution


class VideoAnnotation(NamedTuple):
  """All tubes of a video."""

  num_frames: int
  height: int  # of the annotation's resolution, pixels
  width: int
  tubes: list[Tube]


class Annotations(NamedTuple):
  """A whole annotation file."""

  videos: dict[str, VideoAnnotation]  # by 'Class/video_name'
  classes: tuple[str, ...] | None  # in label order; None where the file has no names
  train_videos: list[list[str]] | None  # one list a split; None where the file has no splits
  test_videos: list[list[str]] | None


def read_annotations(path: str | os.PathLike) -> Annotations:
  """Reads either family of annotation pickles.

  Raises:
    InputError: no such file, not a pickle, something in it that is not plain data (named), or a
      layout that is neither of the two.
  """
  content = load_plain_pickle(path)
  try:
    if isinstance(content, dict) and 'gttubes' in content:
      return _from_act(content)
    if isinstance(content, dict) and content and all('annotations' in v for v in content.values()):
      videos = {str(name): _video_from_pyannot(name, entry) for name, entry in content.items()}
      return Annotations(videos, None, None, None)
  except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
    raise InputError(
      f'{path}: an annotation has an unexpected form ({error!r}); download the file again'
    ) from error
  raise InputError(
    f'{path}: is neither laid out like pyannot.pkl nor like UCF101v2-GT.pkl; give one of these'
  )


def _video_from_pyannot(name: str, entry: dict) -> VideoAnnotation:
  tubes = []
  for tube in entry['annotations']:
    boxes = np.asarray(tube['boxes']).astype(np.float32)  # unsigned, so x + w would wrap at 256
    frames = np.arange(int(tube['sf']), int(tube['ef']))
    _check_tube(name, frames, boxes)
    boxes[:, 2:] += boxes[:, :2]
    tubes.append(Tube(int(tube['label']), frames, boxes))
  return VideoAnnotation(int(entry['numf']), *UCF101_SIZE, tubes)


def _from_act(content: dict) -> Annotations:
  videos = {}
  for name, by_label in content['gttubes'].items():
    tubes = []
    for label, rows in ((label, rows) for label, some in by_label.items() for rows in some):
      rows = np.asarray(rows, np.float64)
      frames = rows[:, 0].astype(np.int64) - 1
      _check_tube(name, frames, rows[:, 1:])
      tubes.append(Tube(int(label), frames, rows[:, 1:].astype(np.float32)))
    height, width = (int(side) for side in content['resolution'][name])
    videos[str(name)] = VideoAnnotation(int(content['nframes'][name]), height, width, tubes)
  classes = tuple(str(label) for label in content['labels'])
  train, test = (
    [[str(name) for name in names] for names in content[key]]
    for key in ('train_videos', 'test_videos')
  )
  return Annotations(videos, classes, train, test)


def _check_tube(name: str, frames: np.ndarray, boxes: np.ndarray) -> None:
  if boxes.shape != (len(frames), 4) or not np.isfinite(boxes).all():
    raise ValueError(f'{name}: {len(frames)} frames have boxes of shape {boxes.shape}')
  if len(frames) and (frames[0] < 0 or (np.diff(frames) <= 0).any()):
    raise ValueError(f'{name}: the frames of a tube do not increase from 0')


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
