"""Reads pickles without trusting them: plain Python values and NumPy arrays of numbers or text.

A pickle is a program for a machine that calls what it names. Here it can call nothing but
stand-ins, which make lists, numbers and arrays after checking every argument; NumPy's own functions
would take bytes of the file for pointers. Errors name what is refused. The program itself is
checked before it runs: some of its instructions allocate memory by a number alone.
"""

import collections
import io
import math
import os
import pickle
import pickletools
import re
import struct
from typing import Any

import numpy as np

from evad_jax.errors import InputError
from evad_jax.files import storage

_DEEPEST = 32  # lists in lists
_LARGEST_WHOLE = 2**63
# The length that comes before an argument, for the kinds whose size is not fixed.
_PREFIXES = {-2: '<B', -3: '<i', -4: '<I', -5: '<Q'}
_INSTRUCTIONS = {ord(code.code): code for code in pickletools.opcodes}
# They call, load or name what plain data never need, or take buffers that are not in the file.
_REFUSED = {
  *('INST', 'OBJ', 'NEWOBJ', 'NEWOBJ_EX', 'PERSID', 'BINPERSID', 'EXT1', 'EXT2', 'EXT4'),
  *('NEXT_BUFFER', 'READONLY_BUFFER'),
}
# Bytes of a 64-bit number, with what comes before or after them; larger numbers could be made to
# collide in dicts.
_WHOLE = {'LONG1': 1 + 8, 'LONG4': 4 + 8, 'LONG': 22, 'INT': 22}
_MEMO = {'PUT', 'BINPUT', 'LONG_BINPUT'}
_NUMBERS = re.compile(r'[biufSU]\d{1,6}')  # types of arrays; others are objects, fields and dates


class _RefusedError(ValueError):
  """str(error) says what the pickle asks for."""


def load_plain_pickle(path: str | os.PathLike) -> Any:
  """Unpickles NumPy arrays of numbers or text, Python containers and scalars, and nothing else.

  Arrays come back as `numpy.ndarray`s or a subclass of it. Text of Python 2 is read as latin-1.

  Raises:
    InputError: no such file, not a complete pickle, or something in it that is refused, by name.
  """
  data = storage.read_bytes(path, 'a pickle of annotations')
  try:
    _check_instructions(data)
    content = _PlainUnpickler(io.BytesIO(data), encoding='latin1').load()
    _check_content(content, len(data))
    return content
  except _RefusedError as error:
    raise InputError(
      f'{path}: the pickle asks for {error}, which is not plain data, so it was not loaded; take '
      'the file from its publisher and do not trust this one'
    ) from error
  except Exception as error:  # bytes that are not a pickle raise almost anything
    why = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    raise InputError(f'{path}: is not a complete pickle file ({why}); download it again') from error


def _check_instructions(data: bytes) -> None:
  """Walks over a pickle without running it.

  Raises _RefusedError for instructions that plain data do not need, numbers of more than 64 bits,
  and indices of memory cells with which a small file would take all memory; ValueError, IndexError
  or struct.error if it is not a pickle.
  """
  position, count, stop, refused = 0, 0, ord('.'), ''
  while (byte := data[position]) != stop:
    code = _INSTRUCTIONS.get(byte)
    if code is None:
      raise ValueError(f'there is no instruction {byte:#x}, at byte {position}')
    if code.name in _REFUSED:
      refused = refused or f'the instruction {code.name}'  # raised only if this is a pickle
    start, count = position + 1, count + 1
    position = _end(data, start, code)
    if code.name in _WHOLE and position - start > _WHOLE[code.name]:
      raise _RefusedError('a number of more than 64 bits')
    if code.name in _MEMO:
      argument = data[start:position]
      cell = int(argument) if code.name == 'PUT' else int.from_bytes(argument, 'little')
      if not 0 <= cell <= count:  # writers number them from 0 (Python) or 1 (its first C version)
        raise _RefusedError(f'the memory cell {str(cell)[:20]}, after {count} instructions')
  if refused:
    raise _RefusedError(refused)


