"""Whose a directory is, and how a data set in it is replaced: only when another one is whole.

The new one is made in the directory STAGING, inside of the old one's. When its manifest is there,
it takes the place of the old one; what a killed process did of that is finished by the next.
"""

import contextlib
import os
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from evad_jax.data import shard_writer
from evad_jax.data.record_index import MANIFEST
from evad_jax.data.record_writer import TFDS_FILES
from evad_jax.errors import InputError
from evad_jax.files import directory_lock, text_files
from evad_jax.files.atomic_files import TEMPORARY

STAGING = '.replacement'
PROGRESS = '.preparation.json'  # of a preparation that is under way
_SHARD = re.compile(r'([^.].*)-[^-]+\.tfrecord-\d{5,}-of-\d{5,}')  # of the data set group 1


def check_owner(directory: Path, name: str) -> None:
  """Raises InputError where a directory holds files of another data set than `name`.

  That is also so where files have names that this one would replace, and are not known to be its.
  """
  if not directory.is_dir():
    return
  shards = {found[1] for path in directory.iterdir() if (found := _SHARD.fullmatch(path.name))}
  others, ours = sorted(shards - {name}), name in shards
  if (directory / MANIFEST).exists():
    manifest = None
    with contextlib.suppress(InputError):  # whether it is damaged is another question
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
      f'{strange[0]}: is there, and not of a data set {name!r}, which would replace it; choose '
      'another output directory, or take it away'
    )


def claim(directory: str | os.PathLike, name: str, overwrite: bool) -> None:
  """Makes sure that a data set can be written to a directory.

  Args:
    directory: new, empty, or with `overwrite` one that holds a part of this data set.
    name: of the data set.
    overwrite: delete what belongs to it, the manifest first; anything else is left alone.

  Raises:
    InputError: it holds something and `overwrite` is False, or is no directory.
  """
  directory = Path(directory)
  if directory.exists() and not directory.is_dir():
    raise InputError(f'{directory}: is a file; choose another output directory')
  names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
  names = [name for name in names if name not in (directory_lock.NAME, STAGING)]
  if not overwrite and not all(name.startswith(TEMPORARY) for name in names):
    state = 'holds a prepared data set' if (directory / MANIFEST).exists() else 'is not empty'
    raise InputError(f'{directory}: {state}; pass --overwrite or choose another output directory')
  for path in _files(directory, name):
    path.unlink()
  shard_writer.delete_unfinished(directory)


def place_to_write(directory: Path) -> Path:
  """The directory itself, or where a whole data set is in it, the one that will replace it."""
  if not (directory / MANIFEST).exists():
    return directory
  (directory / STAGING).mkdir(exist_ok=True)
  return directory / STAGING


def replace(directory: Path, name: str) -> None:
  """Puts the whole data set in STAGING in the place of the one in the directory."""
  staging = directory / STAGING
  if (directory / MANIFEST).exists():
    new = {path.name for path in staging.iterdir()}
    for path in reversed(_files(directory, name)):
      if path.name not in new:
        path.unlink()
    (directory / MANIFEST).unlink()  # from here on all that is there is new, or will be replaced
  for path in staging.iterdir():
    if path.name != MANIFEST:
      path.replace(directory / path.name)
  (staging / MANIFEST).replace(directory / MANIFEST)
  shutil.rmtree(staging)


def _files(directory: Path, name: str) -> list[Path]:
  """The files of a data set, the manifest first."""
  patterns = MANIFEST, 'index-*.npz', 'tubes-*.npz', f'{name}-*.tfrecord-*-of-*', *TFDS_FILES
  return [path for pattern in patterns for path in sorted(directory.glob(pattern))]


def alone_in(directory: Path) -> AbstractContextManager[None]:
  """Keeps a second preparation out of the directory, for as long as this process lives."""
  return directory_lock.held(directory, 'preparing a data set', 'another output directory')


def settle(directory: Path, name: str) -> bool:
  """Puts a whole data set in the place of the one it was made to replace; whether there was one."""
  staging = directory / STAGING
  if not (staging / MANIFEST).is_file():
    return False
  tidy(staging)
  replace(directory, name)
  return True


def tidy(directory: Path) -> None:
  """Deletes what only an unfinished preparation needs."""
  shard_writer.delete_unfinished(directory)
  (directory / PROGRESS).unlink(missing_ok=True)
