"""The sidecar index of a prepared split: the location of every record and every keyframe.

The directory of a data set (written by `record_writer.py`) holds TFRecord shards, one index per
split, and `manifest.json`, which is written last: without it, nothing counts as prepared.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evad_jax import limits
from evad_jax.data import tfrecord
from evad_jax.errors import InputError
from evad_jax.files import array_files, text_files
from evad_jax.files.storage import fault_of_name, refuse_address
from evad_jax.value_rules import check, mapping, rows, text, whole

MANIFEST = 'manifest.json'
_REQUIRED = ('name', 'classes', 'clip_frames', 'frame_stride', 'splits')  # of the manifest
INDEX_COLUMNS = {
  'shard_bytes': ('iu', 1),
  'record_shard': ('iu', 1),
  'record_offset': ('iu', 1),
  'record_length': ('iu', 1),
  'record_crc': ('iu', 1),
  'record_video': ('U', 1),
  'record_size': ('iu', 2),
  'example_record': ('iu', 1),
  'keyframes': ('iu', 1),
}
# Only data sets of real videos have these, not the synthetic one.
OPTIONAL_COLUMNS = {'record_annotated_size': ('iu', 2), 'annotated': ('b', 1)}


def index_name(split: str) -> str:
  """File name of a split's sidecar index."""
  return f'index-{split}.npz'


def shard_name(name: str, split: str, shard: int, num_shards: int) -> str:
  """File name of one shard, in the pattern of TFDS."""
  return f'{name}-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}'


@dataclass(frozen=True)
class RecordIndex:
  """The location of every record and every keyframe of a split; small, and cheap to pickle."""

  directory: Path
  name: str
  split: str
  classes: list[str]
  clip_frames: int  # of the longest clip that the stored frames support, ...
  frame_stride: int  # ... and its stride
  prepare_command: str
  shard_bytes: np.ndarray  # (shards,) int64
  record_shard: np.ndarray  # (R,) int32
  record_offset: np.ndarray  # (R,) int64, of the header, bytes
  record_length: np.ndarray  # (R,) int64, of the data, bytes
  record_crc: np.ndarray  # (R,) uint32, masked crc32c of the data
  record_video: np.ndarray  # (R,) str
  record_size: np.ndarray  # (R, 2) int32, height and width
  example_record: np.ndarray  # (E,) int64
  keyframes: np.ndarray  # (E,) int64 frame number in the video
  scored_classes: list[str]  # classes that metrics are averaged over; all, unless the manifest says
  timestamp_origin: int = 0  # a timestamp is origin + keyframe // rate:
  timestamp_rate: int = 1  # the frame number, by default
  class_ids: list[int] | None = (
    None  # of the label map, increasing; None where classes have only names
  )
  record_annotated_size: np.ndarray | None = None  # (R, 2) height, width that annotations refer to
  annotated: np.ndarray | None = None  # (E,) bool, seen by annotators; None: all

  @classmethod
  def open(
    cls,
    directory: str | os.PathLike,
    split: str,
    prepare_command: str = 'python -m data_prep.DATASET --output DIRECTORY',
  ) -> 'RecordIndex':
    """Reads the sidecar index of a split; checks that its shards are there and complete.

    Args:
      directory: of the prepared data set.
      split: 'train', 'test', ...
      prepare_command: for messages, so that the user knows what to run.

    Raises:
      InputError: no such directory, a URL instead of one, nothing (or only a part) prepared, a
        shard missing or truncated.
    """
    refuse_address(directory, 'The directory of a data set')
    directory = Path(directory)
    manifest = read_manifest(directory, prepare_command)
    path = directory / index_name(split)
    if split not in manifest['splits'] or not path.is_file():
      have = ', '.join(sorted(manifest['splits'])) or 'none'
      raise InputError(
        f'{directory}: nothing is prepared for split {split!r} (prepared: {have}); '
        f'prepare it with `{prepare_command}`'
      )
    again = f'prepare again with `{prepare_command}`'
    columns = array_files.read(path, INDEX_COLUMNS, OPTIONAL_COLUMNS, again)
    fault = _fault(columns)
    if fault:
      raise InputError(f'{path}: the index is damaged ({fault}); {again}')
    settings = {key: manifest[key] for key in _REQUIRED if key != 'splits'}
    settings['scored_classes'] = manifest.get('scored_classes', manifest['classes'])
    optional = ('timestamp_origin', 'timestamp_rate', 'class_ids')
    settings |= {key: manifest[key] for key in optional if key in manifest}
    index = cls(directory, split=split, prepare_command=prepare_command, **settings, **columns)
    index._check_shards()
    return index

  def __len__(self) -> int:
    """Number of examples (keyframes)."""
    return len(self.example_record)

  @property
  def heights(self) -> np.ndarray:
    """(E,) int32, height of the stored frames, pixels."""
    return self.record_size[self.example_record, 0]

  @property
  def widths(self) -> np.ndarray:
    """(E,) int32, width of the stored frames, pixels."""
    return self.record_size[self.example_record, 1]

  @property
  def annotated_examples(self) -> np.ndarray:
    """(n,) int64, the examples that frame-mAP counts: annotated frames."""
    return np.arange(len(self)) if self.annotated is None else np.flatnonzero(self.annotated)

  @property
  def annotated_sizes(self) -> np.ndarray:
    """(E, 2) height and width that boxes of annotation files refer to; 1 x 1 if normalised."""
    if self.class_ids is not None:  # AVA's files
      return np.ones((len(self), 2), np.int64)
    sizes = self.record_size if self.record_annotated_size is None else self.record_annotated_size
    return sizes[self.example_record]

  @property
  def videos(self) -> np.ndarray:
    """(E,) str, the video of each example."""
    return self.record_video[self.example_record]

  @property
  def timestamps(self) -> np.ndarray:
    """(E,) int64, in the units of the data set's own files: AVA's seconds, else frame numbers."""
    return self.timestamp_origin + self.keyframes // self.timestamp_rate

  def shard_path(self, shard: int) -> Path:
    """The shard's file."""
    return self.directory / shard_name(self.name, self.split, shard, len(self.shard_bytes))

  def _check_shards(self) -> None:
    for shard, expected in enumerate(self.shard_bytes):
      path = self.shard_path(shard)
      if not path.is_file():
        raise InputError(
          f'{path}: shard is missing; copy it again, or prepare with `{self.prepare_command}`'
        )
      if path.stat().st_size != expected:
        raise InputError(
          f'{path}: shard has {path.stat().st_size} bytes where the index says {expected}, so it '
          f'was truncated or replaced; copy it again, or prepare with `{self.prepare_command}`'
        )


