"""Attention and importance with memory linear in N: one block of queries at a time.

Computes what `attention.attend` does, with the same arguments. A block holds its rows of the
attention matrix, all N columns, and discards them. The backward pass recomputes them from the saved
log-sum-exp of every row, as in arXiv 2205.14135. The weighted column sums of the importance (paper
section 3.2) are accumulated block by block.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from evad_jax.model.layers import SAVED, at_least_float32

Array = jax.Array

# Queries per block. On a CPU, 288 to 864 were equally fast, and smaller blocks slower.
ROWS = 512


def attend_blocked(
  query: Array,  # (B, heads, N, d)
  key: Array,  # (B, heads, N, d)
  value: Array,  # (B, heads, N, d)
  *,
  key_mask: Array | None = None,  # (B, N) bool; False: not attended to
  query_weight: Array | None = None,  # (B, N); weight of each row in the importance
  rows: int = ROWS,  # per block, at most
  one_by_one: bool = True,  # each head of each clip on its own
) -> tuple[Array, Array | None]:  # (B, heads, N, d), (B, N) or None
  """Softmax attention, and the importance of every token if `query_weight` is given.

  One head of one clip at a time suits a CPU, whose caches then hold a block. Where many are
  computed at once (an accelerator, a batch sharded over devices), all share a block.
  """
  return _attend(query, key, value, key_mask, query_weight, rows, one_by_one)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend(
  query: Array,
  key: Array,
  value: Array,
  key_mask: Array | None,
  query_weight: Array | None,
  rows: int,
  one_by_one: bool,
) -> tuple[Array, Array | None]:
  return _attend_forward(query, key, value, key_mask, query_weight, rows, one_by_one)[0]


def _attend_forward(query, key, value, key_mask, query_weight, rows, one_by_one):
  """Returns the two results, and what the backward pass needs."""
  arrays = (query, key, value, *_for_heads(query, key_mask, query_weight))
  call = functools.partial(_forward, rows=rows)
  out, log_total, columns = _over_heads(call, arrays, one_by_one)
  out, log_total = checkpoint_name((out, log_total), SAVED)
  importance = None
  if query_weight is not None:
    importance = columns.mean(axis=1) / query.shape[2]
  return (out, importance), (query, key, value, key_mask, out, log_total)


def _attend_backward(rows, one_by_one, residuals, cotangents):
  """No gradient flows through the choice of tokens: the cotangent of the importance is ignored."""
  query, key, value, key_mask, out, log_total = residuals
  out_grad = cotangents[0]
  (mask,) = _for_heads(query, key_mask)
  arrays = (query, key, value, mask, out, log_total, out_grad)
  grads = _over_heads(functools.partial(_backward, rows=rows), arrays, one_by_one)
  return (*grads, None, None)


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(
  query: Array,  # (..., N, d)
  key: Array,  # (..., N, d)
  value: Array,  # (..., N, d)
  key_mask: Array | None,  # (..., N)
  query_weight: Array | None,  # (..., N)
  *,
  rows: int,
) -> tuple[Array, Array, Array | None]:  # out (..., N, d), log of row sums and columns (..., N)
  wide = at_least_float32(query.dtype)
  query = query * query.shape[-1] ** -0.5

  def add_block(columns: Array | None, block: Any) -> tuple[Array | None, tuple[Array, Array]]:
    q, weight = block
    logits = _logits(q, key, key_mask)  # (..., r, N)
    largest = logits.max(axis=-1, keepdims=True)
    weights = jnp.exp(logits - largest)
    total = weights.sum(axis=-1)
    out = _product('...qk,...kd->...qd', weights.astype(value.dtype), value) / total[..., None]
    if columns is not None:
      columns = columns + jnp.einsum('...q,...qk->...k', weight / total, weights)
    return columns, (out.astype(value.dtype), largest[..., 0] + jnp.log(total))

  start, weights = None, None
  if query_weight is not None:
    start = jnp.zeros(key.shape[:-1], wide)
    weights = _split(query_weight.astype(wide), -1, rows)
  columns, (out, log_total) = jax.lax.scan(add_block, start, (_split(query, -2, rows), weights))
  length = query.shape[-2]
  return _join(out, -2, length), _join(log_total, -1, length), columns


def _backward(
  query: Array,  # (..., N, d)
  key: Array,  # (..., N, d)
  value: Array,  # (..., N, d)
  key_mask: Array | None,  # (..., N)
  out: Array,  # (..., N, d)
  log_total: Array,  # (..., N)
  out_grad: Array,  # (..., N, d)
  *,
  rows: int,
) -> tuple[Array, Array, Array]:  # gradients of query, key and value
  wide, scale = at_least_float32(query.dtype), query.shape[-1] ** -0.5
  query = query * scale
  # What the normalisation of a row subtracts from the gradient of its logits.
  shared = (out_grad.astype(wide) * out.astype(wide)).sum(axis=-1)  # (..., N)

  def add_block(grads: tuple[Array, Array], block: Any) -> tuple[tuple[Array, Array], Array]:
    q, total, g, common = block
    key_grad, value_grad = grads
    attention = jnp.exp(_logits(q, key, key_mask) - total[..., None])  # (..., r, N)
    value_grad += _product('...qk,...qd->...kd', attention.astype(g.dtype), g)
    logits_grad = attention * (_product('...qd,...kd->...qk', g, value) - common[..., None])
    logits_grad = logits_grad.astype(q.dtype)
    key_grad += _product('...qk,...qd->...kd', logits_grad, q)
    query_grad = _product('...qk,...kd->...qd', logits_grad, key) * scale
    return (key_grad, value_grad), query_grad.astype(q.dtype)

  start = jnp.zeros(key.shape, wide), jnp.zeros(value.shape, wide)
  blocks = (
    _split(query, -2, rows),
    _split(log_total, -1, rows),
    _split(out_grad, -2, rows),
    _split(shared, -1, rows),
  )
  (key_grad, value_grad), query_grad = jax.lax.scan(add_block, start, blocks)
  query_grad = _join(query_grad, -2, query.shape[-2])
  return query_grad, key_grad.astype(key.dtype), value_grad.astype(value.dtype)


def _product(letters: str, a: Array, b: Array) -> Array:
  return jnp.einsum(letters, a, b, preferred_element_type=at_least_float32(a.dtype))


def _logits(query: Array, key: Array, key_mask: Array | None) -> Array:
  """query (..., r, d), already scaled -> (..., r, N)."""
  logits = _product('...qd,...kd->...qk', query, key)
  return logits if key_mask is None else jnp.where(key_mask[..., None, :], logits, -jnp.inf)


def _split(x: Array, axis: int, rows: int) -> Array:
  """Splits the axis of N into equal blocks of at most `rows`, on a new first axis, zero-padded.

  Rows of padding do no harm: their weight and their gradients are zero.
  """
  axis %= x.ndim
  length = x.shape[axis]
  blocks = -(-length // rows)
  size = -(-length // blocks)
  x = jnp.pad(x, [(0, (blocks * size - length) * (i == axis)) for i in range(x.ndim)])
  x = x.reshape(*x.shape[:axis], blocks, size, *x.shape[axis + 1 :])
  return jnp.moveaxis(x, axis, 0)


def _join(x: Array, axis: int, length: int) -> Array:
  """Undoes `_split`."""
  axis %= x.ndim - 1
  x = jnp.moveaxis(x, 0, axis)
  x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
  return jax.lax.slice_in_dim(x, 0, length, axis=axis)


def _for_heads(query: Array, *arrays: Array | None) -> tuple[Array | None, ...]:
  """(B, N) -> (B, heads, N)."""
  shape = query.shape[:3]
  return tuple(None if x is None else jnp.broadcast_to(x[:, None], shape) for x in arrays)


def _over_heads(function: Callable, arrays: Any, one_by_one: bool) -> Any:
  """Applies `function` to arrays (B, heads, ...) at once, or to each (...) on its own."""
  if not one_by_one:
    return function(*arrays)
  batch, heads = arrays[0].shape[:2]
  flat = jax.tree.map(lambda x: x.reshape(batch * heads, *x.shape[2:]), arrays)
  result = jax.lax.map(lambda part: function(*part), flat)
  return jax.tree.map(lambda x: x.reshape(batch, heads, *x.shape[1:]), result)
