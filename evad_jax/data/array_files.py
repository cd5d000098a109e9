"""Arrays by name in an npz file, as this project writes them, read without trusting it.

NumPy's own reader would unpack what is compressed, and ask for memory by what a header says.
"""

import io
import math
import os
import zipfile
from collections.abc import Mapping

import numpy as np

from evad_jax import storage
from evad_jax.errors import InputError

Kind = tuple[str, int]  # letters of NumPy's kinds of types, as in 'iu', and the number of axes


def read(
  path: str | os.PathLike, needed: Mapping[str, Kind], optional: Mapping[str, Kind], again: str
) -> dict[str, np.ndarray]:
  """The arrays of these names, those of `optional` where they are there.

  again: how the file is made, for messages. Raises InputError for a file that cannot be read, lacks
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
  except RuntimeError as error:  # encrypted; or a header that is nested without end
    raise InputError(f'{path}: is no file of arrays ({str(error)[:200]}); {again}') from error
  return arrays


def _array(data: bytes, name: str, kind: Kind) -> np.ndarray:
  file = io.BytesIO(data)
  version = np.lib.format.read_magic(file)
  if version != (1, 0):  # the others are for names of columns, and for very many of them
    raise ValueError(f'{name} is of the version {version}')
  try:
    shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
  except (MemoryError, SyntaxError, TypeError) as error:  # of Python's parser, at nested brackets
    raise ValueError(f'{name} has a header that is none') from error
  kinds, axes = kind
  if dtype.kind not in kinds or len(shape) != axes:
    raise ValueError(f'{name} is of type {dtype} and shape {shape}')
  values = data[file.tell() :]
  if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(values):
    raise ValueError(f'{name} has {len(values)} bytes for the shape {shape}')
  if not len(values):  # NumPy makes no array of nothing from bytes
    return np.zeros(shape, dtype)
  return np.frombuffer(values, dtype).reshape(shape, order='F' if columns_first else 'C')
