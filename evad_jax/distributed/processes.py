"""Connects the processes of a run, and exchanges values between them.

Every function works for a single process too, at no cost.
"""

import contextlib
import os
import pickle
import sys
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from evad_jax.errors import EXIT_BAD_INPUT, InputError

LAUNCHES = ('alone', 'auto', 'explicit')
_TIMEOUT = 300  # seconds that processes wait for each other at the start
_FAREWELL = 15  # seconds at the end; also how long the others hang when one process fails


def start(settings: Any) -> None:
  """Connects the processes of a run; must be called before anything is computed.

  settings: launch ('alone', 'auto' for TPU pods, Slurm, MPI and the like, or 'explicit'), and for
  'explicit' coordinator ('host:port' of process 0), processes and process.

  Raises InputError where the settings contradict each other. Where the other processes do not
  connect in time, it prints an error and ends the program with the exit status of bad input.
  """
  if settings.launch not in LAUNCHES:
    raise InputError(f'config.hosts.launch={settings.launch!r} is not one of {LAUNCHES}.')
  if settings.launch == 'alone':
    return
  arguments = {}
  if settings.launch == 'explicit':
    _check_explicit(settings)
    arguments = {
      'coordinator_address': settings.coordinator,
      'num_processes': settings.processes,
      'process_id': settings.process,
    }
  # Its handler would swallow a SIGTERM before the first step; see preemption.py.
  jax.config.update('jax_enable_preemption_service', False)
  place = f'config.hosts.launch={settings.launch}: the processes did not find each other'
  advice = (
    f'start all of them at once, each with its own number, and with the coordinator '
    f'{settings.coordinator}, which all of them must be able to reach'
    if arguments
    else 'start it by srun, mpirun or on all workers of a TPU pod, or use "explicit"'
  )
  try:
    with _ended_after(_TIMEOUT, f'{place} within {_TIMEOUT} seconds; {advice}.'):
      jax.distributed.initialize(
        initialization_timeout=_TIMEOUT + 60, shutdown_timeout_seconds=_FAREWELL, **arguments
      )
  except (RuntimeError, ValueError) as error:
    raise InputError(f'{place} ({" ".join(str(error).split())[:200]}); {advice}.') from error


@contextlib.contextmanager
def _ended_after(seconds: float, told: str) -> Iterator[None]:
  """Ends the program with an error message unless the block finishes in time.

  Otherwise the library below JAX aborts with a stack trace, which nothing can catch.
  """

  def end() -> None:
    print(f'error: {told}', file=sys.stderr, flush=True)
    os._exit(EXIT_BAD_INPUT)  # the main thread is not in Python

  timer = threading.Timer(seconds, end)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _check_explicit(settings: Any) -> None:
  host, _, port = settings.coordinator.rpartition(':')
  if not host or not port.isdecimal():
    raise InputError(
      f'config.hosts.coordinator={settings.coordinator!r} must be HOST:PORT of process 0, such as '
      '"10.0.0.2:12345".'
    )
  if not 0 <= settings.process < settings.processes:
    raise InputError(
      f'config.hosts.process={settings.process} must be 0 to {settings.processes - 1}: '
      'config.hosts.processes counts them all.'
    )


def stop() -> None:
  """Waits for the other processes, and disconnects; does nothing without a connection."""
  if jax.distributed.is_initialized():
    wait_for_all('end')  # process 0 may still be writing, with no limit of time
    jax.distributed.shutdown()


def is_first() -> bool:
  """Whether this is process 0, the one that prints and writes."""
  return jax.process_index() == 0


def share() -> tuple[int, int]:
  """The index of this process, and the number of processes."""
  return jax.process_index(), jax.process_count()


def tell(text: str) -> None:
  """Prints, in process 0 only."""
  if is_first():
    print(text, flush=True)


def wait_for_all(name: str) -> None:
  """Returns once every process has called it."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def any_of(flag: bool) -> bool:
  """Whether the flag is true in any process; all processes must call it."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


def same_everywhere(value: Any) -> bool:
  """Whether all processes have this value, compared by its repr; all processes must call it."""
  if jax.process_count() == 1:
    return True
  checksums = multihost_utils.process_allgather(np.array(zlib.crc32(repr(value).encode())))
  return len(set(checksums.tolist())) == 1


def gather(items: list[Any]) -> list[Any]:
  """Returns the items of all processes, in process order, on every process; items must pickle.

  Processes with items send in turn, so devices hold the items of one process at a time, however
  many processes there are.
  """
  if jax.process_count() == 1:
    return items
  own = np.frombuffer(pickle.dumps(items) if items else b'', np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(own)))
  found = []
  for process, size in enumerate(sizes):
    if not size:
      continue
    sender = process == jax.process_index()
    padded = np.zeros(sizes.max(), np.uint8)  # one shape, one compiled program
    if sender:
      padded[:size] = own
    sent = multihost_utils.broadcast_one_to_all(padded, is_source=sender)
    found += pickle.loads(np.asarray(sent)[:size].tobytes())
  return found
