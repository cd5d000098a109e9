"""SIGTERM, by which clusters announce a preemption: all processes stop soon, at the same step.

The signal handler saves nothing: it sets a flag, which training and evaluation check between steps.
Several processes agree by exchanging the flag. JAX's preemption service is off (`processes.start`):
it counts calls, Orbax counts its own steps with the same counter, and so a signal soon after a save
was lost.
"""

import signal
from typing import Any

import jax

from evad_jax.distributed import processes


class Interrupted(Exception):
  """Work stopped early, because `Preemption.requested` returned True."""


class Preempted(Exception):
  """Training stopped on request, and its state is saved; str(error) names the step."""


class Preemption:
  """Whether a SIGTERM came to any process of the run; a context manager.

  All processes have to ask equally often; all get the answer to stop at the same call.
  """

  def __init__(self, agree_every: int = 1):
    """Does nothing until entered. agree_every: steps between exchanges of several processes."""
    self._agree_every = agree_every
    self._received = self._agreed = False
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    """Installs the handler: SIGTERM no longer ends the process."""
    self._before = signal.signal(signal.SIGTERM, self._receive)
    return self

  def __exit__(self, *exception: Any) -> None:
    """Restores the previous handler of SIGTERM."""
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _receive(self, *_: Any) -> None:
    self._received = True

  def received_alone(self) -> bool:
    """Whether the signal came to a run of one process; communicates nothing."""
    return self._received and jax.process_count() == 1

  def requested(self) -> bool:
    """Whether to stop now; once true, always true."""
    self._agreed = self._agreed or processes.any_of(self._received)
    return self._agreed

  def asked(self, step: int, always: bool) -> bool:
    """`requested`, at the steps where processes exchange the flag; one process checks every step.

    always: exchange at this step in any case.
    """
    asks = jax.process_count() == 1 or always or step % self._agree_every == 0
    return asks and self.requested()
