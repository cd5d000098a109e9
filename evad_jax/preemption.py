"""SIGTERM, with which clusters announce that they want a machine back: stop soon, at one step.

Nothing is saved inside a signal handler; whoever works in steps asks between them.
"""

import signal
from typing import Any

import jax
from jax.experimental import multihost_utils


class Interrupted(Exception):
  """Work was left before its end, because `Preemption.requested` said so."""


class Preempted(Exception):
  """Training stopped on request, and its state is saved; str(error) says where it stands."""


class Preemption:
  """Whether a SIGTERM came, to this process or to any other of the run; use it in a `with`.

  All processes have to ask equally often: they are told to stop at the same question.
  """

  def __init__(self):
    """Does nothing until it is entered."""
    self._received = self._agreed = False
    self._asked = 0
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    """From here on SIGTERM no longer ends the process."""
    if jax.process_count() == 1:  # for several, JAX's own handler tells the others as well
      self._before = signal.signal(signal.SIGTERM, self._receive)
    return self

  def __exit__(self, *exception: Any) -> None:
    """Restores what SIGTERM did before."""
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _receive(self, *_: Any) -> None:
    self._received = True

  def received(self) -> bool:
    """Whether the signal came to this process, whatever the others know; without asking them."""
    return self._received

  def requested(self) -> bool:
    """Whether to stop now; once true, always true."""
    self._asked += 1
    if jax.process_count() == 1:
      return self._received
    self._agreed = self._agreed or multihost_utils.reached_preemption_sync_point(self._asked)
    return self._agreed
