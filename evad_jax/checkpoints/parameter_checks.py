"""Whether saved parameters are those of a model, and numbers at all."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from evad_jax.distributed.parameter_rules import by_path
from evad_jax.errors import InputError

Tree = Any


def check_fits(
  like: Tree,
  saved: Tree,
  where: Any,
  other: str = 'the configuration; use the configuration it was trained with, or another --workdir',
) -> None:
  """Raises InputError for the first array that is missing, left over or of another shape.

  other: what says how it should be, in words, and what to do.
  """
  ours, theirs = _shapes(like), _shapes(saved)
  for path in sorted(set(ours) | set(theirs)):
    if ours.get(path) != theirs.get(path):
      raise InputError(
        f'{where}: the checkpoint is of another model: {path} is '
        f'{theirs.get(path, "missing")} in the checkpoint and {ours.get(path, "missing")} in '
        f'{other}.'
      )


def check_finite(params: Tree, where: Any) -> None:
  """Raises InputError, naming it, for the first array of parameters with a number that is none."""
  for path, array in by_path(params).items():
    library = np if isinstance(array, np.ndarray) else jnp  # where the array is
    if not library.isfinite(array).all():
      raise InputError(
        f'{where}: {path} has numbers that are infinite or none; take another checkpoint.'
      )


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
  return {path: tuple(leaf.shape) for path, leaf in by_path(tree).items()}
