"""Checksums of all files of a directory, stored in it, so that damage is detected and named."""

import os
import stat
from pathlib import Path

import google_crc32c

from evad_jax.errors import InputError
from evad_jax.files import atomic_files, text_files
from evad_jax.files.storage import below, reason
from evad_jax.value_rules import check, rows, whole

NAME = 'crc32c.json'
_CHUNK = 1 << 24  # bytes


def seal(directory: Path) -> None:
  """Writes the length and crc32c of every file below `directory` to a file in it, atomically."""
  found = {str(path.relative_to(directory)): _measure(path) for path in _files(directory)}
  atomic_files.write_json(directory / NAME, found)


def is_sealed(directory: Path) -> bool:
  """Whether `seal` has completed."""
  return (directory / NAME).is_file()


def damage(directory: Path, part: int = 0, parts: int = 1) -> str | None:
  """The first difference from the seal, in words; None without a difference or without a seal.

  part, parts: checks only every `parts`-th file, from index `part` on, to share the work.
  """
  if not is_sealed(directory):
    return None
  try:
    sealed = text_files.read_json(directory / NAME, 'the one that was written')
    check(sealed, dict.fromkeys(sealed, rows(whole(0, 2**63), 2, 2)), '')
    expected = [(name, *sealed[name]) for name in sorted(sealed)]
  except (InputError, TypeError) as error:
    why = f' ({reason(error)})' if reason(error) else ''
    return f'{NAME} is not what was written{why}'
  for name, size, checksum in expected[part::parts]:
    try:
      path = below(directory, name)
      found = os.stat(path)
      if not stat.S_ISREG(found.st_mode):
        return f'{name} is not a file'
      if found.st_size != size:
        return f'{name} has {found.st_size} of {size} bytes'
      _, found = _measure(path)
    except InputError as error:
      return f'{NAME} is not what was written: {error}'
    except OSError as error:
      return f'{name} cannot be read ({os.strerror(error.errno)})'
    if found != checksum:
      return f'the bytes of {name} are not what was written'
  return None


def _files(directory: Path) -> list[Path]:
  return sorted(p for p in directory.rglob('*') if p.is_file() and p != directory / NAME)


def _measure(path: Path) -> tuple[int, int]:
  """Length in bytes and crc32c."""
  size, checksum = 0, 0
  with open(path, 'rb') as file:
    while chunk := file.read(_CHUNK):
      size += len(chunk)
      checksum = google_crc32c.extend(checksum, chunk)
  return size, checksum
