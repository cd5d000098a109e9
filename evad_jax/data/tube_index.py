"""Ground-truth tubes of a prepared split, stored beside its records, for video-mAP.

Only splits in which every annotated frame is a keyframe have them: tubes of every n-th frame would
not be the annotated ones. Detections are linked to tubes over all frames of a video, so video-mAP
is computed only where every frame is a keyframe: `every_frame`.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError
from evad_jax.files import array_files
from evad_jax.files.atomic_files import write_arrays
from evad_jax.limits import LARGEST_FRAME


class TrueTube(NamedTuple):
  """One person doing one action, over n keyframes."""

  video: str
  label: int
  frames: np.ndarray  # (n,) int64 frame numbers in the video, increasing
  boxes: np.ndarray  # (n, 4) float32 xyxy in [0, 1]


class TrueTubes(NamedTuple):
  """All tubes of a split."""

  tubes: list[TrueTube]
  trimmed: bool  # videos are trimmed to the action, so only the spatial overlap counts
  every_frame: bool = False  # all frames of the videos are keyframes, annotated or not


def tubes_path(directory: str | os.PathLike, split: str) -> Path:
  """Path of the tubes of a split."""
  return Path(directory) / f'tubes-{split}.npz'


def write_tubes(
  directory: str | os.PathLike,
  split: str,
  tubes: Iterable[TrueTube],
  trimmed: bool,
  every_frame: bool = False,
) -> None:
  """Writes the tubes of a split, atomically."""
  tubes = list(tubes)
  arrays = {
    'video': np.array([tube.video for tube in tubes], np.str_),
    'label': np.array([tube.label for tube in tubes], np.int64),
    'length': np.array([len(tube.frames) for tube in tubes], np.int64),
    'frames': np.concatenate([np.zeros(0, np.int64), *(tube.frames for tube in tubes)]),
    'boxes': np.concatenate([np.zeros((0, 4), np.float32), *(tube.boxes for tube in tubes)]),
    'trimmed': np.array(trimmed),
    'every_frame': np.array(every_frame),
  }
  write_arrays(tubes_path(directory, split), arrays)


def read_tubes(index: RecordIndex) -> TrueTubes | None:
  """Reads the tubes of a split; None where it has none.

  Raises:
    InputError: the file is damaged, or names a video or class that the index does not have.
  """
  path = tubes_path(index.directory, index.split)
  if not path.is_file():
    return None
  again = f'prepare again with `{index.prepare_command}`'
  columns = array_files.read(path, _COLUMNS, {'every_frame': ('b', 0)}, again)
  fault = _fault(columns)
  if fault:
    raise InputError(f'{path}: the tubes are damaged ({fault}); {again}')
  ends = np.cumsum(columns['length'])
  tubes = [
    TrueTube(str(video), int(label), columns['frames'][start:end], columns['boxes'][start:end])
    for video, label, start, end in zip(
      columns['video'], columns['label'], ends - columns['length'], ends, strict=True
    )
  ]
  videos = set(index.record_video.tolist())
  for tube in tubes:
    if tube.video not in videos or not 0 <= tube.label < len(index.classes):
      raise InputError(
        f'{path}: has a tube of class {tube.label} in video {tube.video!r}, which the index does '
        f'not have; {again}'
      )
  every_frame = bool(columns.get('every_frame', False))  # older files lack it
  return TrueTubes(tubes, bool(columns['trimmed']), every_frame)


_COLUMNS = {
  'video': ('U', 1),
  'label': ('iu', 1),
  'length': ('iu', 1),
  'frames': ('iu', 1),
  'boxes': ('f', 2),
  'trimmed': ('b', 0),
}


def _fault(columns: dict[str, np.ndarray]) -> str:
  """Describes a contradiction in the columns; '' where there is none."""
  lengths, frames, boxes = (columns[key] for key in ('length', 'frames', 'boxes'))
  frames = frames.astype(np.int64)
  if not len(columns['video']) == len(columns['label']) == len(lengths):
    return 'video, label and length differ in length'
  if lengths.size and (lengths.min() < 0 or lengths.max() > len(frames)):
    return 'a tube is longer than all frames'
  if lengths.sum(dtype=np.int64) != len(frames) or boxes.shape != (len(frames), 4):
    return 'the number of frames or boxes is not the sum of the lengths'
  if not ((boxes >= 0) & (boxes <= 1)).all():
    return 'a box is not in [0, 1]'
  if frames.size and not (frames.min() >= 0 and frames.max() <= LARGEST_FRAME):
    return 'a frame number is out of range'
  first = np.zeros(len(frames), bool)
  first[np.cumsum(lengths)[:-1][lengths[1:] > 0]] = True
  first[:1] = True
  if not (first | (np.diff(frames, prepend=0) > 0)).all():
    return 'the frames of a tube do not increase'
  return ''
