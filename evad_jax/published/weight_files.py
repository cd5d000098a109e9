"""Reads and writes files of published tensors by name: PyTorch's `.pth` and `.safetensors`.

PyTorch and safetensors are optional: they are imported only where a file needs them. A `.pth` is a
pickle, which could run any code: only tensors and plain containers are accepted.
"""

import argparse
import hashlib
import json
import os
import pickle  # only for its exception
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # registers bfloat16 with NumPy
import numpy as np

from evad_jax.errors import InputError
from evad_jax.files import atomic_files, storage

CONTAINERS = ('model_state', 'model', 'module')  # of EVAD; of VideoMAE; of VideoMAE as trained
COMPILED = '_orig_mod.'  # before every name in the file of a model that PyTorch had compiled
FLOATS = ('float32', 'float16', 'bfloat16')  # exact in float32
# NumPy's dtypes by their names in that format; it has others that NumPy lacks.
SAFETENSORS = {'F64': 'float64', 'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
SAFETENSORS |= {'I64': 'int64', 'I32': 'int32', 'BOOL': 'bool'}
SHARED = 8  # most bytes of the tensors per byte of the file: several may share storage
INSTALL = 'python -m pip install -r requirements-torch.txt'


class Source(NamedTuple):
  """The contents of a file."""

  path: Path
  tensors: dict[str, np.ndarray]  # float32, by published name
  container: str  # the key that they were under; empty if they were at the top level
  cfg: str  # text of the configuration beside them; empty if there is none
  sha256: str  # of the file


def read(path: str | os.PathLike) -> Source:
  """Reads a `.safetensors` file by its header, and any other file as PyTorch's format.

  Raises InputError where the file is missing, damaged, not what it claims to be, or could run code,
  and where a tensor has non-finite values or values that float32 cannot hold.
  """
  path = Path(path)
  if not path.is_file():
    raise InputError(f'{path}: there is no such file; give a .pth or .safetensors file.')
  source = _read_safetensors(path) if path.suffix == '.safetensors' else _read_torch(path)
  if all(name.startswith(COMPILED) for name in source.tensors):
    plain = {name.removeprefix(COMPILED): tensor for name, tensor in source.tensors.items()}
    source = source._replace(tensors=plain)
  _check_numbers(source)
  return source


def file_hash(path: Path) -> str:
  """sha256 of a file, in hexadecimal digits."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _import_torch() -> Any:
  try:
    import torch
  except ImportError as error:
    raise InputError(
      f'PyTorch is needed for .pth files and is not installed; install it with `{INSTALL}`, or '
      'use a .safetensors file.'
    ) from error
  return torch


def _import_safetensors() -> Any:
  try:
    import safetensors
    import safetensors.numpy
  except ImportError as error:
    raise InputError(
      f'The package safetensors is needed for this file and is not installed; install it with '
      f'`{INSTALL}`.'
    ) from error
  return safetensors


def _damaged(path: Path, why: Any) -> InputError:
  why = ' '.join(str(why).split()) or type(why).__name__
  return InputError(
    f'{path}: the file is truncated or damaged, or is not a checkpoint ({why[:200]}); download it '
    'again.'
  )


def _read_torch(path: Path) -> Source:
  torch = _import_torch()
  try:
    _check_archive(path)
    # VideoMAE's training arguments beside its tensors are such a namespace: plain data.
    with torch.serialization.safe_globals([argparse.Namespace]):
      loaded = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # damaged bytes raise almost anything
    forbidden = _forbidden_names(torch, path, error)
    if forbidden:
      raise InputError(
        f'{path}: refused, because loading it could run code: it names {", ".join(forbidden)}, '
        'and only tensors and plain containers are read; get the file from its publisher again, '
        'or its .safetensors version.'
      ) from error
    wrong = 'not a pickle of tensors' if isinstance(error, pickle.UnpicklingError) else error
    raise _damaged(path, wrong) from error
  container, tensors = _find_container(path, loaded, torch.Tensor)
  cfg = loaded.get('cfg', '')
  return Source(
    path,
    {name: _from_torch(torch, tensor) for name, tensor in tensors.items()},
    container,
    cfg if isinstance(cfg, str) else '',
    file_hash(path),
  )


def _check_archive(path: Path) -> None:
  """Raises ValueError for wrong checksums in the archive, which PyTorch itself does not check."""
  if zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
        raise ValueError('its parts are compressed or overlap, which PyTorch never writes')
      wrong = archive.testzip()
    if wrong:
      raise ValueError(f'the checksum of its part {wrong} is wrong')


def _forbidden_names(torch: Any, path: Path, error: Exception) -> list[str]:
  """The names of all functions and classes that a pickle needs and that are not allowed."""
  if not isinstance(error, pickle.UnpicklingError):
    return []
  try:
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
  except ValueError:  # the format before archives: from the error message
    names = re.findall(r'GLOBAL ([\w.]+\.[\w.]+)', str(error))
  return sorted(set(names))


def _find_container(path: Path, loaded: Any, tensor_type: type) -> tuple[str, dict]:
  """The key and the dict of tensors; an empty key if they are at the top level."""
  if not isinstance(loaded, dict):
    raise InputError(
      f'{path}: holds a {type(loaded).__name__} instead of tensors by name; give a checkpoint.'
    )
  found = [key for key in CONTAINERS if isinstance(loaded.get(key), dict)]
  if len(found) > 1:
    raise InputError(
      f'{path}: has tensors under {" and ".join(found)}; save only the one that is wanted.'
    )
  container = found[0] if found else ''
  tensors = loaded[container] if found else loaded
  strangers = [str(name) for name, value in tensors.items() if not isinstance(value, tensor_type)]
  if strangers or not tensors:
    raise InputError(
      f'{path}: expected tensors by name{f" under {container!r}" if found else ""}, but found '
      f'{", ".join(strangers) or "nothing"}; tensors must be under '
      f'{", ".join(CONTAINERS)}, or at the top level of the file.'
    )
  return container, tensors


def _from_torch(torch: Any, tensor: Any) -> np.ndarray:
  if tensor.dtype == torch.bfloat16:
    return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
  return tensor.detach().numpy()


def _read_safetensors(path: Path) -> Source:
  safetensors = _import_safetensors()
  try:
    with safetensors.safe_open(path, framework='np') as file:
      names = list(file.keys())
      kinds = {name: file.get_slice(name).get_dtype() for name in names}
      kinds = {name: SAFETENSORS.get(kind, kind) for name, kind in kinds.items()}
      _refuse_types(path, {name: kind for name, kind in kinds.items() if kind not in FLOATS})
      tensors = {name: file.get_tensor(name) for name in names}
      cfg = (file.metadata() or {}).get('cfg', '')
  except safetensors.SafetensorError as error:
    raise _damaged(path, error) from error
  return Source(path, tensors, '', cfg, file_hash(path))


def _check_numbers(source: Source) -> None:
  """Converts all tensors to float32; raises InputError listing those that cannot be."""
  size = sum(tensor.nbytes for tensor in source.tensors.values())
  if size > SHARED * source.path.stat().st_size:  # those of PyTorch may share storage
    raise InputError(
      f'{source.path}: its tensors would be {size:,} bytes, more than {SHARED} times the file; '
      'get the file from its publisher again.'
    )
  kinds = {name: str(tensor.dtype) for name, tensor in source.tensors.items()}
  _refuse_types(source.path, {n: kind for n, kind in kinds.items() if kind not in FLOATS})
  wrong = []
  for name, tensor in source.tensors.items():
    source.tensors[name] = tensor.astype(np.float32)
    if not np.isfinite(source.tensors[name]).all():
      wrong.append(f'{name} has non-finite values')
  if wrong:
    raise _unusable(source.path, wrong)


def _refuse_types(path: Path, strange: dict[str, str]) -> None:
  """Raises InputError naming the tensors whose dtype is not in FLOATS."""
  if strange:
    raise _unusable(path, [f'{name} is {kind}' for name, kind in strange.items()])


def _unusable(path: Path, problems: list[str]) -> InputError:
  return InputError(
    f'{path}: these tensors are not usable as float32: {"; ".join(problems)}; '
    f'they must be finite and {", ".join(FLOATS)}.'
  )


def write(path: str | os.PathLike, kind: str, tensors: dict, container: str, cfg: dict) -> None:
  """Writes float32 tensors as 'torch' or 'safetensors', atomically.

  container: the key for them in a `.pth`. cfg: settings, written as text beside them.
  """
  storage.refuse_address(path, 'A file to write')
  path = Path(path)
  tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
  text = json.dumps(cfg)  # JSON is valid YAML, the format of published files
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_files.replacing(path) as place:
    if kind == 'torch':
      torch = _import_torch()
      # Copies: arrays of a checkpoint may be read-only, which PyTorch does not support.
      tensors = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
      torch.save({container: tensors, 'cfg': text}, place)
    else:
      _import_safetensors().numpy.save_file(tensors, place, metadata={'cfg': text})
