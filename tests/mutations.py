"""Corrupted files: cut, doubled, flipped, nested, huge.

As bytes, or part by part where a checksum or a format would refuse changed bytes unread.
"""

import copy
import io
import json
import zipfile

import numpy as np
from hypothesis import strategies as st

# Values of the wrong type or size.
STRANGE = (
  *(None, True, False, '', 'x', [], {}, [[]], {'a': {}}, [None], -1, 0, 1, 2**31, 2**53, 2**63),
  *(10**30, 1e400, -1e400, float('nan'), 1e-320, 0.5, 1e18, 10**300, '../x', '/dev/zero', 'a\0b'),
  *('\udc80', '9' * 400, 'x' * 5000, [1] * 5000, [[1, 2], [3]], '\u202e', '٣', '1_0', '0x10', '*a'),
)  # fmt: skip
TOKENS = (
  *(b'', b'9' * 400, b'1e400', b'nan', b'-1', b'"', b"'", b',' * 2000, b'\0', b'\xff\xfe'),
  *(b'\xef\xbb\xbf', b'[' * 3000, b'{"a":' * 3000, b'(' * 3000, b'\n' * 2000, b'\r', b'\x80'),
  *(b'\\', b'#', b'{}', b'\xe2\x82'),
)  # fmt: skip


@st.composite
def wrong_bytes(draw, data):
  """The bytes after one to three of: cut, doubled, flipped, replaced, grown."""
  for _ in range(draw(st.integers(1, 3))):
    start = draw(st.integers(0, max(len(data) - 1, 0)))
    end = min(len(data), start + draw(st.sampled_from((1, 2, 8, 100, 5000))))
    kind = draw(st.sampled_from(('cut', 'end', 'double', 'flip', 'token', 'many', 'number')))
    if kind == 'cut':
      data = data[:start] + data[end:]
    elif kind == 'end':
      data = data[:start]
    elif kind == 'double':
      data = data[:end] + data[start:]
    elif kind == 'flip' and data:
      changed = data[start] ^ draw(st.integers(1, 255))
      data = data[:start] + bytes([changed]) + data[start + 1 :]
    elif kind == 'token':
      data = data[:start] + draw(st.sampled_from(TOKENS)) + data[end:]
    elif kind == 'many':
      data = data[:start] + data[start:end] * draw(st.sampled_from((50, 1000))) + data[end:]
      data = data[: 4 << 20]
    elif kind == 'number':  # as four or eight bytes
      number = draw(st.sampled_from((0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1)))
      width = draw(st.sampled_from((4, 8)))
      data = data[:start] + (number % 256**width).to_bytes(width, 'little') + data[start + width :]
  return data


def _places(content, path=()):
  yield path
  inside = content.items() if isinstance(content, dict) else ()
  if isinstance(content, list | tuple):
    inside = enumerate(content)
  for key, value in inside:
    yield from _places(value, (*path, key))


@st.composite
def wrong_content(draw, content, most=3):
  """Lists and dicts with one to three parts replaced, missing, doubled, nested or multiplied."""
  content, many = copy.deepcopy(content), False
  for _ in range(draw(st.integers(1, most))):
    path = draw(st.sampled_from(list(_places(content))))
    kind = draw(st.sampled_from(('other', 'other', 'other', 'missing', 'nest', 'many', 'key')))
    if not path:
      if kind == 'other':
        return draw(st.sampled_from(STRANGE))
      continue
    *above, key = path
    parent = content
    for step in above:
      parent = parent[step]
    if isinstance(parent, tuple):
      continue
    if kind == 'other':
      parent[key] = draw(st.sampled_from(STRANGE))
    elif kind == 'missing':
      del parent[key]
    elif kind == 'nest':
      for _ in range(draw(st.sampled_from((1, 40, 300)))):
        parent[key] = [parent[key]]
    elif kind == 'many' and isinstance(parent[key], list) and not many:
      parent[key], many = parent[key] * 200, True
    elif kind == 'key' and isinstance(parent, dict):
      parent[draw(st.sampled_from(('', 'x', '-1', '10000000', '../x', 'a\0', '\ud800')))] = parent[
        key
      ]
  return content


def as_json(content) -> bytes:
  """JSON as other programs write it, including invalid values."""
  return json.dumps(content).encode('utf-8', 'surrogatepass')


@st.composite
def wrong_arrays(draw, data):
  """An npz file in which one or two arrays have another type, shape or content."""
  with np.load(io.BytesIO(data), allow_pickle=False) as file:
    arrays = dict(file)
  for name in draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=2, unique=True)):
    array = arrays.pop(name)
    kind = draw(
      st.sampled_from(
        (
          'missing',
          'short',
          'long',
          'type',
          'axes',
          'shift',
          'huge',
          'negative',
          'turned',
          'object',
        )
      )
    )
    if kind == 'missing':
      continue
    with np.errstate(all='ignore'):
      arrays[name] = _wrong_array(draw, array, kind)
  made = io.BytesIO()
  np.savez(made, **arrays)
  if draw(st.booleans()):
    return made.getvalue()
  return draw(st.one_of(repacked(made.getvalue()), wrong_bytes(made.getvalue())))


def _wrong_array(draw, array, kind):
  if kind == 'short':
    return array[..., :-1] if array.ndim else array[None][:0]
  if kind == 'long':
    return np.concatenate([array, array]) if array.ndim else np.stack([array] * 3)
  text = array.dtype.kind == 'U'
  if kind == 'type' and text:
    return np.arange(array.size)
  if kind == 'type':
    return array.astype(draw(st.sampled_from(('U', 'S', 'f4', 'c8', 'u1', 'i8', '?', 'V8'))))
  if kind == 'axes':
    return array[None]
  if kind == 'object':
    return np.zeros(array.shape, [('a', 'f4'), ('b', 'i8')])
  if text:
    return np.full(array.shape, draw(st.sampled_from(('', '../x', 'x' * 300))))
  if array.dtype.kind == 'b':
    return ~array
  if kind == 'shift':
    return array + array.dtype.type(draw(st.sampled_from((1, 3))))
  if kind == 'huge':
    big = np.iinfo(array.dtype).max if array.dtype.kind in 'iu' else np.inf
    array = array.copy()
    array[(0,) * array.ndim] = big
    return array
  return -array if kind == 'negative' else array.T[::-1]


@st.composite
def repacked(draw, data):
  """The same zip file packed, or with the header of an array that claims another shape."""
  made = io.BytesIO()
  how = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
  header = draw(st.sampled_from((None, b'(1000000000000,)', b'(' * 200, b'(-5,)', b'()')))
  with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(made, 'w', how) as target:
    for name in source.namelist():
      array = source.read(name)
      if header is not None and array[:6] == b'\x93NUMPY':
        length = int.from_bytes(array[8:10], 'little')
        text = array[10 : 10 + length]
        at = text.find(b"'shape': ") + 9
        text = text[:at] + header + b', }'
        array = array[:10] + text.ljust(length)[:length] + array[10 + length :]
      target.writestr(name, array)
  return made.getvalue()
