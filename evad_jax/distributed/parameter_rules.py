"""Ordered lists of (pattern, value): the first pattern that matches a parameter's path decides."""

import re
from typing import Any

import jax

from evad_jax.errors import InputError

Params = Any
Rules = tuple[tuple[str, Any], ...]


def path_of(key_path: tuple) -> str:
  """A jax key path as 'encoder/block_0/norm1/scale'."""
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def by_path(tree: Any) -> dict[str, Any]:
  """Leaves by their paths, in the order of jax.tree.leaves.

  Raises InputError for two leaves of one path, as a key with a '/' can make them.
  """
  found: dict[str, Any] = {}
  for keys, leaf in jax.tree.leaves_with_path(tree):
    path = path_of(keys)
    if path in found:
      raise InputError(f'Two parameters are named {path!r}; take another checkpoint.')
    found[path] = leaf
  return found


def by_rules(params: Params, rules: Rules, where: str) -> Params:
  """The value of the first matching rule for every parameter, as a tree like `params`.

  where: the file with the rules. Raises InputError naming a parameter that no rule covers.
  """

  def decide(key_path: tuple, _: Any) -> Any:
    path = path_of(key_path)
    for pattern, value in rules:
      if re.fullmatch(pattern, path):
        return value
    raise InputError(f'No rule covers the parameter {path!r}; add one to {where}.')

  return jax.tree_util.tree_map_with_path(decide, params)