def read_manifest(directory: Path, prepare_command: str) -> dict:
  """Reads manifest.json, which is written last: without it, the preparation has not finished."""
  if not directory.is_dir():
    raise InputError(
      f'{directory}: no such directory; prepare the data set with `{prepare_command}`'
    )
  path = directory / MANIFEST
  if not path.is_file():
    raise InputError(
      f'{directory}: nothing is prepared here, or the preparation did not finish '
      f'(no {MANIFEST}); prepare it with `{prepare_command}`'
    )
  manifest = text_files.read_json(path, f'another, or prepare with `{prepare_command}`')
  try:
    check(manifest, _MANIFEST, f'{path}: ')
  except InputError as error:
    raise InputError(f'{error} Prepare again with `{prepare_command}`.') from error
  missing = set(_REQUIRED) - set(manifest)
  if missing:
    raise InputError(
      f'{path}: lacks {", ".join(sorted(missing))}; prepare again with `{prepare_command}`'
    )
  strange = sorted(set(manifest.get('scored_classes', ())) - set(manifest['classes']))
  if strange:
    raise InputError(
      f'{path}: scores {strange[0]!r}, which is not one of its classes; prepare again with '
      f'`{prepare_command}`'
    )
  ids, classes = manifest.get('class_ids'), manifest['classes']
  if ids is not None and len(ids) != len(classes):
    raise InputError(
      f'{path}: has {len(ids)} class_ids for {len(classes)} classes; prepare again with '
      f'`{prepare_command}`'
    )
  return manifest


def _name(value: Any) -> str:
  """Rule for a name that becomes part of file names."""
  good = isinstance(value, str) and '/' not in value and not fault_of_name(value)
  return '' if good else 'a name fit for files'


def _any(value: Any) -> str:
  return ''


def _numbers(value: Any) -> str:
  good = isinstance(value, dict) and all(key.isdecimal() and len(key) < 10 for key in value)
  return mapping(_count)(value) if good else 'counts by number'


_count = whole(0, 2**53)
_MANIFEST = {
  'name': _name,
  'classes': rows(text, 1, limits.LARGEST_CLASS),
  'scored_classes': rows(text, 0, limits.LARGEST_CLASS),
  'class_ids': rows(whole(0, limits.LARGEST_CLASS), 0, limits.LARGEST_CLASS),
  'clip_frames': whole(1, 10**4),
  'frame_stride': whole(1, 10**4),
  'timestamp_origin': whole(0, limits.LARGEST_FRAME),
  'timestamp_rate': whole(1, 10**4),
  'splits': mapping(mapping(_any)),
  'problems': rows(mapping(text), 0, 10**7),
  'label_counts': mapping(mapping(_count)),
  'boxes_per_keyframe': mapping(_numbers),
  'settings': mapping(_any),
  'decoder_versions': mapping(_any),
  'encoder_versions': mapping(_any),
}


def _fault(columns: dict[str, np.ndarray]) -> str:
  """Describes a contradiction in the columns of an index; '' where there is none."""
  count = {key: len(column) for key, column in columns.items()}
  of_records = [key for key in columns if key.startswith('record_')]
  of_examples = [key for key in ('example_record', 'keyframes', 'annotated') if key in columns]
  for keys in (of_records, of_examples):
    if len({count[key] for key in keys}) > 1:
      return f'{" and ".join(keys)} differ in length'
  sizes, shards = columns['record_size'], columns['record_shard']
  if any(columns[key].shape[1] != 2 for key in of_records if key.endswith('_size')):
    return 'sizes are not height and width'
  for key, least, end in (
    ('shard_bytes', 0, 2**62),
    ('record_shard', 0, count['shard_bytes']),
    ('record_offset', 0, 2**61),
    ('record_length', 0, 2**61),
    ('record_crc', 0, 2**32),
    ('record_size', 1, limits.LARGEST_SIDE + 1),
    ('record_annotated_size', 0, limits.LARGEST_SIDE + 1),
    ('example_record', 0, count['record_shard']),
    ('keyframes', 0, limits.LARGEST_FRAME + 1),
  ):
    column = columns.get(key, np.zeros(0))
    if column.size and not (least <= column.min() and column.max() < end):
      return f'{key} goes from {column.min()} to {column.max()}, not from {least} to below {end}'
  if (sizes.prod(axis=1, dtype=np.int64) > limits.LARGEST_AREA).any():
    return f'a frame has more than {limits.LARGEST_AREA} pixels'
  around = tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES
  ends = columns['record_offset'].astype(np.int64) + columns['record_length'] + around
  if (ends > columns['shard_bytes'][shards]).any():
    return 'a record ends beyond its shard'
  return ''
