"""The newest checkpoint that is whole, whatever happened to those after it."""

from typing import Any

from evad_jax import distributed
from evad_jax.checkpoint import SET_ASIDE, Checkpoints, DamagedError
from evad_jax.errors import InputError


def restore_newest(checkpoints: Checkpoints, like: Any) -> tuple[int, Any, dict] | None:
  """Step, state and data position of the newest checkpoint that is whole; None without any.

  like: shapes, types and shardings of the state. Damaged checkpoints are told, and set aside under
  another name. Raises InputError where all are damaged, or where they are of another model.
  """
  steps = checkpoints.all_steps()
  for step in reversed(steps):
    try:
      position = checkpoints.position(step)
      return step, checkpoints.restore(step, like), position
    except DamagedError as error:
      distributed.tell(f'{error} It is set aside, and the one before it is taken.')
      checkpoints.set_aside(step)
  if steps:
    raise InputError(
      f'{checkpoints.directory}: none of its checkpoints can be read; they were set aside as '
      f'{SET_ASIDE}*. Copy one back from elsewhere, or start the run anew.'
    )
  return None
