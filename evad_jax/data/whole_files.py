"""Files that appear under their names only when they are whole."""

import json
import os
from pathlib import Path
from typing import IO

import numpy as np

TEMPORARY = '.writing-'  # what a name begins with until then


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes an npz file, which appears under its name only when it is whole."""
  with open(temporary(path), 'wb') as file:
    np.savez(file, **arrays)
    flush_to_disk(file)
  temporary(path).replace(path)


def write_json(path: Path, content: dict) -> None:
  """Writes a JSON file, which appears under its name only when it is whole."""
  text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
  with open(temporary(path), 'w', encoding='utf-8') as file:
    file.write(text)
    flush_to_disk(file)
  temporary(path).replace(path)


def flush_to_disk(file: IO) -> None:
  """Waits for the disk, so that a name never outlives a power cut without its bytes."""
  file.flush()
  os.fsync(file.fileno())


def temporary(path: Path) -> Path:
  """The name that a file has until it is whole; it begins with TEMPORARY."""
  return path.with_name(TEMPORARY + path.name)
