"""Prepared clips on disk: random access to keyframes and their frames, every byte checked.

A record is a `tf.train.Example` in a TFRecord shard: a run of frames, stored once, with the
keyframes that need them. An *example* is one keyframe. `record_index.py` knows where they lie,
`record_writer.py` wrote them. Nothing here imports TensorFlow, TFDS or JAX.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax.data import example_proto, tfrecord
from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError


class Record(NamedTuple):
  """A run of F frames of one video with K keyframes and M boxes."""

  video: str
  fps: float
  num_frames: int  # of the whole video
  height: int  # of the stored frames, pixels
  width: int
  frames: list[bytes]  # F JPEG files
  frame_numbers: np.ndarray  # (F,) int64, 0-based place in the video, increasing
  keyframes: np.ndarray  # (K,) int64 frame numbers in the video, increasing
  boxes: np.ndarray  # (M, 4) float32 xyxy, divided by width and height, in [0, 1]
  box_keyframe: np.ndarray  # (M,) int64, position in `keyframes`
  labels: np.ndarray  # (M, A) uint8 multi-hot


class Example(NamedTuple):
  """One keyframe, its boxes, and the stored frames that its clip can need."""

  video: str
  keyframe: int  # frame number in the video
  num_frames: int  # of the whole video
  height: int
  width: int
  frames: list[bytes]  # F JPEG files
  frame_numbers: np.ndarray  # (F,) int64, increasing
  boxes: np.ndarray  # (M, 4) float32 normalised xyxy of this keyframe
  labels: np.ndarray  # (M, A) uint8


@dataclass
class RecordReader:
  """Random access to the examples of a split; picklable, safe in threads, files opened lazily."""

  index: RecordIndex
  _descriptors: dict[int, int] = field(default_factory=dict, repr=False)

  def __len__(self) -> int:
    """Number of examples (keyframes)."""
    return len(self.index)

  def __getitem__(self, i: int) -> Example:
    """Example i, read and verified.

    Raises:
      InputError: the shard is cut, or a checksum differs (names shard and offset).
      IndexError: i is not in [0, len).
    """
    if not 0 <= i < len(self):
      raise IndexError(f'example {i} of {len(self)}')
    features = self._features(int(self.index.example_record[i]))
    return self._example(features, int(self.index.keyframes[i]))

  def read_record(self, record: int) -> Record:
    """Record number `record` of the split, whole."""
    features = self._features(record)
    return Record(
      video=_text(features['video']),
      fps=features['fps'].float_list.value[0],
      num_frames=_integer(features['num_frames']),
      height=_integer(features['height']),
      width=_integer(features['width']),
      frames=list(features['frames'].bytes_list.value),
      frame_numbers=_integers(features['frame_numbers']),
      keyframes=_integers(features['keyframes']),
      boxes=_floats(features['boxes']).reshape(-1, 4),
      box_keyframe=_integers(features['box_keyframe']),
      labels=self._labels(features),
    )

  def _features(self, record: int):
    """The parsed features of a record, name -> Feature message."""
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
    return example_proto.Example.FromString(data).features.feature

  def _example(self, features, keyframe: int) -> Example:
    """Only the frames that this keyframe's clip spans are copied out of the message."""
    numbers = _integers(features['frame_numbers'])
    clip, stride = self.index.clip_frames, self.index.frame_stride
    first = np.searchsorted(numbers, keyframe - clip // 2 * stride)
    last = np.searchsorted(numbers, keyframe + (clip - 1) // 2 * stride, side='right')
    position = np.searchsorted(_integers(features['keyframes']), keyframe)
    mine = _integers(features['box_keyframe']) == position
    return Example(
      video=_text(features['video']),
      keyframe=keyframe,
      num_frames=_integer(features['num_frames']),
      height=_integer(features['height']),
      width=_integer(features['width']),
      frames=list(features['frames'].bytes_list.value[first:last]),
      frame_numbers=numbers[first:last],
      boxes=_floats(features['boxes']).reshape(-1, 4)[mine],
      labels=self._labels(features)[mine],
    )

  def _labels(self, features) -> np.ndarray:
    return _integers(features['labels']).astype(np.uint8).reshape(-1, len(self.index.classes))

  def _descriptor(self, shard: int, path: Path) -> int:
    """Opened once; two threads that race leave one descriptor unused but nothing wrong."""
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
    """Descriptors belong to one process: a copy opens its own."""
    return {'index': self.index, '_descriptors': {}}

  def close(self) -> None:
    """Closes the files that this process has opened; reading again opens them again."""
    while self._descriptors:
      os.close(self._descriptors.popitem()[1])

  def __del__(self):
    """Closes the files."""
    self.close()


def _text(feature) -> str:
  return feature.bytes_list.value[0].decode('utf-8')


def _integer(feature) -> int:
  return int(feature.int64_list.value[0])


def _integers(feature) -> np.ndarray:
  return np.array(feature.int64_list.value, np.int64)


def _floats(feature) -> np.ndarray:
  return np.array(feature.float_list.value, np.float32)
