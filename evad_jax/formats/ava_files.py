"""The text files of AVA: action lists, ground truth, excluded timestamps. NumPy only.

Other data sets written in AVA's format (mmaction2's, for one) are read as well.
"""

import ast
import os
import re
from collections.abc import Iterable, Mapping

import numpy as np

from evad_jax.errors import InputError
from evad_jax.formats import csv_columns
from evad_jax.formats.box_table import BoxTable
from evad_jax.formats.csv_columns import BOX, Lines
from evad_jax.limits import LARGEST_CLASS, LARGEST_FRAME

TRUTH_COLUMNS = {'video': str, 'second': int, **BOX, 'action_id': int, 'person_id': int}
TRUTH_NOUN = 'a csv file of AVA ground truth'
# Boxes may reach a little over the edge; numbers beyond this are pixels.
LARGEST_COORDINATE = 2.0
# What a row lacks, by its number of columns: a box with its action and person, or the person.
_LACKING = {2: ',0,0,0,0,0,-1', 7: ',-1', 8: ''}
# label { and item {, }, and  key: value  with a quoted text, a number or a word.
_ENTRY = re.compile(r'(?:label|item)\s*(?=\{)')
_FIELD = re.compile(r'(\w+)\s*:\s*("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[\w.+-]+)')


def read_truth(path: str | os.PathLike) -> BoxTable:
  """Reads `video,second,x1,y1,x2,y2,action_id[,person_id]`, or `video,second` for no box.

  Seconds may be padded with zeros, or end in zeros as 903.000000 does; trailing fields may be
  missing or empty. A first line may name the columns, in any order and among others.

  Returns:
    Rows with normalised boxes, frames in seconds and action ids as labels; a keyframe that is
    listed without people has label 0 and a box of zeros.

  Raises:
    InputError: the file cannot be read or is empty; or, with its line, a row with a wrong number of
      columns, something that is not a number, NaN, a box that ends before it starts or is not
      normalised, or an action id below 1.
  """
  lines = _below_header(csv_columns.read_lines(path, TRUTH_NOUN), TRUTH_COLUMNS, TRUTH_NOUN)
  lines = lines._replace(text=[line.rstrip(', \t') for line in lines.text])
  num_columns = csv_columns.count_columns(lines)
  csv_columns.require(
    np.isin(num_columns, list(_LACKING)),
    lines,
    lambda row: (
      f'{num_columns[row]} columns instead of 2, 7 or 8; write '
      'video,second,x1,y1,x2,y2,action_id,person_id, the last of which may be missing, '
      'or video,second for a keyframe without people.'
    ),
  )
  whole = [
    line + _LACKING[count] for line, count in zip(lines.text, num_columns.tolist(), strict=True)
  ]
  columns = csv_columns.parse(lines._replace(text=whole), TRUTH_COLUMNS)
  boxes = np.stack([columns[name] for name in BOX], axis=1)
  has_box = num_columns > 2
  check_seconds(lines, columns['second'])
  check_boxes(lines, boxes)
  check_action_ids(lines, np.where(has_box, columns['action_id'], 1))
  return BoxTable(columns['second'], boxes, columns['action_id'], video=columns['video'])


def read_exclusions(path: str | os.PathLike) -> set[tuple[str, int]]:
  """Reads `video,second` rows: the keyframes that are neither trained on nor scored.

  A file without rows excludes nothing. Raises InputError as `read_truth` does.
  """
  noun, kinds = 'a csv file of excluded timestamps', {'video': str, 'second': int}
  lines = csv_columns.read_lines(path, noun, may_be_empty=True)
  if not lines.text or (len(lines.text) == 1 and _heads(lines, kinds)):
    return set()
  columns = csv_columns.parse(_below_header(lines, kinds, noun), kinds)
  check_seconds(lines, columns['second'])
  return set(zip(columns['video'].tolist(), columns['second'].tolist(), strict=True))


