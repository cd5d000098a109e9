"""The checksums of all files of a directory, kept in it, so that damage is found and named."""

import json
import os
from pathlib import Path

import google_crc32c

from evad_jax.data import whole_files

NAME = 'crc32c.json'
_CHUNK = 1 << 24  # bytes


def seal(directory: Path) -> None:
  """Writes the length and crc32c of every file below `directory` to a file in it, in one go."""
  found = {str(path.relative_to(directory)): _measure(path) for path in _files(directory)}
  whole_files.write_json(directory / NAME, found)


def is_sealed(directory: Path) -> bool:
  """Whether `seal` was completed."""
  return (directory / NAME).is_file()


def damage(directory: Path, part: int = 0, parts: int = 1) -> str | None:
  """The first difference from the seal in words, or None; also None without a seal.

  part, parts: looks at every `parts`-th file alone, from number `part`, to share the work.
  """
  try:
    sealed = json.loads((directory / NAME).read_text())
    expected = [(name, *map(int, sealed[name])) for name in sorted(sealed)]
  except FileNotFoundError:
    return None
  except OSError as error:
    return f'{NAME} cannot be read ({os.strerror(error.errno)})'
  except (ValueError, TypeError, KeyError):
    return f'{NAME} is not what was written'
  for name, size, checksum in expected[part::parts]:
    try:
      found_size, found = _measure(directory / name)
    except OSError as error:
      return f'{name} cannot be read ({os.strerror(error.errno)})'
    if found_size != size:
      return f'{name} has {found_size} of {size} bytes'
    if found != checksum:
      return f'{name} has other bytes than were written'
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
