"""SIGTERM, with which clusters announce that they want a machine back: stop soon, at one step.

Nothing is saved inside a signal handler; whoever works in steps asks between them. Several
processes answer with one exchange of a flag. JAX has a service for this too, which counts calls;
Orbax counts its own steps with the same counter, so that a signal soon after a save was never
heard. It is off (`processes.start`).
"""

import signal
from typing import Any

import jax

from evad_jax.distributed import processes


class Interrupted(Exception):
  """Work was left before its end, because `Preemption.requested` said so."""


class Preempted(Exception):
  """Training stopped on request, and its state is saved; str(error) says where it stands."""


class Preemption:
  """Whether a SIGTERM came, to this process or to any other of the run; use it in a `with`.

  All processes have to ask equally often: they are told to stop at the same question.
  """

  def __init__(self, agree_every: int = 1):
    """Does nothing until it is entered. agree_every: steps between questions of several hosts."""
    self._agree_every = agree_every
    self._received = self._agreed = False
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    """From here on SIGTERM no longer ends the process."""
    self._before = signal.signal(signal.SIGTERM, self._receive)
    return self

  def __exit__(self, *exception: Any) -> None:
    """Restores what SIGTERM did before."""
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _receive(self, *_: Any) -> None:
    self._received = True

  def received_alone(self) -> bool:
    """Whether the signal came and there is nobody to agree with; without asking anybody."""
    return self._received and jax.process_count() == 1

  def requested(self) -> bool:
    """Whether to stop now; once true, always true."""
    self._agreed = self._agreed or processes.any_of(self._received)
    return self._agreed

  def asked(self, step: int, always: bool) -> bool:
    """`requested`, at the steps after which processes ask each other; one alone asks at each."""
    asks = jax.process_count() == 1 or always or step % self._agree_every == 0
    return asks and self.requested()