def read_label_map(path: str | os.PathLike) -> dict[int, str]:
  """Reads an action list, id -> name in the order of the file.

  Both of AVA's spellings are accepted: `label { name: "..." label_id: 1 label_type: ... }` and
  `item { name: "..." id: 1 }`, over one line or several. Two ids may have the same name.

  Raises:
    InputError: the file cannot be read or is empty; or, with its line, something that is not in
      this form, an entry without name or id, or an id that was given before.
  """
  lines = csv_columns.read_lines(path, 'a list of actions (.pbtxt)')
  names: dict[int, str] = {}
  entry: dict[str, str] | None = None  # the fields of the entry that is open
  for row, text in enumerate(lines.text):
    position = 0
    while position < len(text) and text[position] != '#':
      if text[position].isspace():
        position += 1
      elif entry is None and (match := _ENTRY.match(text, position)):
        entry, position = {}, text.index('{', match.end()) + 1
      elif entry is not None and text[position] == '}':
        _close(entry, names, lines, row)
        entry, position = None, position + 1
      elif entry is not None and (match := _FIELD.match(text, position)):
        entry[match[1]], position = match[2], match.end()
      else:
        _reject(lines, row, f'{text[position:].strip()!r} does not belong here')
  if entry is not None:
    _reject(lines, len(lines.text) - 1, 'the last entry is not closed')
  if not names:
    _reject(lines, len(lines.text) - 1, 'the list ends without an entry')
  return names


def check_boxes(lines: Lines, boxes: np.ndarray) -> None:
  """Raises InputError for the first of (N, 4) boxes that is inverted or not normalised."""
  csv_columns.require(
    (boxes[:, 2:] >= boxes[:, :2]).all(axis=1),
    lines,
    lambda _: 'the box ends before it starts; write x1,y1,x2,y2.',
  )
  csv_columns.require(
    np.abs(boxes).max(axis=1) <= LARGEST_COORDINATE,
    lines,
    lambda _: 'the box is not normalised; divide x by the width and y by the height of the frame.',
  )


def check_seconds(lines: Lines, seconds: np.ndarray) -> None:
  """Raises InputError for the first of (N,) seconds that no video can have."""
  csv_columns.require(
    (seconds >= 0) & (seconds <= LARGEST_FRAME),
    lines,
    lambda row: f'second is {seconds[row]}; write one from 0 to {LARGEST_FRAME}.',
  )


def check_action_ids(lines: Lines, action_ids: np.ndarray) -> None:
  """Raises InputError for the first of (N,) action ids that is below 1 or too large."""
  csv_columns.require(
    (action_ids >= 1) & (action_ids <= LARGEST_CLASS),
    lines,
    lambda row: (
      f'action_id is {action_ids[row]}, but action ids start at 1 and end at {LARGEST_CLASS}.'
    ),
  )


def _heads(lines: Lines, names: Iterable[str]) -> list[str] | None:
  """The column names in the first line, if it has any; `timestamp` becomes `second`."""
  heads = csv_columns.header(lines, (*names, 'timestamp'))
  return heads and ['second' if head == 'timestamp' else head for head in heads]


def _below_header(lines: Lines, columns: Mapping[str, type], noun: str) -> Lines:
  """The lines with their columns in order, without the header, if there is one.

  Person ids are optional; so are boxes in a file of keyframes alone.
  """
  heads = _heads(lines, columns)
  if heads is None:
    return lines
  box = set(columns) - {'video', 'second', 'person_id'}
  needed = [name for name in columns if name != 'person_id' and (name not in box or box & {*heads})]
  csv_columns.named_columns(lines, heads, {name: columns[name] for name in needed})
  return csv_columns.arranged(csv_columns.without_header(lines, noun), heads, list(columns))


def _close(entry: dict[str, str], names: dict[int, str], lines: Lines, row: int) -> None:
  """Adds one entry to the names."""
  name, number = entry.get('name'), entry.get('label_id', entry.get('id'))
  if name is None or number is None:
    _reject(lines, row, f'the entry that ends here has no {"name" if name is None else "id"}')
  if name[0] not in '"\'':
    _reject(lines, row, f'the name {name} is not in quotes')
  if not number.isdecimal() or len(number) > 9 or int(number) > LARGEST_CLASS:
    _reject(lines, row, f'the id {number} is not a whole number from 0 to {LARGEST_CLASS}')
  if int(number) in names:
    _reject(lines, row, f'the id {number} was given before')
  try:
    names[int(number)] = ast.literal_eval(name)
  except (SyntaxError, ValueError) as error:  # \x without its digits
    _reject(lines, row, f'the name {name} has an invalid \\ escape ({error.args[0]})')


def _reject(lines: Lines, row: int, what: str) -> None:
  raise InputError(
    f'{lines.place(row)}: {what}; write entries like  item {{ name: "stand" id: 12 }}.'
  )
