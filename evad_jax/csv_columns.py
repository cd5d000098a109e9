"""A csv file without a header as columns, read fast, with every fault named by file and line.

NumPy's own reader does the work; only where it stops is the file looked at again, line by line,
to say which cell was wrong. A row is one line, and empty lines are skipped.
"""

import csv
import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError

NOUNS = {int: 'a whole number', float: 'a finite number'}


class Lines(NamedTuple):
  """The lines of a file that are not empty."""

  path: Path
  text: list[str]  # N
  numbers: np.ndarray  # (N,) int64, from 1, for messages

  def place(self, row: int) -> str:
    """How a message names the row."""
    return f'{self.path}, line {self.numbers[row]}'


def read_lines(path: str | os.PathLike, noun: str) -> Lines:
  """The lines of a text file; `noun` says in messages what the file should have been.

  Raises InputError for a file that cannot be read, is not UTF-8, or has no line.
  """
  path = Path(path)
  try:
    text = path.read_bytes().decode('utf-8-sig')
  except OSError as error:
    raise InputError(f'{path} cannot be read ({error.strerror}); give {noun}.') from error
  except UnicodeDecodeError as error:
    raise InputError(f'{path} is not UTF-8 text; give {noun}.') from error
  lines = text.replace('\r\n', '\n').split('\n')
  full = [row for row, line in enumerate(lines) if line and not line.isspace()]
  if not full:
    raise InputError(f'{path} is empty; give {noun}.')
  numbers = np.array(full, np.int64) + 1
  return Lines(path, lines if len(full) == len(lines) else [lines[row] for row in full], numbers)


def count_columns(lines: Lines) -> np.ndarray:
  """(N,) int64: the number of columns of every line."""
  counts = (
    len(_cells(lines, row)) if '"' in line else line.count(',') + 1
    for row, line in enumerate(lines.text)
  )
  return np.fromiter(counts, np.int64, len(lines.text))


def parse(lines: Lines, columns: Mapping[str, type | None]) -> dict[str, np.ndarray]:
  """Columns by name, of kind str, int or float -> arrays of str, int64 and float64.

  Columns of the kind None are left out.

  Raises InputError, naming line and column, for another number of columns, an empty text, and a
  number that is none or is not finite.
  """
  kinds = {None: object, str: object, int: np.int64, float: np.float64}
  dtype = [(name, kinds[kind]) for name, kind in columns.items()]
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('error', DeprecationWarning)  # 1.5 as a whole number
      table = np.loadtxt(
        lines.text, dtype, delimiter=',', comments=None, quotechar='"', ndmin=1, encoding='utf-8'
      )
  except (ValueError, DeprecationWarning) as error:
    _name_the_fault(lines, columns)
    raise InputError(f'{lines.path} is no csv file that can be read ({error}).') from error
  if len(table) != len(lines.text):  # a line that is a single pair of quotes, for one
    _name_the_fault(lines, columns)
    raise InputError(f'{lines.path} has lines that are no rows of a csv file.')
  every, columns = columns, {name: kind for name, kind in columns.items() if kind}
  parsed = {name: np.ascontiguousarray(table[name]) for name in columns}
  good = [
    np.isfinite(parsed[name]) if kind is not str else parsed[name] != ''
    for name, kind in columns.items()
  ]
  if not np.all(good):
    _name_the_fault(lines, every)
  text = {name: parsed[name].astype(str) for name, kind in columns.items() if kind is str}
  return parsed | text


def require(good: np.ndarray, lines: Lines, sentence: Callable[[int], str]) -> None:
  """Raises InputError for the first row that is not good: file, line, and `sentence(row)`."""
  bad = np.flatnonzero(~good)
  if bad.size:
    raise InputError(f'{lines.place(bad[0])}: {sentence(int(bad[0]))}')


def _name_the_fault(lines: Lines, columns: Mapping[str, type | None]) -> None:
  for row in range(len(lines.text)):
    cells, place = _cells(lines, row), lines.place(row)
    if len(cells) != len(columns):
      raise InputError(
        f'{place}: {len(cells)} columns instead of {len(columns)}; write {",".join(columns)}.'
      )
    for cell, (name, kind) in zip(cells, columns.items(), strict=True):
      if kind is str and not cell:
        raise InputError(f'{place}: the {name} has no name; write it in its column.')
      if kind in NOUNS and not _is_number(cell, kind):
        raise InputError(f'{place}: {name} is {cell!r}; write {NOUNS[kind]}.')


def _is_number(cell: str, kind: type) -> bool:
  try:
    return math.isfinite(kind(cell)) and '_' not in cell and abs(float(cell)) < 2**63
  except (ValueError, OverflowError):
    return False


def _cells(lines: Lines, row: int) -> list[str]:
  try:
    return next(csv.reader([lines.text[row]], strict=True))
  except csv.Error as error:
    raise InputError(
      f'{lines.place(row)}: is not a row of a csv file ({error}); close its quotes.'
    ) from error