def _end(data: bytes, start: int, code: pickletools.OpcodeInfo) -> int:
  """Where the argument of an instruction ends."""
  if code.arg is None:
    return start
  length = code.arg.n
  if length == pickletools.UP_TO_NEWLINE:
    end = data.index(b'\n', start) + 1
    return data.index(b'\n', end) + 1 if code.name == 'GLOBAL' else end
  if length < 0:
    (length,) = struct.unpack_from(_PREFIXES[length], data, start)
    start += struct.calcsize(_PREFIXES[code.arg.n])
  if not 0 <= length <= len(data) - start:
    raise ValueError(f'{code.name} has {length} bytes, past the end of the file')
  return start + length


def _check_content(content: Any, size: int) -> None:
  """Raises _RefusedError for what is not plain data, or more of it than `size` bytes can hold.

  Parts may be used again and again, which would make a small file endless for its readers.
  """
  rest, seen = [(content, 0)], 0
  while rest:
    value, depth = rest.pop()
    seen += 1
    if isinstance(value, dict):
      inside = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
      inside = value
    else:
      inside = ()
      if isinstance(value, np.ndarray):
        seen += value.nbytes
      elif isinstance(value, int) and not -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
        raise _RefusedError('a number of more than 64 bits')
      elif not isinstance(value, None | bool | int | float | str | bytes | bytearray | np.generic):
        raise _RefusedError(str(value))
    if seen + len(inside) > size:
      raise _RefusedError('the same parts again and again, more than the file has bytes')
    if depth > _DEEPEST:
      raise _RefusedError(f'lists in lists, more than {_DEEPEST} deep')
    rest.extend((part, depth + 1) for part in inside)


class _PlainUnpickler(pickle.Unpickler):
  """An unpickler that finds nothing but stand-ins."""

  def find_class(self, module: str, name: str) -> '_Named':
    """The stand-in of that name."""
    if (module, name) not in _ALLOWED:
      raise _RefusedError(f'{module}.{name}'[:200])
    return _Named(module, name)


class _Named:
  """What a pickle gets for a name. It can be called, if plain data call it, and nothing else."""

  # Without a __dict__, so that the pickle can neither change it nor look anything up in it.
  __slots__ = ('_module', '_name')

  def __init__(self, module: str, name: str):
    object.__setattr__(self, '_module', module)
    object.__setattr__(self, '_name', name)

  def __setattr__(self, name: str, value: Any) -> None:
    raise _RefusedError(f'a change of {self}')

  def __str__(self) -> str:
    return f'{self._module}.{self._name}'

  def __call__(self, *arguments: Any) -> Any:
    make = _ALLOWED[self._module, self._name]
    if make is None:
      raise _RefusedError(f'a call of {self}')
    try:
      return make(*arguments)
    except _RefusedError:
      raise
    except Exception as error:
      raise _RefusedError(f'{self} with arguments that it cannot have ({error})'[:200]) from error

  def type(self) -> type:
    """The type of the name, for the values of a dict with a default."""
    kinds = {'list': list, 'dict': dict, 'int': int, 'long': int, 'float': float, 'set': set}
    return kinds[self._name]


class _Dtype:
  """The type of an array's numbers; its byte order comes in a second instruction."""

  __slots__ = ('_kind', '_order')

  def __init__(self, kind: str, *_: Any):
    if not isinstance(kind, str) or not _NUMBERS.fullmatch(kind):
      raise _RefusedError(f'numpy.dtype({str(kind)[:50]!r}): objects, fields and the like')
    self._kind, self._order = kind, '='

  def __setstate__(self, state: tuple) -> None:
    """The state is version, order, three entries for fields, size, alignment and flags."""
    _, order, *fields, size, _, flags = state
    # 8: new text is filled with zeros. Other flags turn numbers into pointers.
    if fields != [None] * 3 or flags not in (0, 8) or order not in ('<', '>', '|', '='):
      raise _RefusedError('a numpy.dtype with fields or flags')
    if size not in (-1, self.made().itemsize):
      raise _RefusedError(f'a numpy.dtype {self._kind} of {size} bytes'[:80])
    self._order = order

  def made(self) -> np.dtype:
    """NumPy's own dtype."""
    return np.dtype(self._order + self._kind)


