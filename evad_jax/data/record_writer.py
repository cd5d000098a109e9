"""Writes a prepared data set: TFRecord shards, sidecar indices, TFDS metadata, the manifest.

Everything is written under temporary names and renamed when complete, the manifest last, so that
what was half-written is never read as done. The same records give the same bytes in every process:
maps are serialised in the order of their keys, and record i goes to shard i % num_shards.
"""

import json
import os
from pathlib import Path

import numpy as np

from evad_jax.data import example_proto, tfrecord
from evad_jax.data.record_index import INDEX_COLUMNS, MANIFEST, index_name, shard_name
from evad_jax.data.records import Record
from evad_jax.errors import InputError

_TEMPORARY = '.writing-'
_TFDS_FILES = ('features.json', 'dataset_info.json')


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


def check_record(record: Record, num_classes: int) -> None:
  """Raises ValueError if the fields contradict each other (a defect of the preparation)."""
  boxes, numbers, keyframes = record.boxes, record.frame_numbers, record.keyframes
  rules = {
    'frame_numbers increase, one a frame': len(record.frames) == len(numbers) > 0
    and (np.diff(numbers) > 0).all(),
    'frame_numbers lie in [0, num_frames)': numbers[0] >= 0 and numbers[-1] < record.num_frames,
    'keyframes increase, all stored': len(keyframes) > 0
    and (np.diff(keyframes) > 0).all()
    and np.isin(keyframes, numbers).all(),
    'boxes are (M, 4) in [0, 1] with an area': boxes.shape == (len(boxes), 4)
    and (boxes >= 0).all()
    and (boxes <= 1).all()
    and (boxes[:, :2] < boxes[:, 2:]).all(),
    'labels are (M, A)': record.labels.shape == (len(boxes), num_classes),
    'box_keyframe are (M,) positions': record.box_keyframe.shape == (len(boxes),)
    and ((record.box_keyframe >= 0) & (record.box_keyframe < len(keyframes))).all(),
  }
  broken = [rule for rule, holds in rules.items() if not holds]
  if broken:
    raise ValueError(f'record of {record.video!r} breaks: {"; ".join(broken)}.')


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
      num_shards: at least 1.

    Raises:
      InputError: the directory cannot be made.
    """
    self.directory, self.name, self.split = Path(directory), name, split
    self.num_classes = num_classes
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(
        f'{directory}: cannot be made a directory ({error.strerror}); choose another output'
      ) from error
    names = [shard_name(name, split, shard, num_shards) for shard in range(num_shards)]
    self._paths = [self.directory / shard for shard in names]
    self._files = [open(self._temporary(path), 'wb') for path in self._paths]  # noqa: SIM115
    self._offsets = [0] * num_shards
    self._rows: dict[str, list] = {key: [] for key in INDEX_COLUMNS}

  def write(self, record: Record) -> None:
    """Appends one record; raises ValueError if it contradicts itself."""
    check_record(record, self.num_classes)
    data = serialize(record)
    number = len(self._rows['record_shard'])
    shard = number % len(self._files)
    footer = tfrecord.footer(data)
    self._files[shard].writelines((tfrecord.header(data), data, footer))
    self._rows['record_shard'].append(shard)
    self._rows['record_offset'].append(self._offsets[shard])
    self._rows['record_length'].append(len(data))
    self._rows['record_crc'].append(int.from_bytes(footer, 'little'))
    self._rows['record_video'].append(record.video)
    self._rows['record_size'].append((record.height, record.width))
    self._rows['example_record'].extend([number] * len(record.keyframes))
    self._rows['keyframes'].extend(record.keyframes.tolist())
    self._offsets[shard] += tfrecord.HEADER_BYTES + len(data) + tfrecord.FOOTER_BYTES

  def close(self) -> None:
    """Gives the shards their names, then writes the sidecar index; a second call does nothing."""
    if not self._files:
      return
    self._close_files()
    for path in self._paths:
      self._temporary(path).replace(path)
    path = self.directory / index_name(self.split)
    with open(self._temporary(path), 'wb') as file:
      np.savez(file, **self._columns())
    self._temporary(path).replace(path)

  def abandon(self) -> None:
    """Deletes what was written."""
    self._close_files()
    for path in self._paths:
      self._temporary(path).unlink(missing_ok=True)

  def __enter__(self) -> 'RecordWriter':
    """Returns itself."""
    return self

  def __exit__(self, kind, error, traceback) -> None:
    """Closes after success, abandons after an exception."""
    if kind is None:
      self.close()
    else:
      self.abandon()

  def _columns(self) -> dict[str, np.ndarray]:
    kinds = {'record_shard': np.int32, 'record_crc': np.uint32, 'record_size': np.int32}
    columns = {
      key: np.array(rows, kinds.get(key, np.str_ if key == 'record_video' else np.int64))
      for key, rows in self._rows.items()
    }
    columns['record_size'] = columns['record_size'].reshape(-1, 2)
    return columns | {'shard_bytes': np.array(self._offsets, np.int64)}

  def _close_files(self) -> None:
    for file in self._files:
      file.close()
    self._files = []

  def _temporary(self, path: Path) -> Path:
    return path.with_name(_TEMPORARY + path.name)


def claim_directory(directory: str | os.PathLike, name: str, overwrite: bool) -> None:
  """Makes sure that a data set can be written to a directory.

  Args:
    directory: new, empty, or with `overwrite` one that holds this data set.
    name: of the data set.
    overwrite: delete what this module wrote there, the manifest first; anything else is left alone.

  Raises:
    InputError: it holds something and `overwrite` is False, or is no directory.
  """
  directory = Path(directory)
  if directory.exists() and not directory.is_dir():
    raise InputError(f'{directory}: is a file; choose another output directory')
  if directory.is_dir() and any(directory.iterdir()) and not overwrite:
    state = 'holds a prepared data set' if (directory / MANIFEST).exists() else 'is not empty'
    raise InputError(f'{directory}: {state}; pass --overwrite or choose another output directory')
  shards = f'{name}-*.tfrecord-*-of-*'
  for pattern in (MANIFEST, 'index-*.npz', shards, f'{_TEMPORARY}*', *_TFDS_FILES):
    for path in directory.glob(pattern):
      path.unlink()


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
  temporary = directory / (_TEMPORARY + MANIFEST)
  temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
  temporary.replace(directory / MANIFEST)


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
