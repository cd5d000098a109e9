"""Profiler trace of the few steps that config.profile selects, with the time of every kernel.

A failed trace does not end the run: the error is printed.
"""

import contextlib
from pathlib import Path
from typing import Any

import jax

from evad_jax.distributed.processes import is_first, tell


class Profile(contextlib.AbstractContextManager):
  """Traces `steps` steps from step `start` on, counted from 1; a context manager.

  Only process 0 traces. The trace ends with the block at the latest.
  """

  def __init__(self, settings: Any, directory: Path | None):
    """settings: start (0: off) and steps. directory: for the trace; None: off."""
    off = not settings.start or directory is None or not is_first()
    self._first = None if off else settings.start
    self._steps, self._directory, self._end = settings.steps, directory, None

  def before(self, number: int) -> None:
    """Starts the trace where it is due; call it before step `number` is dispatched.

    A run that resumes inside the traced steps starts the trace at once.
    """
    if self._first is None or not self._first <= number < self._first + self._steps:
      return
    self._end, self._first = self._first + self._steps - 1, None
    self._try(lambda: jax.profiler.start_trace(str(self._directory)), 'started')

  def after(self, number: int, computed: Any = None) -> None:
    """Ends the trace where it is due, after waiting for `computed`; call it after step `number`."""
    if self._end is not None and number >= self._end:
      jax.block_until_ready(computed)
      self._stop()

  def _stop(self) -> None:
    if self._end is None:
      return
    self._end = None
    if self._try(jax.profiler.stop_trace, 'written'):
      tell(
        f'The trace is in {self._directory}; view it with: pip install xprof; '
        f'tensorboard --logdir {self._directory}'
      )

  def _try(self, act: Any, what: str) -> bool:
    try:
      act()
    except Exception as error:  # no failure of a trace is worth the run
      self._end = None
      tell(
        f'Warning: the trace cannot be {what}: {" ".join(str(error).split())[:200]}; the run goes '
        'on without it.'
      )
      return False
    return True

  def __exit__(self, *exception: Any) -> None:
    """Writes the trace, if one was started."""
    self._stop()
