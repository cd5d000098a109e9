"""Attention, and the importance too, by the fused kernels of accelerators.

cuDNN's on a GPU (16-bit types only), JAX's Pallas kernel on a TPU. They never write out the
attention matrix: at most, a kernel also returns the log-sum-exp of every row.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from evad_jax.model.layers import SAVED, at_least_float32

Array = jax.Array

HIDDEN = -3e4  # logit that removes a row from a sum: its exp() is zero
EXTRA = 8  # columns that carry the weights of rows; cuDNN needs head widths in multiples of 8
PIECES = 3  # 16-bit numbers (bfloat16) that add up to one float32
TPU_TILE = 128  # tokens per tile; the Pallas kernel needs full tiles
TPU_BLOCKS = (512, 384, 256, 128)  # tokens per block; larger ones are faster


def attend_fused(
  query: Array,  # (B, heads, N, d)
  key: Array,  # (B, heads, N, d)
  value: Array,  # (B, heads, N, d)
  *,
  key_mask: Array | None = None,  # (B, N) bool; False: not attended to
  query_weight: Array | None = None,  # (B, N); weight of each row in the importance
  kernel: str = 'cudnn',  # or 'pallas', or 'xla', which is not fused and runs everywhere
) -> tuple[Array, Array | None]:  # (B, heads, N, d), (B, N) or None
  """Computes what `attention.attend` does, with the same arguments."""
  if kernel == 'pallas':
    out, log_total = _pallas(query, key, value, key_mask)
  else:
    lengths = None
    if key_mask is not None:
      # Real keys first: a length then replaces the mask, without another column of logits.
      order = jnp.argsort(~key_mask, axis=1, stable=True)  # (B, N)
      lengths = key_mask.sum(axis=1, dtype=jnp.int32)
      keys, values = permute_tokens(key, order), permute_tokens(value, order)
    else:
      keys, values = key, value
    out, log_total = _by_lengths(query, keys, values, lengths, kernel)
  if query_weight is None:
    return out, None
  # No gradient flows through the choice of tokens.
  query, key, log_total = jax.lax.stop_gradient((query, key, log_total))
  weight = jnp.broadcast_to(query_weight[:, None], query.shape[:3])
  weight = weight.astype(at_least_float32(query.dtype))
  columns = swapped_column_sums(query, key, log_total, weight, kernel)
  importance = columns.mean(axis=1) / query.shape[2]
  return out, importance if key_mask is None else jnp.where(key_mask, importance, 0)


def swapped_column_sums(
  query: Array,  # (B, heads, N, d)
  key: Array,  # (B, heads, N, d)
  log_total: Array,  # (B, heads, N), logarithm of every row's sum of exp(logits)
  query_weight: Array,  # (B, heads, N), at least 0
  kernel: str,
) -> Array:  # (B, heads, N)
  """sum_q query_weight[q] * attention[q, k], from a fused kernel with queries and keys swapped.

  With keys in the role of queries, a row is summed over queries. Its log-sum-exp, which kernels
  return, is log sum_q exp(q.k / sqrt(d) + b_q): the logarithm of the column sum where
  b_q = log(weight_q) - log_total_q. Extra columns carry b, in pieces of 16 bits on the side of the
  queries, and the inverse of the scale on that of the keys. Keys are not masked: results at masked
  ones have no meaning.
  """
  wide, scale = at_least_float32(query.dtype), query.shape[-1] ** -0.5
  carrier = jnp.asarray(1 / scale, query.dtype)  # rounded, unless d is a power of 4
  share = jnp.where(query_weight > 0, jnp.log(query_weight) - log_total, HIDDEN)
  rest = share.astype(wide) / (scale * carrier.astype(wide))
  pieces = []
  for _ in range(PIECES):
    # Like astype(bfloat16), but the compiler's excess precision never removes it.
    piece = jax.lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7)
    pieces.append(piece.astype(query.dtype))
    rest = rest - piece
  behind = ((0, 0), (0, 0), (0, 0), (0, EXTRA))
  # A product with ones and zeros, which is exact, turns pieces of all tokens into columns.
  place = jnp.eye(PIECES, query.shape[-1] + EXTRA, query.shape[-1], dtype=query.dtype)
  columns = jnp.einsum('bhpn,pd->bhnd', jnp.stack(pieces, axis=2), place)
  ours = jnp.pad(query, behind) + columns
  theirs = jnp.pad(key, behind) + carrier * place.sum(axis=0)[None, None, None]
  if kernel == 'pallas':
    return jnp.exp(_pallas(theirs, ours, ours, None, scale)[1])
  return jnp.exp(_by_lengths(theirs, ours, ours, None, kernel, scale)[1])


@jax.custom_vjp
def permute_tokens(x: Array, order: Array) -> Array:
  """Permutes tokens: x (B, heads, N, d), order (B, N) -> x[:, :, order].

  The gradient is a gather too, not a scatter-add: no index of a permutation repeats.
  """
  return jnp.take_along_axis(x, order[:, None, :, None], axis=2, mode='clip')


permute_tokens.defvjp(
  lambda x, order: (permute_tokens(x, order), order),
  lambda order, gradient: (permute_tokens(gradient, jnp.argsort(order, axis=1)), None),
)


def _by_lengths(
  query: Array,  # (B, heads, N, d)
  key: Array,
  value: Array,
  lengths: Array | None,  # (B,) int32; keys beyond it are not attended to
  kernel: str,
  scale: float | None = None,
) -> tuple[Array, Array]:  # (B, heads, N, d), float32 log of row sums (B, heads, N)
  """Softmax attention by cuDNN or XLA."""
  b, _, n, d = query.shape
  scale = d**-0.5 if scale is None else scale
  query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # (B, N, heads, d)
  if kernel == 'xla':
    dtype, wide = query.dtype, at_least_float32(query.dtype)  # returns sums in its inputs' type
    out, log_total = jax.nn.dot_product_attention(
      *(x.astype(wide) for x in (query, key, value)),
      scale=scale,
      implementation='xla',
      key_value_seq_lengths=lengths,
      return_residual=True,
    )
    return out.swapaxes(1, 2).astype(dtype), log_total.swapaxes(1, 2)
  # The public function rounds the log-sum-exp to 16 bits, which changes the sum by up to 3 %.
  from jax._src.cudnn import fused_attention_stablehlo as cudnn

  if n % 2:  # its backward pass takes even lengths only
    query, key, value = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    lengths = jnp.full((b,), n, jnp.int32) if lengths is None else lengths
  padded = lengths is not None
  out, log_total = cudnn.dot_product_attention(
    query,
    key,
    value,
    q_seqlen=jnp.full((b,), n, jnp.int32) if padded else None,
    kv_seqlen=lengths,
    scale=scale,
    mask_type=cudnn.MaskType.PADDING if padded else cudnn.MaskType.NO_MASK,
    return_residual=True,
  )
  return out[:, :n].swapaxes(1, 2), log_total[:, :, :n]


def _pallas(
  query: Array,  # (B, heads, N, d)
  key: Array,
  value: Array,
  key_mask: Array | None,  # (B, N)
  scale: float | None = None,
) -> tuple[Array, Array]:  # (B, heads, N, d), float32 log of row sums (B, heads, N)
  """JAX's TPU kernel, run by each device of the surrounding mesh on its own shard."""
  b, _, n, d = query.shape
  real = jnp.ones((b, n), bool) if key_mask is None else key_mask
  on_one = functools.partial(_pallas_on_one, d**-0.5 if scale is None else scale)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return on_one(query, key, value, real)
  # Shards clips over the first mesh axis and heads over the second, like the batch and the model.
  clips, heads = mesh.axis_names
  split = PartitionSpec(clips, heads)
  return jax.shard_map(
    on_one,
    in_specs=(split, split, split, PartitionSpec(clips)),
    out_specs=(split, split),
    check_vma=False,
  )(query, key, value, real)


