"""Files that appear under their names only when they are whole."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

TEMPORARY = '.writing-'  # what a name begins with until then


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
  """The name to write a file under; it gets its own, and replaces another, when all went well.

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
  """The same as an open file, which is on the disk before it has its name.

  mode: 'w' for UTF-8 with lines ended by newlines, or 'wb'.
  """
  encoding, newline = (None, None) if 'b' in mode else ('utf-8', '')
  with replacing(path) as place, open(place, mode, encoding=encoding, newline=newline) as file:
    yield file
    flush_to_disk(file)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes an npz file, which appears under its name only when it is whole."""
  with writing(path, 'wb') as file:
    np.savez(file, **arrays)


def write_json(path: Path, content: Any, **arguments: Any) -> None:
  """Writes a JSON file, which appears under its name only when it is whole.

  arguments: of json.dumps.
  """
  text = json.dumps(content, **{'indent': 2, 'ensure_ascii': False} | arguments)
  with writing(path) as file:
    file.write(text + '\n')


def flush_to_disk(file: IO) -> None:
  """Waits for the disk, so that a name never outlives a power cut without its bytes."""
  file.flush()
  os.fsync(file.fileno())


def temporary(path: Path) -> Path:
  """The name that a file has until it is whole; it begins with TEMPORARY."""
  return path.with_name(TEMPORARY + path.name)
