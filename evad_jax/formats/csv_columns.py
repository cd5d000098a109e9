"""Reads a csv file into columns, fast; every error names the file and the line.

NumPy's reader does the work. Only if it fails is the file read again, line by line, to find the bad
cell. A row is one line, and empty lines are skipped. The first line may be a header that names the
columns, quoted or not, in any order and among others (`named_columns`).
"""

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError
from evad_jax.files import text_files
from evad_jax.limits import LONGEST_NAME

LARGEST_WHOLE = 2**53  # the text is read as a float first
NOUNS = {int: 'a whole number', float: 'a finite number'}
BOX = dict.fromkeys(('x1', 'y1', 'x2', 'y2'), float)  # the columns of a box


class Lines(NamedTuple):
  """The lines of a file that are not empty."""

  path: Path
  text: list[str]  # N
  numbers: np.ndarray  # (N,) int64, from 1, for messages

  def place(self, row: int) -> str:
    """How a message names the row."""
    return f'{self.path}, line {self.numbers[row]}'


def read_lines(path: str | os.PathLike, noun: str, *, may_be_empty: bool = False) -> Lines:
  """The lines of a text file; `noun` says in messages what the file should have been.

  Raises InputError for a file that cannot be read or is not text, and for an empty one, unless
  `may_be_empty`.
  """
  path = Path(path)
  lines = text_files.read_text(path, noun).split('\n')
  full = [row for row, line in enumerate(lines) if line and not line.isspace()]
  if not full and not may_be_empty:
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


def header(lines: Lines, names: Iterable[str]) -> list[str] | None:
  """The cells of the first line if it names columns, at least two of `names`; else None."""
  if not lines.text:
    return None
  heads = [cell.strip() for cell in _cells(lines, 0)]
  return heads if len(set(names).intersection(heads)) > 1 else None


def without_header(lines: Lines, noun: str) -> Lines:
  """The lines below a header. Raises InputError if there are none."""
  if len(lines.text) < 2:
    raise InputError(f'{lines.path} has a header and no rows; give {noun}.')
  return Lines(lines.path, lines.text[1:], lines.numbers[1:])


def named_columns(
  lines: Lines, heads: Sequence[str], wanted: Mapping[str, type]
) -> dict[str, type | None]:
  """The columns for `parse` of a file with the header `heads`; those not in `wanted` are left out.

  Raises InputError for a header that does not name each of `wanted` once.
  """
  missing = [name for name in wanted if list(heads).count(name) != 1]
  if missing:
    raise InputError(
      f'{lines.place(0)}: the header names {missing[0]} {list(heads).count(missing[0])} times; '
      f'it must name each of {",".join(wanted)} once.'
    )
  return {
    name if name in wanted else f'column {place}': wanted.get(name)
    for place, name in enumerate(heads)
  }


def arranged(lines: Lines, heads: Sequence[str], wanted: Sequence[str]) -> Lines:
  """Lines below a header with only the cells of `wanted`, in this order; missing ones are empty.

  Raises InputError for a row with a different number of cells than the header.
  """
  places = [heads.index(name) if name in heads else None for name in wanted]
  text = []
  for row in range(len(lines.text)):
    cells = _cells(lines, row)
    if len(cells) != len(heads):
      raise InputError(
        f'{lines.place(row)}: {len(cells)} columns instead of the {len(heads)} of the header.'
      )
    file = io.StringIO()
    csv.writer(file, lineterminator='').writerow(
      '' if place is None else cells[place].strip() for place in places
    )
    text.append(file.getvalue())
  return lines._replace(text=text)


def parse(lines: Lines, columns: Mapping[str, type | None]) -> dict[str, np.ndarray]:
  """Columns by name, of kind str, int or float -> arrays of str, int64 and float64.

  Columns of the kind None are left out. A whole number may be written as 903 or as 903.000000.

  Raises InputError, naming line and column, for a wrong number of columns, an empty text, a text
  longer than LONGEST_NAME, and a number that is invalid or not finite.
  """
  kinds = {None: object, str: object, int: np.float64, float: np.float64}
  dtype = [(name, kinds[kind]) for name, kind in columns.items()]
  try:
    table = np.loadtxt(
      lines.text, dtype, delimiter=',', comments=None, quotechar='"', ndmin=1, encoding='utf-8'
    )
  except ValueError as error:
    _name_the_fault(lines, columns)
    raise InputError(f'{lines.path} cannot be read as a csv file ({error}).') from error
  if len(table) != len(lines.text):  # a line that is a single pair of quotes, for one
    _name_the_fault(lines, columns)
    raise InputError(f'{lines.path} has lines that are not rows of a csv file.')
  for name in (name for name, kind in columns.items() if kind is str):
    short = np.fromiter((len(cell) <= LONGEST_NAME for cell in table[name]), bool, len(table))
    require(short, lines, lambda _, name=name: f'the {name} exceeds {LONGEST_NAME} characters.')
  every, columns = columns, {name: kind for name, kind in columns.items() if kind}
  parsed = {name: np.ascontiguousarray(table[name]) for name in columns}
  if not all(np.all(_good(parsed[name], kind)) for name, kind in columns.items()):
    _name_the_fault(lines, every)
  types = {str: str, int: np.int64, float: np.float64}
  return {name: parsed[name].astype(types[kind]) for name, kind in columns.items()}


def _good(column: np.ndarray, kind: type) -> np.ndarray:
  if kind is str:
    return column != ''
  whole = kind is not int or (column == np.floor(column)) & (np.abs(column) < LARGEST_WHOLE)
  return np.isfinite(column) & whole


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
        raise InputError(f'{place}: the {name} cell is empty; fill it in.')
      if kind in NOUNS and not _is_number(cell, kind):
        raise InputError(f'{place}: {name} is {cell!r}; write {NOUNS[kind]}.')


def _is_number(cell: str, kind: type) -> bool:
  try:
    number = float(cell)
    whole = kind is not int or (number.is_integer() and abs(number) < LARGEST_WHOLE)
    return math.isfinite(number) and '_' not in cell and whole
  except (ValueError, OverflowError):
    return False


def _cells(lines: Lines, row: int) -> list[str]:
  try:
    return next(csv.reader([lines.text[row]], strict=True))
  except csv.Error as error:
    raise InputError(
      f'{lines.place(row)}: is not a row of a csv file ({error}); close its quotes.'
    ) from error
