"""Writes a split shard by shard, so that whole shards outlive a killed process.

Beside each shard lies its part of the index, until `join_shards` makes the index of the split.
"""

import json
from pathlib import Path

import numpy as np

from evad_jax.data.record_index import INDEX_COLUMNS, OPTIONAL_COLUMNS, index_name
from evad_jax.data.record_writer import IndexRows, check_record
from evad_jax.data.records import Record
from evad_jax.files import array_files
from evad_jax.files.atomic_files import TEMPORARY, flush_to_disk, temporary, write_arrays

_PART = '.part-'
_PART_COLUMNS = INDEX_COLUMNS | {'about': ('U', 0)}


class ShardWriter:
  """Writes one shard and, beside it, its part of the index; a context manager.

  The shard counts once `finish` has returned; until then, and after an exception, there is nothing
  but a temporary file.
  """

  def __init__(self, path: Path, num_classes: int):
    """path: of the shard, whose directory exists; num_classes: A."""
    self.path, self.num_classes = path, num_classes
    self._file = open(temporary(path), 'wb')  # noqa: SIM115
    self._rows = IndexRows(1)

  def write(self, record: Record) -> None:
    """Appends one record; raises ValueError if it contradicts itself."""
    check_record(record, self.num_classes)
    self._rows.append(self._file, 0, record)

  def finish(self, about: dict) -> None:
    """Makes the shard count; `about` (JSON) is kept beside it, for `read_part`."""
    flush_to_disk(self._file)
    self._file.close()
    temporary(self.path).replace(self.path)
    part = self._rows.columns() | {'about': np.array(json.dumps(about))}
    write_arrays(part_path(self.path), part)

  def __enter__(self) -> 'ShardWriter':
    """Returns itself."""
    return self

  def __exit__(self, *exception) -> None:
    """Deletes the temporary file, if it was not finished."""
    self._file.close()
    temporary(self.path).unlink(missing_ok=True)


def part_path(shard: Path) -> Path:
  """The part of the index that belongs to a shard, while the split is not finished."""
  return shard.with_name(_PART + shard.name)


def read_part(shard: Path) -> tuple[dict[str, np.ndarray], dict] | None:
  """The index columns of a finished shard and what was said about it; None if it is not whole."""
  try:
    columns = array_files.read(part_path(shard), _PART_COLUMNS, {}, 'prepare it again')
    about = json.loads(str(columns.pop('about')))
    whole = isinstance(about, dict) and shard.stat().st_size == columns['shard_bytes'][0]
  except (OSError, ValueError, IndexError, RecursionError):  # InputError is a ValueError
    return None
  return (columns, about) if whole else None


def has_parts(directory: Path) -> bool:
  """Whether a directory holds whole shards of an unfinished split."""
  return any(directory.glob(f'{_PART}*'))


def join_shards(directory: Path, split: str, parts: list[dict[str, np.ndarray]]) -> None:
  """Writes the sidecar index of a split from those of its shards, in order.

  parts: INDEX_COLUMNS, and of OPTIONAL_COLUMNS those that all of them have.
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


def delete_unfinished(directory: Path, parts: bool = True) -> None:
  """Deletes temporary files, and with `parts` what is kept beside shards of an unfinished split."""
  for pattern in (f'{TEMPORARY}*', f'{_PART}*')[: 1 + parts]:
    for path in directory.glob(pattern):
      path.unlink()
