"""Locks a directory for one program; the lock ends with the program, however that ends."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from evad_jax.errors import InputError
from evad_jax.files import storage

NAME = '.lock'
# Errors of file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(directory: Path, what: str, instead: str) -> Iterator[None]:
  """Keeps other processes out of a directory, which is made if need be.

  The operating system releases the lock when this process ends, even if it is killed. If the file
  system has no locks, this prints a warning and keeps nobody out.

  Args:
    directory: its holder writes its name to the file NAME there, which is removed in the end.
    what: the holder does there, for the message to others.
    instead: what others could give instead.

  Raises:
    InputError: another process holds it, or it cannot be written to.
  """
  made = not directory.exists()
  if not made and not directory.is_dir():
    raise InputError(f'{directory}: is a file, not a directory; give {instead}.')
  with storage.told(directory, instead):
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(directory, what, instead)
  try:
    yield
  finally:
    # Removed while it is held: whoever opened it before finds that it is gone.
    (directory / NAME).unlink(missing_ok=True)
    os.close(descriptor)
    if made:
      with contextlib.suppress(OSError):  # it is in use
        directory.rmdir()


def _locked(directory: Path, what: str, instead: str) -> int:
  """The descriptor that holds the lock."""
  path = directory / NAME
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if not _is_still(path, descriptor):
        os.close(descriptor)  # its holder has ended and removed it
        continue
    except BlockingIOError as error:
      holder = os.read(descriptor, 1000).decode(errors='replace').strip()
      os.close(descriptor)
      raise InputError(
        f'{directory}: another process is {what} here ({holder or "it has just started"}); wait '
        f'for it, stop it, or give {instead}.'
      ) from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        os.close(descriptor)
        raise
      print(
        f'{directory}: its file system has no locks ({os.strerror(error.errno)}); make sure that '
        'nothing else writes here',
        flush=True,
      )
      return descriptor
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
  """Whether the path names the file that is open."""
  try:
    return os.path.samestat(os.stat(path), os.fstat(descriptor))
  except FileNotFoundError:
    return False
