"""Writes a prepared data set: TFRecord shards, sidecar indices, TFDS metadata, the manifest.

Writes are atomic, the manifest comes last, so a partial data set is never taken for a complete one.
A split that is made shard by shard keeps the index of each shard beside it until `join_shards`
joins them. The same records give the same bytes in every process, because maps are serialised in
the order of their keys.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from evad_jax.data import example_proto, tfrecord
from evad_jax.data.record_index import (
  INDEX_COLUMNS,
  MANIFEST,
  OPTIONAL_COLUMNS,
  index_name,
  shard_name,
)
from evad_jax.data.records import Record, check_record
from evad_jax.files import array_files
from evad_jax.files.atomic_files import write_arrays, write_json, writing

TFDS_FILES = ('features.json', 'dataset_info.json')
PART = '.part-'  # prefix of the name of a shard's own index
_PART_COLUMNS = INDEX_COLUMNS | {'about': ('U', 0)}


def features_dict(num_classes: int):
  """The tfds.features.FeaturesDict of a record (importing TFDS takes about a second)."""
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
  """Serialises a record as a tf.train.Example; the same bytes in every process."""
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


class ShardWriter(contextlib.AbstractContextManager):
  """Writes records to shards, to each in turn; a context manager.

  The shards get their names when the block ends without an exception; until then there are only
  temporary files, which an exception deletes.
  """

  def __init__(self, paths: Sequence[Path], num_classes: int):
    """paths: of the shards, whose directory exists; num_classes: A, length of a label row."""
    self.num_classes = num_classes
    self._shard_bytes = [0] * len(paths)
    self._rows: dict[str, list] = {key: [] for key in INDEX_COLUMNS if key != 'shard_bytes'}
    self._open = contextlib.ExitStack()
    self._files = [self._open.enter_context(writing(path, 'wb')) for path in paths]

  def __exit__(self, *exception) -> None:
    """Renames the shards to their names, or deletes them after an exception."""
    self._open.__exit__(*exception)

  def write(self, record: Record) -> None:
    """Appends one record; raises ValueError if it contradicts itself."""
    check_record(record, self.num_classes)
    data, rows = serialize(record), self._rows
    footer, number = tfrecord.footer(data), len(rows['record_shard'])
    shard = number % len(self._files)
    self._files[shard].writelines((tfrecord.header(data), data, footer))
    rows['example_record'].extend([number] * len(record.keyframes))
    rows['keyframes'].extend(record.keyframes.tolist())
    rows['record_shard'].append(shard)
    rows['record_offset'].append(self._shard_bytes[shard])
    rows['record_length'].append(len(data))
    rows['record_crc'].append(int.from_bytes(footer, 'little'))
    rows['record_video'].append(record.video)
    rows['record_size'].append((record.height, record.width))
    self._shard_bytes[shard] += tfrecord.HEADER_BYTES + len(data) + tfrecord.FOOTER_BYTES

  def columns(self) -> dict[str, np.ndarray]:
    """The index of the records written: the arrays of INDEX_COLUMNS."""
    rows = self._rows | {'shard_bytes': self._shard_bytes}
    kinds = {'record_shard': np.int32, 'record_crc': np.uint32, 'record_size': np.int32}
    kinds['record_video'] = np.str_
    columns = {key: np.array(rows[key], kinds.get(key, np.int64)) for key in INDEX_COLUMNS}
    return columns | {'record_size': columns['record_size'].reshape(-1, 2)}


def write_split(
  directory: str | os.PathLike,
  name: str,
  split: str,
  num_classes: int,
  num_shards: int,
  records: Iterable[Record],
) -> None:
  """Writes a split with its index; an exception leaves nothing of it.

  Args:
    directory: of the data set; made where it is missing.
    name, split: lower-case words, as in NAME-SPLIT.tfrecord-00000-of-00004.
    num_classes: A, length of a label row.
    num_shards: at least 1; record i goes to shard i % num_shards.
    records: all, in order.
  """
  directory = Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  names = [shard_name(name, split, shard, num_shards) for shard in range(num_shards)]
  with ShardWriter([directory / name for name in names], num_classes) as writer:
    for record in records:
      writer.write(record)
  join_shards(directory, split, [writer.columns()])


def write_part(shard: Path, columns: dict[str, np.ndarray], about: dict) -> None:
  """Writes the index of a shard beside it, so that the shard survives a killed process.

  From here on the shard counts as complete. `about` (JSON) is stored with it, for `read_part`.
  """
  write_arrays(part_path(shard), columns | {'about': np.array(json.dumps(about))})


def part_path(shard: Path) -> Path:
  """Path of the index of a single shard, while the split is unfinished."""
  return shard.with_name(PART + shard.name)


def read_part(shard: Path) -> tuple[dict[str, np.ndarray], dict] | None:
  """The index columns of a finished shard and its `about`; None if it is not complete."""
  try:
    columns = array_files.read(part_path(shard), _PART_COLUMNS, {}, 'prepare it again')
    about = json.loads(str(columns.pop('about')))
    whole = isinstance(about, dict) and shard.stat().st_size == columns['shard_bytes'][0]
  except (OSError, ValueError, IndexError, RecursionError):  # InputError is a ValueError
    return None
  return (columns, about) if whole else None


def join_shards(directory: Path, split: str, parts: list[dict[str, np.ndarray]]) -> None:
  """Writes the sidecar index of a split from those of its shards, in order.

  parts: INDEX_COLUMNS of each shard, and those of OPTIONAL_COLUMNS that all shards have.
  """
  joined, records = [], 0
  for shard, part in enumerate(parts):
    moved = {
      'record_shard': part['record_shard'] + np.int32(shard),
      'example_record': part['example_record'] + records,
    }
    joined.append(part | moved)
    records += len(part['record_shard'])
  keys = [key for key in (*INDEX_COLUMNS, *OPTIONAL_COLUMNS) if all(key in part for part in joined)]
  columns = {key: np.concatenate([part[key] for part in joined]) for key in keys}
  write_arrays(Path(directory) / index_name(split), columns)


def write_dataset_metadata(
  directory: str | os.PathLike,
  name: str,
  classes: list[str],
  manifest_extra: dict | None = None,
  *,
  clip_frames: int = 16,
  frame_stride: int = 4,
) -> None:
  """Writes features.json, dataset_info.json and, last, manifest.json, once all splits are written.

  Args:
    directory: with the shards and indices of at least one split.
    name: of the data set, as given to the writers.
    classes: A names, in label order.
    manifest_extra: further JSON keys, e.g. 'problems'; entries under 'splits' are merged with ours
      (records, examples, videos, bytes).
    clip_frames, frame_stride: of the longest clip that the stored frames support.
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
  # TFDS would check the data by reading them with TensorFlow; tests/read_with_tensorflow.py does
  # that instead.
  tfds.folder_dataset.write_metadata(
    data_dir=directory, features=features_dict(num_classes), split_infos=splits, check_data=False
  )
