"""Checks that saved parameters match a model and are finite."""

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

  other: in words, what the checkpoint is compared with, and what to do.
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
  """Raises InputError naming the first parameter array with a non-finite value."""
  for path, array in by_path(params).items():
    library = np if isinstance(array, np.ndarray) else jnp  # where the array is
    if not library.isfinite(array).all():
      raise InputError(f'{where}: {path} has non-finite values; take another checkpoint.')


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
  return {path: tuple(leaf.shape) for path, leaf in by_path(tree).items()}
