"""Atomic writes: temporary file, fsync, rename."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

TEMPORARY = '.writing-'  # prefix of a file's name until then


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
  """A temporary name to write a file under; renamed to `path`, over any other, if all goes well.

  An exception leaves nothing.
  """
  place = temporary(Path(path))
  try:
    yield place
    place.replace(path)
  except BaseException:
    place.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def writing(path: str | os.PathLike, mode: str = 'w') -> Iterator[IO]:
  """The same as an open file, which is flushed to disk before it is renamed.

  mode: 'w' for UTF-8 with lines ended by newlines, or 'wb'.
  """
  encoding, newline = (None, None) if 'b' in mode else ('utf-8', '')
  with replacing(path) as place, open(place, mode, encoding=encoding, newline=newline) as file:
    yield file
    flush_to_disk(file)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes an npz file atomically."""
  with writing(path, 'wb') as file:
    np.savez(file, **arrays)


def write_json(path: Path, content: Any, **arguments: Any) -> None:
  """Writes a JSON file atomically.

  arguments: of json.dumps.
  """
  text = json.dumps(content, **{'indent': 2, 'ensure_ascii': False} | arguments)
  with writing(path) as file:
    file.write(text + '\n')


def flush_to_disk(file: IO) -> None:
  """Waits for the disk, so that a power cut never leaves a name without its bytes."""
  file.flush()
  os.fsync(file.fileno())


def temporary(path: Path) -> Path:
  """The name of a file until it is complete; it begins with TEMPORARY."""
  return path.with_name(TEMPORARY + path.name)
