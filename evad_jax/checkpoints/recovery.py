"""Restores the newest intact checkpoint; damaged ones are set aside."""

from typing import Any

from evad_jax.checkpoints.manager import SET_ASIDE, Checkpoints, DamagedError
from evad_jax.distributed import processes
from evad_jax.errors import InputError


def restore_newest(checkpoints: Checkpoints, like: Any) -> tuple[int, Any, dict] | None:
  """Step, state and data position of the newest intact checkpoint; None without any.

  like: shapes, dtypes and shardings of the state. Damaged checkpoints are reported, and set aside
  under another name. Raises InputError where all are damaged, where they are of another model, or
  where the processes of a run find different ones.
  """
  steps = checkpoints.all_steps()
  if not processes.same_everywhere(steps):
    raise InputError(
      f'{checkpoints.directory}: the processes of this run find different checkpoints there; give '
      'a --workdir that all hosts share.'
    )
  for step in reversed(steps):
    problem = found = None
    try:
      # `restore` checks all files first, shared among the processes.
      found = step, checkpoints.restore(step, like), checkpoints.position(step)
    except DamagedError as error:
      problem = error
    if not processes.any_of(problem is not None):
      return found
    problem = problem or f'{checkpoints.directory / str(step)}: another process cannot read it.'
    processes.tell(f'{problem} Set aside; trying the checkpoint before it.')
    checkpoints.set_aside(step)
  if any(checkpoints.directory.glob(f'{SET_ASIDE}*')):
    raise InputError(
      f'{checkpoints.directory}: none of its checkpoints could be read; they were set aside as '
      f'{SET_ASIDE}*. Copy one back from elsewhere, or start anew with another --workdir.'
    )
  return None
