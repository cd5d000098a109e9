"""Reads text and JSON from outside, in whatever encoding programs save them.

UTF-8, or UTF-16 and UTF-32 as spreadsheets and Windows write them, with or without a byte order
mark, with any line endings.
"""

import collections
import json
import os
import re
from typing import Any

from evad_jax.errors import InputError
from evad_jax.files import storage

_BYTE_ORDER_MARK = '\ufeff'
_SURROGATE = re.compile(r'\\u[dD][89a-fA-F]')  # as JSON escapes half a character


def read_text(path: str | os.PathLike, noun: str) -> str:
  """The text of a file, its lines ended by newlines; `noun` says what it should have been.

  Raises InputError for a file that cannot be read, or is not text.
  """
  data = storage.read_bytes(path, noun)
  encoding = json.detect_encoding(data)  # by the mark, or by where zero bytes are
  try:
    text = data.decode(encoding)
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b'\n') + 1
    raise InputError(
      f'{path} is not UTF-8 text (line {line}, byte {error.start + 1}: {error.reason}); save it as '
      f'UTF-8, or give {noun}.'
    ) from error
  if '\0' in text:
    raise InputError(f'{path} is not UTF-8 text: it has zero bytes; give {noun}.')
  # Files that were joined have a mark at the start of each.
  text = text.replace('\r\n', '\n').replace('\r', '\n')
  return text.replace(f'\n{_BYTE_ORDER_MARK}', '\n').removeprefix(_BYTE_ORDER_MARK)


def read_json(path: str | os.PathLike, noun: str) -> Any:
  """The content of a JSON file; `noun` says what it should have been.

  Raises InputError for a file that cannot be read, is not JSON, is nested too deep, or has a name
  twice in an object or a lone surrogate in a text.
  """
  text = read_text(path, noun)
  try:
    content = json.loads(text, object_pairs_hook=_object)
    if _SURROGATE.search(text):  # pairs of surrogates are joined; lone ones cannot be written
      json.dumps(content, ensure_ascii=False).encode()
  except UnicodeEncodeError as error:
    raise InputError(
      f'{path} has a lone surrogate in a text ({error.object[error.start]!a}); give {noun}.'
    ) from error
  except ValueError as error:
    raise InputError(f'{path} is not JSON ({error}); give {noun}.') from error
  except RecursionError as error:
    raise InputError(f'{path} is nested too deep; give {noun}.') from error
  return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object; refuses a name that occurs twice in it, which would hide the first."""
  made = dict(pairs)
  if len(made) < len(pairs):
    (name, _), *_ = collections.Counter(name for name, _ in pairs).most_common(1)
    raise ValueError(f'{name[:100]!r} occurs twice in an object')
  return made
