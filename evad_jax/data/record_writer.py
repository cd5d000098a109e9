"""Writes a prepared data set: TFRecord shards, sidecar indices, TFDS metadata, the manifest.

Everything is written under temporary names and renamed when complete, the manifest last, so that
what was half-written is never read as done. The same records give the same bytes in every process,
because maps are serialised in the order of their keys.
"""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from evad_jax.data import example_proto, tfrecord
from evad_jax.data.record_index import INDEX_COLUMNS, MANIFEST, index_name, shard_name
from evad_jax.data.records import Record, check_record
from evad_jax.errors import InputError
from evad_jax.files.atomic_files import temporary, write_arrays, write_json
from evad_jax.files.storage import refuse_address

TFDS_FILES = ('features.json', 'dataset_info.json')


def features_dict(num_classes: int):
  """The tfds.features.FeaturesDict of a record (imports TFDS: about a second)."""
  import tensorflow_datasets as tfds

  tensor = tfds.features.Tensor
  return tfds.features.FeaturesDict(
    {
      'video': tfds.features.Text(),
      'fps': tensor(shape=(), dtype=np.float32),
      'num_frames': tensor(shape=(), dtype=np.int64),
      'height': tensor(shape=(), dtype=np.int64),
      'width': tensor(shape=(), dtype=np.int64),
      'frames': tfds.features.Sequence(tensor(shape=(), dtype=np.bytes_)),
      'frame_numbers': tensor(shape=(None,), dtype=np.int64),
      'keyframes': tensor(shape=(None,), dtype=np.int64),
      'boxes': tensor(shape=(None, 4), dtype=np.float32),
      'box_keyframe': tensor(shape=(None,), dtype=np.int64),
      'labels': tensor(shape=(None, num_classes), dtype=np.uint8),
    }
  )


def serialize(record: Record) -> bytes:
  """The record as a tf.train.Example; the same bytes in every process."""
  message = example_proto.Example()
  feature = message.features.feature
  feature['video'].bytes_list.value.append(record.video.encode('utf-8'))
  feature['fps'].float_list.value.append(record.fps)
  for name in ('num_frames', 'height', 'width'):
    feature[name].int64_list.value.append(getattr(record, name))
  feature['frames'].bytes_list.value.extend(record.frames)
  for name in ('frame_numbers', 'keyframes', 'box_keyframe', 'labels'):
    values = np.asarray(getattr(record, name), np.int64).ravel().tolist()
    feature[name].int64_list.value.extend(values)
  boxes = np.asarray(record.boxes, np.float32)
  feature['boxes'].float_list.value.extend(boxes.ravel().tolist())
  return message.SerializeToString(deterministic=True)


class IndexRows:
  """Makes the sidecar index of records as they are appended to their shards."""

  def __init__(self, num_shards: int):
    self.shard_bytes = [0] * num_shards
    self._rows: dict[str, list] = {key: [] for key in INDEX_COLUMNS if key != 'shard_bytes'}

  def append(self, file: BinaryIO, shard: int, record: Record) -> None:
    """Writes the record at the end of the shard's file, and its row."""
    data = serialize(record)
    footer = tfrecord.footer(data)
    file.writelines((tfrecord.header(data), data, footer))
    rows = self._rows
    rows['example_record'].extend([len(rows['record_shard'])] * len(record.keyframes))
    rows['keyframes'].extend(record.keyframes.tolist())
    rows['record_shard'].append(shard)
    rows['record_offset'].append(self.shard_bytes[shard])
    rows['record_length'].append(len(data))
    rows['record_crc'].append(int.from_bytes(footer, 'little'))
    rows['record_video'].append(record.video)
    rows['record_size'].append((record.height, record.width))
    self.shard_bytes[shard] += tfrecord.HEADER_BYTES + len(data) + tfrecord.FOOTER_BYTES

  def columns(self) -> dict[str, np.ndarray]:
    """The arrays of INDEX_COLUMNS."""
    rows = self._rows | {'shard_bytes': self.shard_bytes}
    kinds = {'record_shard': np.int32, 'record_crc': np.uint32, 'record_size': np.int32}
    kinds['record_video'] = np.str_
    columns = {key: np.array(rows[key], kinds.get(key, np.int64)) for key in INDEX_COLUMNS}
    return columns | {'record_size': columns['record_size'].reshape(-1, 2)}


