"""Attention by the fused kernels of accelerators, and the importance in a second, blocked pass.

cuDNN's on a GPU (16-bit types only), the Pallas kernel of JAX's library on a TPU. They keep the
attention matrix to themselves: what leaves a kernel is, at most, the logarithm of every row's sum.
"""

import jax
import jax.numpy as jnp

from evad_jax.model.blocked_attention import column_sums
from evad_jax.model.layers import at_least_float32

Array = jax.Array

HIDDEN = -3e4  # logit of a masked key: exp() of it is zero, and 16-bit types can hold it
EXTRA = 8  # columns that carry the mask; cuDNN wants head widths in multiples of 8
TPU_TILE = 128  # tokens of a block of the Pallas kernel, which wants whole blocks


def attend_fused(
  query: Array,  # (B, heads, N, d)
  key: Array,  # (B, heads, N, d)
  value: Array,  # (B, heads, N, d)
  *,
  key_mask: Array | None = None,  # (B, N) bool; False: gets no attention
  query_weight: Array | None = None,  # (B, N); weight of each row in the importance
  kernel: str = 'cudnn',  # or 'pallas', or 'xla', which is not fused and runs everywhere
) -> tuple[Array, Array | None]:  # (B, heads, N, d), (B, N) or None
  """What `attention.attend` computes, with the same arguments.

  cuDNN's logarithm of a row's sum comes in the type of its output. In bfloat16 that rounds it by up
  to 2^-9 of its size, and so the row's share in the importance by up to 3 per cent where the sum is
  below e^16, upwards in some rows and downwards in others.
  """
  wanted = query_weight is not None
  if kernel == 'pallas':
    out, log_total = _pallas(query, key, value, key_mask), None
  else:
    out, log_total = _dot_product(query, key, value, key_mask, kernel, wanted)
  if not wanted:
    return out, None
  # No gradient flows through the choice of tokens.
  query, key, log_total = jax.lax.stop_gradient((query, key, log_total))
  mask = None if key_mask is None else key_mask[:, None]
  weight = jnp.broadcast_to(query_weight[:, None], query.shape[:3])
  columns = column_sums(query, key, log_total, mask, weight.astype(at_least_float32(query.dtype)))
  return out, columns.mean(axis=1) / query.shape[2]


def _dot_product(
  query: Array, key: Array, value: Array, key_mask: Array | None, kernel: str, wanted: bool
) -> tuple[Array, Array | None]:  # (B, heads, N, d), log of row sums (B, heads, N) if wanted
  """jax.nn.dot_product_attention. It would take a mask as an N x N matrix; ours is in columns."""
  width = value.shape[-1]
  scale = query.shape[-1] ** -0.5
  if key_mask is not None:
    query, key, value = _with_mask(query, key, value, key_mask, scale)
  result = jax.nn.dot_product_attention(
    *(x.swapaxes(1, 2) for x in (query, key, value)),
    scale=scale,
    implementation=kernel,
    return_residual=wanted,
  )
  out, log_total = result if wanted else (result, None)
  out = out.swapaxes(1, 2)[..., :width]
  return out, None if log_total is None else log_total.swapaxes(1, 2)


def _with_mask(
  query: Array, key: Array, value: Array, key_mask: Array, scale: float
) -> tuple[Array, Array, Array]:
  """Folds the mask into further columns: 1 / scale in every query, and 0 or HIDDEN in every key."""
  first = jnp.arange(EXTRA) == 0
  ours = jnp.where(first, 1 / scale, 0).astype(query.dtype)
  theirs = jnp.where(first & ~key_mask[:, None, :, None], HIDDEN, 0).astype(key.dtype)
  shape = (*query.shape[:-1], EXTRA)
  return (
    jnp.concatenate([query, jnp.broadcast_to(ours, shape)], axis=-1),
    jnp.concatenate([key, jnp.broadcast_to(theirs, shape)], axis=-1),
    jnp.pad(value, ((0, 0), (0, 0), (0, 0), (0, EXTRA))),
  )


def _pallas(query: Array, key: Array, value: Array, key_mask: Array | None) -> Array:
  """The TPU kernel of JAX's library; padding and mask are keys of another segment."""
  from jax.experimental.pallas.ops.tpu import flash_attention as flash  # of use on a TPU alone

  b, _, n, d = query.shape
  behind = -n % TPU_TILE
  real = jnp.ones((b, n), bool) if key_mask is None else key_mask
  real = jnp.pad(real, ((0, 0), (0, behind)))
  segments = flash.SegmentIds(jnp.ones(real.shape, jnp.int32), real.astype(jnp.int32))
  padded = (jnp.pad(x, ((0, 0), (0, 0), (0, behind), (0, 0))) for x in (query, key, value))
  out = flash.flash_attention(*padded, segment_ids=segments, sm_scale=d**-0.5)
  return out[:, :, :n]
