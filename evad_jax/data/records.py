"""Reads prepared clips: random access to keyframes and their frames, every byte verified.

A record is a `tf.train.Example` in a TFRecord shard: a run of frames, each stored once, with the
keyframes that need them. An *example* is one keyframe. `record_index.py` locates them,
`record_writer.py` writes them. Nothing here imports TensorFlow, TFDS or JAX.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from evad_jax import limits
from evad_jax.data import example_proto, tfrecord
from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError


class Record(NamedTuple):
  """A run of F frames of one video with K keyframes and M boxes."""

  video: str
  fps: float
  num_frames: int  # of the video
  height: int  # of the stored frames, pixels
  width: int
  frames: list[bytes]  # F JPEG files
  frame_numbers: np.ndarray  # (F,) int64, 0-based index in the video, increasing
  keyframes: np.ndarray  # (K,) int64 frame numbers in the video, increasing
  boxes: np.ndarray  # (M, 4) float32 xyxy, divided by width and height, in [0, 1]
  box_keyframe: np.ndarray  # (M,) int64, index in `keyframes`
  labels: np.ndarray  # (M, A) uint8 multi-hot


class Example(NamedTuple):
  """One keyframe, its boxes, and the stored frames that its clip may need."""

  video: str
  keyframe: int  # frame number in the video
  num_frames: int  # of the video
  height: int
  width: int
  frames: list[bytes]  # F JPEG files
  frame_numbers: np.ndarray  # (F,) int64, increasing
  boxes: np.ndarray  # (M, 4) float32 normalised xyxy of this keyframe
  labels: np.ndarray  # (M, A) uint8


@dataclass
class RecordReader:
  """Random access to the examples of a split; picklable, thread-safe, opens files lazily."""

  index: RecordIndex
  _descriptors: dict[int, int] = field(default_factory=dict, repr=False)

  def __len__(self) -> int:
    """Number of examples (keyframes)."""
    return len(self.index)

  def __getitem__(self, i: int) -> Example:
    """Reads and verifies example i.

    Raises:
      InputError: the shard is truncated, a checksum differs (names shard and offset), the record is
        not as preparation writes it, or it is not the one that the index describes.
      IndexError: i is not in [0, len).
    """
    if not 0 <= i < len(self):
      raise IndexError(f'example {i} of {len(self)}')
    number, keyframe = int(self.index.example_record[i]), int(self.index.keyframes[i])
    record = self.stored(number)
    position = np.searchsorted(record.keyframes, keyframe)
    if keyframe not in record.keyframes[position : position + 1]:
      raise self._wrong(number, f'the index lists keyframe {keyframe}, which it lacks')
    return self._example(record, int(position))

  def read_record(self, record: int) -> Record:
    """Reads record number `record` of the split with all its frames; errors as in `[]`."""
    found = self.stored(record)
    return found._replace(frames=list(found.frames))

  def stored(self, record: int) -> Record:
    """The same, but every frame is copied out of the message each time that it is taken."""
    index = self.index
    shard, offset = int(index.record_shard[record]), int(index.record_offset[record])
    path = index.shard_path(shard)
    data = tfrecord.read_record(
      self._descriptor(shard, path),
      path,
      offset,
      int(index.record_length[record]),
      int(index.record_crc[record]),
    )
    try:
      found = _parsed(data, len(index.classes))
      check_record(found, len(index.classes))
    except (ValueError, IndexError, DecodeError) as error:
      raise self._wrong(record, f'it is not what preparation writes: {error}') from error
    size, video = index.record_size[record].tolist(), str(index.record_video[record])
    if [found.height, found.width] != size or found.video != video:
      raise self._wrong(
        record,
        f'it has {found.height} x {found.width} pixels of {found.video!r}, and the index says '
        f'{size[0]} x {size[1]} of {video!r}',
      )
    return found

  def _wrong(self, record: int, what: str) -> InputError:
    path = self.index.shard_path(int(self.index.record_shard[record]))
    return InputError(
      f'{path}: the record at byte {self.index.record_offset[record]} cannot be used ({what}); '
      f'copy the data set again, or prepare it with `{self.index.prepare_command}`'
    )

  def _example(self, record: Record, position: int) -> Example:
    """Copies only the frames that this keyframe's clip spans out of the message."""
    numbers, keyframe = record.frame_numbers, int(record.keyframes[position])
    clip, stride = self.index.clip_frames, self.index.frame_stride
    first = np.searchsorted(numbers, keyframe - clip // 2 * stride)
    last = np.searchsorted(numbers, keyframe + (clip - 1) // 2 * stride, side='right')
    mine = record.box_keyframe == position
    return Example(
      video=record.video,
      keyframe=keyframe,
      num_frames=record.num_frames,
      height=record.height,
      width=record.width,
      frames=list(record.frames[first:last]),
      frame_numbers=numbers[first:last],
      boxes=record.boxes[mine],
      labels=record.labels[mine],
    )

  def _descriptor(self, shard: int, path: Path) -> int:
    """Opens a shard once; of two threads that race, one closes its descriptor again."""
    if shard not in self._descriptors:
      try:
        opened = os.open(path, os.O_RDONLY)
      except OSError as error:
        raise InputError(
          f'{path}: cannot be opened ({error.strerror}); copy or prepare the data set again'
        ) from error
      if self._descriptors.setdefault(shard, opened) != opened:
        os.close(opened)
    return self._descriptors[shard]

  def __getstate__(self):
    """Pickles no descriptors: a copy in another process opens its own."""
    return {'index': self.index, '_descriptors': {}}

  def close(self) -> None:
    """Closes the files that this process has opened; the next read opens them again."""
    while self._descriptors:
      os.close(self._descriptors.popitem()[1])

  def __del__(self):
    """Closes the files."""
    self.close()


def check_record(record: Record, num_classes: int) -> None:
  """Raises ValueError where the fields contradict each other."""
  boxes, numbers, keyframes = record.boxes, record.frame_numbers, record.keyframes
  rules = {
    'frame_numbers increase, one per frame': len(record.frames) == len(numbers) > 0
    and (np.diff(numbers) > 0).all(),
    'frame_numbers lie in [0, num_frames)': len(numbers) > 0
    and numbers[0] >= 0
    and numbers[-1] < record.num_frames <= limits.LARGEST_FRAME,
    'keyframes increase, all stored': len(keyframes) > 0
    and (np.diff(keyframes) > 0).all()
    and np.isin(keyframes, numbers).all(),
    'boxes are (M, 4) in [0, 1] with an area': boxes.shape == (len(boxes), 4)
    and (boxes >= 0).all()
    and (boxes <= 1).all()
    and (boxes[:, :2] < boxes[:, 2:]).all(),
    'labels are (M, A)': record.labels.shape == (len(boxes), num_classes),
    'box_keyframe are (M,) indices': record.box_keyframe.shape == (len(boxes),)
    and ((record.box_keyframe >= 0) & (record.box_keyframe < len(keyframes))).all(),
  }
  broken = [rule for rule, holds in rules.items() if not holds]
  if broken:
    raise ValueError(f'record of {record.video!r} breaks: {"; ".join(broken)}.')


def _parsed(data: bytes, num_classes: int) -> Record:
  """Parses a record; ValueError, IndexError or DecodeError where the data are none."""
  features = example_proto.Example.FromString(data).features.feature
  labels = _integers(features['labels'])
  if labels.size and not (labels.min() >= 0 and labels.max() <= 1):
    raise ValueError('labels are not 0 or 1')
  return Record(
    video=features['video'].bytes_list.value[0].decode('utf-8'),
    fps=features['fps'].float_list.value[0],
    num_frames=_integer(features['num_frames']),
    height=_integer(features['height']),
    width=_integer(features['width']),
    frames=features['frames'].bytes_list.value,
    frame_numbers=_integers(features['frame_numbers']),
    keyframes=_integers(features['keyframes']),
    boxes=np.array(features['boxes'].float_list.value, np.float32).reshape(-1, 4),
    box_keyframe=_integers(features['box_keyframe']),
    labels=labels.astype(np.uint8).reshape(-1, num_classes),
  )


def _integer(feature) -> int:
  return int(feature.int64_list.value[0])


def _integers(feature) -> np.ndarray:
  return np.array(feature.int64_list.value, np.int64)
