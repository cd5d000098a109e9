"""Reads lists of videos, one per line, as splits are published: `Class/v_name.avi 9`, or names."""

import os
import re
from collections.abc import Collection
from typing import NamedTuple

from evad_jax.formats import csv_columns

VIDEO_SUFFIXES = ('.avi', '.mp4', '.mkv', '.webm', '.mov')  # in order of preference
_NUMBER = re.compile(r'\s+\d+$')  # of the class, after the name


class Listed(NamedTuple):
  """The videos of a list, in its order, each once."""

  known: list[str]
  others: list[str]  # what their names seem to be


def read(path: str | os.PathLike, known: Collection[str]) -> Listed:
  """Reads a list of videos, and separates those in `known` from others.

  A line is the name of a known video, or becomes one without the suffix of a video file, without a
  number after it, or without both; names may have dots and spaces.

  Raises InputError for a file that cannot be read or is empty.
  """
  found, others, known = {}, {}, set(known)
  for line in csv_columns.read_lines(path, 'a list of videos').text:
    forms = _forms(line.strip())
    name = next((form for form in forms if form in known), None)
    if name is None:
      others[forms[-1]] = None
    else:
      found[name] = None
  return Listed(list(found), list(others))


def _forms(line: str) -> list[str]:
  """The names that a line may mean, with more and more removed from its end."""
  bare = _NUMBER.sub('', line)
  return [line, _without_suffix(line), bare, _without_suffix(bare)]


def _without_suffix(name: str) -> str:
  stem, suffix = os.path.splitext(name)
  return stem if suffix.lower() in VIDEO_SUFFIXES else name