class RecordWriter:
  """Writes one split; a context manager. Leaving it by an exception leaves nothing behind."""

  def __init__(
    self, directory: str | os.PathLike, name: str, split: str, num_classes: int, num_shards: int
  ):
    """Opens `num_shards` temporary files in `directory`, which is made if need be.

    Args:
      directory: of the data set.
      name, split: lower-case words, as in NAME-SPLIT.tfrecord-00000-of-00004.
      num_classes: A, length of a label row.
      num_shards: at least 1; record i goes to shard i % num_shards.

    Raises:
      InputError: the directory cannot be made.
    """
    self.directory, self.split, self.num_classes = Path(directory), split, num_classes
    make_directory(self.directory)
    names = [shard_name(name, split, shard, num_shards) for shard in range(num_shards)]
    self._paths = [self.directory / shard for shard in names]
    self._files = [open(temporary(path), 'wb') for path in self._paths]  # noqa: SIM115
    self._rows, self._count = IndexRows(num_shards), 0

  def write(self, record: Record) -> None:
    """Appends one record; raises ValueError if it contradicts itself."""
    check_record(record, self.num_classes)
    shard = self._count % len(self._files)
    self._rows.append(self._files[shard], shard, record)
    self._count += 1

  def close(self) -> None:
    """Gives the shards their names, then writes the sidecar index; a second call does nothing."""
    if not self._files:
      return
    self._close_files()
    for path in self._paths:
      temporary(path).replace(path)
    write_arrays(self.directory / index_name(self.split), self._rows.columns())

  def abandon(self) -> None:
    """Deletes what was written."""
    self._close_files()
    for path in self._paths:
      temporary(path).unlink(missing_ok=True)

  def __enter__(self) -> 'RecordWriter':
    """Returns itself."""
    return self

  def __exit__(self, kind, error, traceback) -> None:
    """Closes after success, abandons after an exception."""
    if kind is None:
      self.close()
    else:
      self.abandon()

  def _close_files(self) -> None:
    for file in self._files:
      file.close()
    self._files = []


def make_directory(directory: Path) -> None:
  """Makes a directory for a data set; raises InputError where that cannot be."""
  refuse_address(directory, 'The directory of a data set')
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(
      f'{directory}: cannot be made a directory ({error.strerror}); choose another output'
    ) from error


def write_dataset_metadata(
  directory: str | os.PathLike,
  name: str,
  classes: list[str],
  manifest_extra: dict | None = None,
  *,
  clip_frames: int = 16,
  frame_stride: int = 4,
) -> None:
  """Writes features.json, dataset_info.json and, last, manifest.json, after all splits are closed.

  Args:
    directory: with the shards and indices of at least one split.
    name: of the data set, as given to the writers.
    classes: A names, in label order.
    manifest_extra: further JSON keys, e.g. 'problems'; counts under 'splits' are joined with ours
      (records, examples, videos, bytes).
    clip_frames, frame_stride: the longest clip that the stored frames serve.
  """
  directory, extra = Path(directory), dict(manifest_extra or {})
  indices = {}
  for path in sorted(directory.glob(index_name('*'))):
    with np.load(path, allow_pickle=False) as file:
      indices[path.stem.removeprefix('index-')] = {key: file[key] for key in INDEX_COLUMNS}
  _write_tfds_metadata(directory, name, len(classes), indices)
  given = extra.pop('splits', {})
  splits = {split: given.get(split, {}) | _counts(index) for split, index in indices.items()}
  manifest = {'name': name, 'classes': list(classes), 'clip_frames': clip_frames}
  manifest |= {'frame_stride': frame_stride, 'splits': splits, 'problems': []} | extra
  write_json(directory / MANIFEST, manifest)


def _counts(index: dict[str, np.ndarray]) -> dict[str, int]:
  return {
    'records': len(index['record_shard']),
    'examples': len(index['keyframes']),
    'videos': len(set(index['record_video'].tolist())),
    'bytes': int(index['shard_bytes'].sum()),
  }


def _write_tfds_metadata(directory: Path, name: str, num_classes: int, indices: dict) -> None:
  import tensorflow_datasets as tfds

  template = tfds.core.ShardedFileTemplate(
    data_dir=directory, dataset_name=name, filetype_suffix='tfrecord'
  )
  splits = []
  for split, index in indices.items():
    shards = len(index['shard_bytes'])
    lengths = np.bincount(index['record_shard'], minlength=shards).tolist()
    size = int(index['shard_bytes'].sum())
    shard_template = template.replace(split=split)
    splits.append(
      tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=shard_template
      )
    )
  # TFDS checks the data by reading them with TensorFlow, so that check is left to
  # tests/read_with_tensorflow.py.
  tfds.folder_dataset.write_metadata(
    data_dir=directory, features=features_dict(num_classes), split_infos=splits, check_data=False
  )
