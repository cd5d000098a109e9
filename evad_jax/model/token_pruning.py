"""Keyframe-centric token pruning (paper section 3.2) with static shapes.

The keyframe's S tokens come first and all stay. Of the others, the K most important stay; K is a
Python int known at trace time.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from evad_jax.errors import InputError
from evad_jax.model.layers import SAVED

Array = jax.Array


class Tokens(NamedTuple):
  """The remaining tokens, the keyframe's S first."""

  x: Array  # (B, n, D)
  places: Array  # (B, n - S) int32, index of each in the (t-1)*S non-keyframe sequence
  mask: Array | None  # (B, n) bool, False for padding tokens; None: nothing is masked


def num_kept(num_tokens: int, num_keyframe_tokens: int, keep_rate: float, block: int) -> int:
  """K = ceil(keep_rate * n) - S, the number of non-keyframe tokens that stay.

  Raises InputError if K would be negative or the rate lies outside (0, 1].
  """
  if not 0 < keep_rate <= 1:
    raise InputError(f'The keep rate of block {block} is {keep_rate}; it must be in (0, 1].')
  kept = math.ceil(keep_rate * num_tokens) - num_keyframe_tokens
  if kept < 0:
    smallest = math.ceil(1000 * num_keyframe_tokens / num_tokens) / 1000
    raise InputError(
      f'A keep rate of {keep_rate} at block {block} would drop tokens of the keyframe '
      f'({num_keyframe_tokens} of the {num_tokens} there); the smallest rate there is {smallest}.'
    )
  return kept


def prune(tokens: Tokens, importance: Array, kept: int) -> Tokens:
  """Keeps the keyframe's tokens and the `kept` most important others, in order of importance.

  importance: (B, n). Padding tokens count as -inf: they stay only when too few real ones are left.
  Ties go to the earlier token.
  """
  n_keyframe = tokens.x.shape[1] - tokens.places.shape[1]
  importance = importance[:, n_keyframe:]
  if tokens.mask is not None:
    importance = jnp.where(tokens.mask[:, n_keyframe:], importance, -jnp.inf)
  _, chosen = jax.lax.top_k(importance, kept)  # (B, K)
  # Recomputation may round and rank differently: the backward pass has to keep the same tokens.
  chosen = checkpoint_name(chosen, SAVED)

  def keep(a: Array) -> Array:  # (B, n, ...) -> (B, S + K, ...)
    return jnp.concatenate([a[:, :n_keyframe], choose(a[:, n_keyframe:], chosen)], axis=1)

  mask = None if tokens.mask is None else keep(tokens.mask)
  return Tokens(keep(tokens.x), choose(tokens.places, chosen), mask)


@jax.custom_vjp
def choose(x: Array, places: Array) -> Array:
  """Gathers the entries at distinct indices: (B, n, ...), (B, K) -> (B, K, ...).

  As no index repeats, the gradient is a gather too (`put`), not a scatter-add, which accelerators
  do one entry at a time.
  """
  return jnp.take_along_axis(x, places.reshape(*places.shape, *(1,) * (x.ndim - 2)), axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def put(x: Array, places: Array, length: int) -> Array:
  """Puts entries at distinct indices, zeros elsewhere: (B, K, ...), (B, K) -> (B, length, ...)."""
  if not places.shape[1]:
    return jnp.zeros((x.shape[0], length, *x.shape[2:]), x.dtype)
  entry = entry_at(places, length)
  entry = entry.reshape(*entry.shape, *(1,) * (x.ndim - 2))
  return jnp.take_along_axis(x, entry, axis=1, mode='fill', fill_value=0)


def entry_at(places: Array, length: int) -> Array:
  """The entry that goes to each index: (B, K) -> (B, length) int32; K where none does."""
  count = places.shape[1]
  empty = jnp.full(length, count, jnp.int32)
  numbers = jnp.arange(count, dtype=jnp.int32)
  return jax.vmap(lambda p: empty.at[p].set(numbers, unique_indices=True))(places)


choose.defvjp(
  lambda x, places: (choose(x, places), (places, x.shape[1])),
  lambda kept, gradient: (put(gradient, *kept), None),
)
put.defvjp(
  lambda x, places, length: (put(x, places, length), places),
  lambda length, places, gradient: (choose(gradient, places), None),
)
