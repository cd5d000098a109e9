"""Disks that are full, read-only or failing: the reason in words, whichever library raised it.

Also refuses paths that cannot be meant: addresses, which would silently become folders named 'gs:';
untrusted names that leave the directory they belong to; and devices where files are expected.
"""

import contextlib
import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from evad_jax import printable
from evad_jax.errors import InputError

# How TensorStore, below Orbax, quotes the operating system inside an error of another type.
_QUOTED_ERRNO = re.compile(r"os_error_code='(\d+)'")
# Errors that keep a file from being written through no fault of the program.
_UNWRITABLE = {
  getattr(errno, name)
  for name in 'ENOSPC EDQUOT EROFS EACCES EPERM EIO EFBIG ENOTDIR EISDIR ESTALE ENODEV'.split()
}

# Those of them that reading a file never raises.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}

# pathlib leaves one slash of two; a single letter would be a Windows drive.
_ADDRESS = re.compile(r'([a-z][a-z0-9+.-]+:)/', re.IGNORECASE)
_LONGEST_NAME = 255  # bytes, the limit of file systems


def refuse_address(path: str | os.PathLike, name: str) -> None:
  """Raises InputError for an address such as gs://bucket/run; name: the flag or key that has it."""
  text = str(path)
  found = _ADDRESS.match(text)
  if found and not os.path.isdir(found[1]):  # a directory may have such a name
    address = re.sub(':/+', '://', text, count=1)
    raise InputError(
      f'{name} is {address}, an address, not a folder; mount the bucket (gs:// by gcsfuse, s3:// '
      'by mountpoint-s3) and give the path of the mounted folder.'
    )


def fault_of_name(name: str) -> str:
  """Why a name cannot be that of anything below a directory; '' if it can."""
  parts = name.split('/')
  if not name.strip():
    return 'is empty'
  if printable.name_of(name) != name:
    return 'has characters that cannot be printed'
  if '..' in parts:
    return 'leaves its directory by ..'
  if max(len(part.encode()) for part in parts) > _LONGEST_NAME:
    return f'is longer than {_LONGEST_NAME} bytes'
  return ''


def below(directory: str | os.PathLike, name: str) -> Path:
  """The path of an untrusted name below a directory, which it cannot leave.

  Accents may be separate characters on the disk and not in the name, or the other way round.

  Raises InputError for an absolute path elsewhere, one with .., or a name that no file can have.
  """
  fault, root = fault_of_name(name), os.path.abspath(directory)
  if not fault and os.path.isabs(name):
    if os.path.commonpath([root, name]) == root:
      name = os.path.relpath(name, root)
    else:
      fault = 'is elsewhere'
  if fault:
    raise InputError(f'{name[:100]!r} {fault}; it has to be the name of something below {root}.')
  forms = [name, *(unicodedata.normalize(form, name) for form in ('NFC', 'NFD'))]
  paths = [Path(directory, form) for form in forms]
  return next((path for path in paths if path.exists()), paths[0])


def free(path: Path) -> Path:
  """The path, with a number behind its name where something is there already."""
  place, number = path, 1
  while place.exists():
    number += 1
    place = path.with_name(f'{path.name}-{number}')
  return place


def read_bytes(path: str | os.PathLike, noun: str) -> bytes:
  """The bytes of a file, or of a pipe made by a shell (`<(zcat ...)`, /dev/stdin).

  noun: what it should be, for messages. Raises InputError for a file that cannot be read, and for
  what may never end: devices, and other pipes.
  """
  try:
    kind = os.stat(path).st_mode
    piped = stat.S_ISFIFO(kind) and os.path.realpath(path).startswith(('/proc/', '/dev/'))
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or piped):
      raise InputError(f'{path} is a device, not a file; give {noun}.')
    return Path(path).read_bytes()
  except OSError as error:
    raise InputError(f'{path} cannot be read ({error.strerror}); give {noun}.') from error
  except ValueError as error:  # a zero byte in the name
    raise InputError(f'{str(path)!r} is not a file name ({error}); give {noun}.') from error


def reason(error: BaseException | None) -> str | None:
  """The operating system's message, or None if the error is not about files."""
  number = _number(error)
  return None if number is None else os.strerror(number)


def why_unwritable(error: BaseException | None) -> str | None:
  """The same, if the error is about a file that cannot be written."""
  number = _number(error)
  return os.strerror(number) if number in _UNWRITABLE else None


def _number(error: BaseException | None) -> int | None:
  while error is not None:
    quoted = _QUOTED_ERRNO.search(str(error))
    if quoted:
      return int(quoted[1])
    if isinstance(error, OSError) and error.errno is not None:
      return error.errno
    error = error.__cause__ or error.__context__
  return None


@contextlib.contextmanager
def told(path: Path, instead: str = 'another --workdir') -> Iterator[None]:
  """Turns an error of writing below `path` into an InputError; any other passes unchanged.

  instead: what to give instead.
  """
  try:
    yield
  except InputError:
    raise
  except Exception as error:
    why = why_unwritable(error)
    if why is None:
      raise
    what = 'written' if _number(error) in _OF_WRITING else 'read or written'
    raise InputError(
      f'{getattr(error, "filename", None) or path}: cannot be {what}: {why}; fix that, or give '
      f'{instead}, and start the same command again.'
    ) from error