class _PlainArray(np.ndarray):
  """An array that is filled by a second instruction, after a check."""

  def __setstate__(self, state: tuple) -> None:
    """The state is version, shape, type, whether columns come first, and bytes."""
    _, shape, dtype, fortran, data = state
    if isinstance(data, list):
      raise _RefusedError('a numpy.ndarray of objects')
    data = data.encode('latin1') if isinstance(data, str) else bytes(_checked(data, bytes))
    dtype = _checked(dtype, _Dtype).made()
    _check_shape(shape, dtype, len(data))
    super().__setstate__((1, shape, dtype, bool(fortran), data))


def _check_shape(shape: Any, dtype: np.dtype, size: int) -> None:
  sides = _checked(shape, tuple)
  fits = all(type(side) is int and 0 <= side <= max(size, 64) for side in sides)
  if not fits or len(sides) > 8 or math.prod(sides) * dtype.itemsize != size:
    raise _RefusedError(f'a numpy.ndarray of shape {str(shape)[:50]} in {size} bytes')


def _checked(value: Any, kind: type) -> Any:
  if not isinstance(value, kind):
    raise TypeError(f'{type(value).__name__} for {kind}'[:100])
  return value


def _empty_array(kind: Any, shape: Any, code: Any) -> _PlainArray:
  """numpy's _reconstruct, as arrays are pickled; the shape and the type come later."""
  if str(kind) != 'numpy.ndarray' or shape != (0,) or code not in (b'b', 'b'):
    raise _RefusedError(f'an array of the type {str(kind)[:50]}')
  return np.ndarray.__new__(_PlainArray, 0, np.int8)


def _array_of_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
  """numpy's _frombuffer, of protocol 5."""
  dtype = _checked(dtype, _Dtype).made()
  _check_shape(shape, dtype, len(_checked(data, bytes | bytearray)))
  return np.frombuffer(bytes(data), dtype).reshape(shape, order='F' if order == 'F' else 'C')


def _scalar(dtype: Any, data: Any = b'') -> np.generic:
  dtype = _checked(dtype, _Dtype).made()
  data = data.encode('latin1') if isinstance(data, str) else _checked(data, bytes)
  _check_shape((), dtype, len(data))
  return np.frombuffer(data, dtype)[0] if data else dtype.type()


def _encoded(text: str, encoding: str) -> bytes:
  """How protocol 2 spells bytes; data need no other codec."""
  if encoding not in ('latin1', 'latin-1'):
    raise _RefusedError(f'the codec {encoding!r}'[:80])
  return text.encode('latin1')


def _of_bytes(data: Any = b'', encoding: str = 'latin1') -> bytearray:
  return bytearray(_encoded(data, encoding) if isinstance(data, str) else _checked(data, bytes))


def _items(kind: type) -> Any:
  """Makes a container from a list; a number would be taken for a length."""
  return lambda items=(): kind(_checked(items, list | tuple | dict))


# By module and name: what to call, or None where plain data only mention it.
_ALLOWED: dict[tuple[str, str], Any] = {
  ('numpy', 'ndarray'): None,
  ('numpy', 'dtype'): _Dtype,
  ('_codecs', 'encode'): _encoded,
  ('collections', 'OrderedDict'): _items(collections.OrderedDict),
  ('collections', 'defaultdict'): lambda kind: collections.defaultdict(
    _checked(kind, _Named).type()
  ),
}
for _numpy in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2
  _ALLOWED[f'{_numpy}.multiarray', '_reconstruct'] = _empty_array
  _ALLOWED[f'{_numpy}.multiarray', 'scalar'] = _scalar
  _ALLOWED[f'{_numpy}.numeric', '_frombuffer'] = _array_of_bytes
for _builtins in ('builtins', '__builtin__'):  # Python 3 and 2
  _ALLOWED |= {(_builtins, name): None for name in ('list', 'dict', 'int', 'long', 'float')}
  _ALLOWED |= {
    (_builtins, 'bytes'): lambda: b'',
    (_builtins, 'bytearray'): _of_bytes,
    (_builtins, 'set'): _items(set),
    (_builtins, 'frozenset'): _items(frozenset),
  }
