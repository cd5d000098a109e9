"""Reads the named arrays of an npz file, as this project writes them, without trusting it.

NumPy's own reader would decompress members, and allocate whatever memory a header asks for.
"""

import io
import math
import os
import re
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from evad_jax.errors import InputError
from evad_jax.files import storage

# As NumPy writes it, unchanged since version 1.0 of the format. NumPy itself parses the header as
# Python, and fails in many ways if it is not.
_HEADER = re.compile(
  rb"\x93NUMPY\x01\x00(..)\{'descr': '([<>|][biufU]\d{1,6})', 'fortran_order': (True|False), "
  rb"'shape': \(([\d, ]{0,60})\), \} *\n",
  re.DOTALL,
)
Kind = tuple[str, int]  # NumPy's letters for kinds of types, as in 'iu', and the number of axes


def read(
  path: str | os.PathLike, needed: Mapping[str, Kind], optional: Mapping[str, Kind], again: str
) -> dict[str, np.ndarray]:
  """The arrays of these names; those of `optional` if the file has them.

  again: how to make the file, for messages. Raises InputError for a file that cannot be read, lacks
  an array, or has one of another kind.
  """
  data = storage.read_bytes(path, f'another, or {again}')
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      members = {member.filename: member for member in archive.infolist()}
      if sum(member.file_size for member in members.values()) > len(data):
        raise ValueError('its arrays are larger than the file')
      arrays = {
        name: _array(archive.read(members[f'{name}.npy']), name, kind)
        for name, kind in (needed | optional).items()
        if name in needed or f'{name}.npy' in members
      }
  except (
    ValueError,
    KeyError,
    EOFError,
    OSError,
    NotImplementedError,
    zipfile.BadZipFile,
  ) as error:
    raise InputError(f'{path}: the file is damaged ({str(error)[:200]}); {again}') from error
  except (RuntimeError, zlib.error) as error:  # encrypted, or packed with another program
    raise InputError(f'{path}: is not a file of arrays ({str(error)[:200]}); {again}') from error
  return arrays


def _array(data: bytes, name: str, kind: Kind) -> np.ndarray:
  header = _HEADER.match(data)
  if not header:
    raise ValueError(f'{name} has a header that is not of numbers or text')
  _, dtype, columns_first, sides = header.groups()
  dtype = np.dtype(dtype.decode())
  shape = tuple(int(side[:19]) for side in re.findall(rb'\d+', sides))
  kinds, axes = kind
  if dtype.kind not in kinds or len(shape) != axes:
    raise ValueError(f'{name} is of type {dtype} and shape {shape}')
  values = data[header.end() :]
  if math.prod(shape) * dtype.itemsize != len(values):
    raise ValueError(f'{name} has {len(values)} bytes for the shape {shape}')
  if not len(values):  # NumPy makes no empty array from bytes
    return np.zeros(shape, dtype)
  order = 'F' if columns_first == b'True' else 'C'
  return np.frombuffer(values, dtype).reshape(shape, order=order)