def _pallas_on_one(
  scale: float, query: Array, key: Array, value: Array, real_mask: Array
) -> tuple[Array, Array]:
  """Padding and masked keys get a segment of their own."""
  n = query.shape[2]
  behind = -n % TPU_TILE
  padded = (jnp.pad(x, ((0, 0), (0, 0), (0, behind), (0, 0))) for x in (query, key, value))
  segment = jnp.pad(real_mask, ((0, 0), (0, behind))).astype(jnp.int32)
  out, log_total = _flash(scale, *padded, segment)
  return out[:, :, :n], log_total[:, :, :n]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(
  scale: float, query: Array, key: Array, value: Array, segment: Array
) -> tuple[Array, Array]:
  """The kernel, at the only precision of 16-bit types; no gradient of the log row sums.

  A higher precision set by a caller would reach the kernel, where it is an error.
  """
  return _flash_forward(scale, query, key, value, segment)[0]


def _flash_forward(scale, query, key, value, segment):
  """Returns the two results, and what the backward pass needs."""
  from jax.experimental.pallas.ops.tpu import flash_attention as flash  # needed on a TPU alone

  segments = flash.SegmentIds(jnp.ones_like(segment), segment)
  with _precision_of(query.dtype):
    # The library's public function does not return the row sums; only its own gradient gets them.
    found = flash._flash_attention(
      query, key, value, None, segments, True, False, scale, _blocks(query), False
    )
  # Named, so that recomputation does not run the kernel again.
  out, total, largest = (checkpoint_name(x, SAVED) for x in found)
  return (out, largest + jnp.log(total)), (query, key, value, segment, out, total, largest)


def _flash_backward(scale, residuals, gradients):
  from jax.experimental.pallas.ops.tpu import flash_attention as flash

  query, key, value, segment, *results = residuals
  segments = flash.SegmentIds(jnp.ones_like(segment), segment)
  with _precision_of(query.dtype):
    found = flash._flash_attention_bwd(
      False,
      False,
      scale,
      _blocks(query),
      False,
      (query, key, value, None, segments, *results),
      gradients[0],
    )
  return *found[:3], None


_flash.defvjp(_flash_forward, _flash_backward)


def _blocks(query: Array):
  """Blocks of one size for every pass."""
  from jax.experimental.pallas.ops.tpu import flash_attention as flash

  block = next(size for size in TPU_BLOCKS if query.shape[2] % size == 0)
  names = [name for name in flash.BlockSizes.__dataclass_fields__ if name != 'block_b']
  return flash.BlockSizes(**dict.fromkeys(names, block), block_b=1)


def _precision_of(dtype: jnp.dtype) -> contextlib.AbstractContextManager:
  return (
    jax.default_matmul_precision('default') if dtype.itemsize == 2 else contextlib.nullcontext()
  )
