"""Reads lists of classes: label maps with ids (.pbtxt), or one name per line."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from evad_jax.errors import InputError
from evad_jax.formats import ava_files, csv_columns


def read(path: str | os.PathLike) -> list[str] | dict[int, str]:
  """Names by index from a file with one name per line, or by id from a label map.

  Raises InputError for a file that cannot be read or is empty, and for a bad label map.
  """
  lines = csv_columns.read_lines(path, 'a list of classes: a label map, or one name per line')
  if any('{' in line for line in lines.text):
    return ava_files.read_label_map(path)
  return [line.strip() for line in lines.text]


def by_label(path: str | os.PathLike) -> list[str]:
  """Names by label from 0. Also raises InputError for a label map whose ids have gaps."""
  names = read(path)
  if isinstance(names, list):
    return names
  first = min(names)
  if first > 1 or sorted(names) != list(range(first, first + len(names))):
    raise InputError(f'{path}: the ids must be consecutive, and start at 0 or 1.')
  return [names[number] for number in sorted(names)]


def of_model(
  names: Sequence[str] | Mapping[int, str], num_actions: int, class_ids: Sequence[int] | None = None
) -> list[str]:
  """Distinct names for the outputs of a model, in order.

  names: by index, or by the ids of a label map. class_ids: of the model's classes, where it was
  trained with a label map. A map with these ids names the classes that it has (the 60 of AVA's 80
  that are scored, say). One with other ids must have as many as the model, by ascending id.

  Raises InputError if the names do not fit the model.
  """
  if not isinstance(names, Mapping):
    found, ids = list(names), class_ids or range(num_actions)
  else:
    first = 0 if 0 in names else 1
    ids = class_ids or range(first, first + num_actions)
    if len(names) == num_actions:
      ids = sorted(names)
    elif not set(names) <= set(ids):
      ids = []
    found = [names.get(number, f'action {number}') for number in ids]
  if len(found) != num_actions:
    raise InputError(
      f'{len(names)} class names were given, but the checkpoint has {num_actions} actions'
      f'{f", of ids {list(class_ids)}" if class_ids else ""}.'
    )
  return distinct(found, ids)


def distinct(names: Sequence[str], numbers: Sequence[int]) -> list[str]:
  """The names; to those that several classes share, their distinct numbers are added."""
  names = list(names)
  made, counts = names, Counter(names)
  if len(counts) < len(names):
    numbered = [f'{name} ({number})' for name, number in zip(names, numbers, strict=True)]
    made = [new if counts[name] > 1 else name for name, new in zip(names, numbered, strict=True)]
    if len(set(made)) < len(made):  # another class has such a name, number and all
      made = numbered
  return made
