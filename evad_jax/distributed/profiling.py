"""A trace of a few steps, with what every kernel takes: config.profile says which.

Whatever happens to the trace, the run goes on: what goes wrong with it is told.
"""

import contextlib
from pathlib import Path
from typing import Any

import jax

from evad_jax.distributed.processes import is_first, tell


class Profile(contextlib.AbstractContextManager):
  """Traces `steps` steps from the `start`-th on, counted from 1; use it in a `with`.

  Process 0 alone does; it ends with the block at the latest, if the work ends in the middle.
  """

  def __init__(self, settings: Any, directory: Path | None):
    """settings: start (0: off) and steps. directory: gets the trace; None: off."""
    off = not settings.start or directory is None or not is_first()
    self._first = None if off else settings.start
    self._steps, self._directory, self._end = settings.steps, directory, None

  def before(self, number: int) -> None:
    """To be called before step `number` is dispatched; begins where the trace has to.

    A run that is continued after that step begins at once, unless it was past the last.
    """
    if self._first is None or not self._first <= number < self._first + self._steps:
      return
    self._end, self._first = self._first + self._steps - 1, None
    self._try(lambda: jax.profiler.start_trace(str(self._directory)), 'begun')

  def after(self, number: int, computed: Any = None) -> None:
    """To be called after step `number`; waits for `computed` where the trace ends there."""
    if self._end is not None and number >= self._end:
      jax.block_until_ready(computed)
      self._stop()

  def _stop(self) -> None:
    if self._end is None:
      return
    self._end = None
    if self._try(jax.profiler.stop_trace, 'written'):
      tell(
        f'The trace is in {self._directory}; look at it with: pip install xprof; '
        f'tensorboard --logdir {self._directory}'
      )

  def _try(self, act: Any, what: str) -> bool:
    try:
      act()
    except Exception as error:  # whatever it is, it is not worth the run
      self._end = None
      tell(f'The trace cannot be {what}: {" ".join(str(error).split())[:200]}; going on without.')
      return False
    return True

  def __exit__(self, *exception: Any) -> None:
    """Writes what there is."""
    self._stop()
