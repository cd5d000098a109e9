"""The sidecar index of a prepared split: where every record and every keyframe lies.

A data set directory (written by `record_writer.py`) holds TFRecord shards, one index a split, and
`manifest.json`, which is written last: without it nothing here counts as prepared.
"""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evad_jax import text_files
from evad_jax.errors import InputError
from evad_jax.storage import refuse_address

MANIFEST = 'manifest.json'
_REQUIRED = ('name', 'classes', 'clip_frames', 'frame_stride', 'splits')  # of the manifest
INDEX_COLUMNS = (
  'shard_bytes',
  'record_shard',
  'record_offset',
  'record_length',
  'record_crc',
  'record_video',
  'record_size',
  'example_record',
  'keyframes',
)
# Of prepared videos alone, not of generated ones.
OPTIONAL_COLUMNS = ('record_annotated_size', 'annotated')


def index_name(split: str) -> str:
  """File name of a split's sidecar index."""
  return f'index-{split}.npz'


def shard_name(name: str, split: str, shard: int, num_shards: int) -> str:
  """File name of one shard; TFDS' own pattern."""
  return f'{name}-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}'


@dataclass(frozen=True)
class RecordIndex:
  """Where every record and every keyframe of a split lies; small, and cheap to pickle."""

  directory: Path
  name: str
  split: str
  classes: list[str]
  clip_frames: int  # the longest clip, and
  frame_stride: int  # its stride, that the stored frames serve
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
  scored_classes: list[str]  # those that figures are averaged over; all, unless the data say which
  timestamp_origin: int = 0  # timestamps are origin + keyframe // rate:
  timestamp_rate: int = 1  # frame numbers, unless the data say otherwise
  class_ids: list[int] | None = (
    None  # of the label map, rising; None where classes have names alone
  )
  record_annotated_size: np.ndarray | None = None  # (R, 2) height, width that annotations refer to
  annotated: np.ndarray | None = None  # (E,) bool, looked at by annotators; None: all

  @classmethod
  def open(
    cls,
    directory: str | os.PathLike,
    split: str,
    prepare_command: str = 'python -m data_prep.DATASET --output DIRECTORY',
  ) -> 'RecordIndex':
    """Reads the sidecar index of a split and checks that its shards are there, whole.

    Args:
      directory: of the prepared data set.
      split: 'train', 'test', ...
      prepare_command: named in messages, so that the user knows what to run.

    Raises:
      InputError: no such directory, an address instead of one, nothing (or only a part) prepared, a
        shard missing or cut.
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
    columns = _read_columns(path, prepare_command)
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
    """(E,) int32, of the stored frames, pixels."""
    return self.record_size[self.example_record, 0]

  @property
  def widths(self) -> np.ndarray:
    """(E,) int32, of the stored frames, pixels."""
    return self.record_size[self.example_record, 1]

  @property
  def annotated_examples(self) -> np.ndarray:
    """(n,) int64, the examples that frame-mAP counts: frames that somebody annotated."""
    return np.arange(len(self)) if self.annotated is None else np.flatnonzero(self.annotated)

  @property
  def annotated_sizes(self) -> np.ndarray:
    """(E, 2) height and width that boxes of annotation files refer to; 1 x 1: normalised boxes."""
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
    """(E,) int64, as the data set's own files count: AVA's seconds, elsewhere frame numbers."""
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
          f'was cut or replaced; copy it again, or prepare with `{self.prepare_command}`'
        )


def read_manifest(directory: Path, prepare_command: str) -> dict:
  """manifest.json, which is written last: without it the preparation has not finished."""
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
  missing = set(_REQUIRED) - set(manifest if isinstance(manifest, dict) else ())
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
  return manifest


def _read_columns(path: Path, prepare_command: str) -> dict[str, np.ndarray]:
  """The arrays of a sidecar index, by the names that RecordIndex has for them."""
  try:
    with np.load(path, allow_pickle=False) as file:
      return {
        key: file[key]
        for key in (*INDEX_COLUMNS, *OPTIONAL_COLUMNS)
        if key in file or key in INDEX_COLUMNS
      }
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise InputError(
      f'{path}: the index is damaged ({error}); prepare again with `{prepare_command}`'
    ) from error
