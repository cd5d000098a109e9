"""The directory of a data set: its owner, its unfinished preparation, and how it is replaced.

During a preparation, PROGRESS holds the fingerprint of its plan; at the end, the manifest replaces
it. A complete data set is replaced only by a complete one: the new one is written to the directory
STAGING inside the old one's, and moved over the old one once its manifest is there. If the process
is killed while it moves files, the next one finishes.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from evad_jax.data.record_index import MANIFEST
from evad_jax.data.record_writer import PART, TFDS_FILES
from evad_jax.errors import InputError
from evad_jax.files import directory_lock, storage, text_files
from evad_jax.files.atomic_files import TEMPORARY, write_json

STAGING = '.replacement'
PROGRESS = '.preparation.json'  # of an unfinished preparation
_SHARD = re.compile(r'([^.].*)-[^-]+\.tfrecord-\d{5,}-of-\d{5,}')  # group 1: name of the data set


@contextlib.contextmanager
def alone_in(directory: str | os.PathLike, name: str) -> Iterator[bool]:
  """Locks the directory of a data set against other preparations; makes it where it is missing.

  Yields whether a killed process had left a complete replacement, which is now moved in.

  Raises:
    InputError: the directory cannot be made or written to, another process prepares there, it holds
      files of a data set other than `name`, or files of unknown origin that would be replaced.
  """
  storage.refuse_address(directory, 'The directory of a data set')
  directory = Path(directory)
  with directory_lock.held(directory, 'preparing a data set', 'another output directory'):
    _check_owner(directory, name)
    yield settle(directory, name)


def _check_owner(directory: Path, name: str) -> None:
  shards = {found[1] for path in directory.iterdir() if (found := _SHARD.fullmatch(path.name))}
  others, ours = sorted(shards - {name}), name in shards
  if (directory / MANIFEST).exists():
    manifest = None
    with contextlib.suppress(InputError):  # a damaged manifest is reported elsewhere
      manifest = text_files.read_json(directory / MANIFEST, 'a manifest')
    named = manifest.get('name') if isinstance(manifest, dict) else None
    if named != name and isinstance(named, str):
      others.insert(0, named)
    ours |= named == name
  if others:
    raise InputError(
      f'{directory}: holds the data set {others[0]!r}, which {name!r} does not replace; choose '
      'another output directory, or delete it first'
    )
  strange = [] if ours else _files(directory, name)
  if strange:
    raise InputError(
      f'{strange[0]}: does not belong to the data set {name!r}, which would replace it; choose '
      'another output directory, or move the file away'
    )


def claim(directory: Path, name: str, fingerprint: dict[str, dict], overwrite: bool) -> Path:
  """Claims a directory for a plan, keeps what the plan has already written, returns where to write.

  Where a complete data set is to be replaced, that is a directory inside.

  Args:
    directory: that this process is `alone_in`.
    name: of the data set.
    fingerprint: of the plan, JSON.
    overwrite: delete files of the data set that come from another plan; all other files stay.

  Raises:
    InputError: the directory holds something else, which must not be deleted.
  """
  place = directory
  if (directory / MANIFEST).exists():
    place = directory / STAGING
    place.mkdir(exist_ok=True)
  path = place / PROGRESS
  started = _started(path, overwrite) if path.is_file() else None
  if started == fingerprint:
    _delete(place, TEMPORARY)
    return place
  if started is None and not overwrite:
    others = {path.name for path in place.iterdir()} - {directory_lock.NAME, STAGING}
    if not all(other.startswith(TEMPORARY) for other in others):
      raise InputError(
        f'{directory}: is not empty; pass --overwrite or choose another output directory'
      )
  if started is not None and not overwrite and any(place.glob(f'{PART}*')):
    raise InputError(
      f'{directory}: holds a part of another plan ({differences(started, fingerprint)}); use its '
      'arguments to resume it, pass --overwrite to replace it, or choose another '
      'output directory'
    )
  for file in _files(place, name):
    file.unlink()
  _delete(place, TEMPORARY, PART)
  write_json(path, fingerprint)
  return place


def _started(path: Path, overwrite: bool) -> dict:
  """The fingerprint of the unfinished plan; {} where it is damaged and may be overwritten."""
  try:
    started = text_files.read_json(path, 'another output directory, or pass --overwrite')
  except InputError:
    if not overwrite:
      raise
    started = None
  return started if isinstance(started, dict) else {}


def differences(old: dict, new: dict[str, dict]) -> str:
  """Describes how a fingerprint (or a manifest that contains one) differs from a new one."""
  told = []
  for part, values in new.items():
    was = old.get(part, {})
    changed = [key for key, value in values.items() if was.get(key) != value]
    if part == 'fingerprint':
      told += [f'other {key}' for key in changed]
    else:
      told += [f'{key} {was.get(key)} there, {values[key]} now' for key in changed]
  return '; '.join(told)


def finish(directory: Path, name: str) -> None:
  """Once the manifest of a claimed directory is written: tidies, and replaces the old data set."""
  if not settle(directory, name):
    tidy(directory)


def replace(directory: Path, name: str) -> None:
  """Moves the complete data set in STAGING over the one in the directory."""
  staging = directory / STAGING
  if (directory / MANIFEST).exists():
    new = {path.name for path in staging.iterdir()}
    for path in reversed(_files(directory, name)):
      if path.name not in new:
        path.unlink()
    (directory / MANIFEST).unlink()  # from here on every file is new, or will be replaced
  for path in staging.iterdir():
    if path.name != MANIFEST:
      path.replace(directory / path.name)
  (staging / MANIFEST).replace(directory / MANIFEST)
  shutil.rmtree(staging)


def _files(directory: Path, name: str) -> list[Path]:
  """The files of a data set, the manifest first."""
  patterns = MANIFEST, 'index-*.npz', 'tubes-*.npz', f'{name}-*.tfrecord-*-of-*', *TFDS_FILES
  return [path for pattern in patterns for path in sorted(directory.glob(pattern))]


def settle(directory: Path, name: str) -> bool:
  """Moves a complete replacement over the old data set; returns whether there was one."""
  staging = directory / STAGING
  if not (staging / MANIFEST).is_file():
    return False
  tidy(staging)
  replace(directory, name)
  return True


def tidy(directory: Path) -> None:
  """Deletes what only an unfinished preparation needs."""
  _delete(directory, TEMPORARY, PART)
  (directory / PROGRESS).unlink(missing_ok=True)


def _delete(directory: Path, *beginnings: str) -> None:
  for beginning in beginnings:
    for path in directory.glob(f'{beginning}*'):
      path.unlink()
