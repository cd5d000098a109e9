"""Multi-head self-attention that can also return how much each token is attended to.

Paper section 3.2: the importance of a token is its column of the attention matrix, averaged over
queries and heads. The keyframe's rows count more, by the enhanced weight.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax.errors import InputError
from evad_jax.model.blocked_attention import attend_blocked
from evad_jax.model.fused_attention import TPU_TILE, attend_fused
from evad_jax.model.layers import SAVED, Dense, at_least_float32

Array = jax.Array

FORMS = ('auto', 'plain', 'blocked', 'fused')
# Number of tokens from which blocks are faster on a CPU; below it the two are equally fast.
BLOCKED_FROM = 512
_NAMED = jax.checkpoint_policies.save_only_these_names(SAVED)


def keep_attention(primitive: Any, *args: Any, **params: Any) -> bool:
  """Recomputation policy: keeps the results of attention and the choice of tokens.

  cuDNN's kernel does not name its results, so the policy goes by the name of the primitive. A ViT-B
  step at keep rate 0.7 takes 12 % longer with this policy than without recomputation, and 20 %
  longer where everything is recomputed (two CPU cores). That would save little more: of the
  4,459 MB of activation memory of a 288 x 512 clip, this policy already saves 3,667 MB.
  """
  if primitive.name.startswith('dot_product_attention_fwd'):
    return True
  return _NAMED(primitive, *args, **params)


def attend(
  query: Array,  # (B, heads, N, d)
  key: Array,  # (B, heads, N, d)
  value: Array,  # (B, heads, N, d)
  *,
  key_mask: Array | None = None,  # (B, N) bool; False: not attended to
  query_weight: Array | None = None,  # (B, N); weight of each row in the importance
) -> tuple[Array, Array | None]:  # (B, heads, N, d), (B, N) or None
  """Softmax attention, and the importance of every token if `query_weight` is given.

  importance[j] = mean over heads of sum_q query_weight[q] * attention[q, j] / N. The plain
  implementation: it holds the N x N matrix of every head, and is the reference for the others. Rows
  are normalised after the product with the values, which saves a pass over that matrix.
  """
  wide = at_least_float32(query.dtype)
  scale = query.shape[-1] ** -0.5
  logits = jnp.einsum('bhqd,bhkd->bhqk', query * scale, key, preferred_element_type=wide)
  if key_mask is not None:
    logits = jnp.where(key_mask[:, None, None, :], logits, -jnp.inf)
  weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
  total = weights.sum(axis=-1)  # (B, heads, N)
  out = jnp.einsum(
    'bhqk,bhkd->bhqd', weights.astype(value.dtype), value, preferred_element_type=wide
  )
  out = (out / total[..., None]).astype(value.dtype)
  if query_weight is None:
    return out, None
  # No gradient flows through the choice of tokens.
  weights, total = jax.lax.stop_gradient((weights, total))
  row_weight = query_weight[:, None].astype(wide) / total  # (B, heads, N)
  importance = jnp.einsum('bhqk,bhq->bhk', weights, row_weight)
  return out, importance.mean(axis=1) / query.shape[2]


def form_for(attention: str, tokens: int, dtype: jnp.dtype) -> str:
  """The implementation that `attention` stands for here: 'plain', 'blocked' or 'fused'.

  Raises InputError for an unknown implementation, or one that this platform lacks.
  """
  if attention not in FORMS:
    raise InputError(f'attention={attention!r} is not one of {FORMS}.')
  platform, half = jax.default_backend(), jnp.dtype(dtype).itemsize == 2
  # cuDNN's kernel takes 16-bit types only, and does not support older GPUs.
  fused = (platform == 'gpu' and half and cuda_capability() >= 8) or platform == 'tpu'
  if attention == 'fused' and not fused:
    raise InputError(
      f"attention='fused' has no kernel for {jnp.dtype(dtype).name} on this platform, {platform}; "
      "use 'auto'."
    )
  if attention != 'auto':
    return attention
  if tokens < BLOCKED_FROM:
    return 'plain'
  return 'fused' if fused else 'blocked'


def cuda_capability() -> float:
  """Compute capability of the first device, such as 9.0; 0 if it is not a CUDA device."""
  device = jax.local_devices()[0]
  if 'cuda' not in device.client.platform_version.lower():  # ROCm numbers differently
    return 0.0
  return float(device.compute_capability)


def attend_as(
  form: str, query: Array, key: Array, value: Array, **options: Array | None
) -> tuple[Array, Array | None]:
  """Runs `attend` with the implementation that `form_for` returned."""
  if form == 'plain':
    return attend(query, key, value, **options)
  if form == 'fused':
    kernel = 'cudnn' if jax.default_backend() == 'gpu' else 'pallas'
    return attend_fused(query, key, value, kernel=kernel, **options)
  # A batch that may be sharded over devices must be computed all at once.
  one_by_one = jax.default_backend() == 'cpu' and jax.device_count() == 1
  return attend_blocked(query, key, value, one_by_one=one_by_one, **options)


class SelfAttention(nn.Module):
  """One qkv projection; queries and values have a bias, keys have none (as in VideoMAE)."""

  num_heads: int
  attention: str = 'auto'  # implementation, one of FORMS
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,  # (B, N, D)
    *,
    key_mask: Array | None = None,  # (B, N)
    query_weight: Array | None = None,  # (B, N)
  ) -> tuple[Array, Array | None]:  # (B, N, D), importance (B, N) or None
    n, width = x.shape[1:]
    if width % self.num_heads:
      raise InputError(f'num_heads={self.num_heads} must divide the width, {width}.')
    q_bias = self.param('q_bias', nn.initializers.zeros_init(), (width,))
    v_bias = self.param('v_bias', nn.initializers.zeros_init(), (width,))
    form = form_for(self.attention, n, self.dtype)
    spare = -n % TPU_TILE if form == 'fused' and jax.default_backend() == 'tpu' else 0
    if spare:
      # Pads to full tiles here: one array is padded and cut, not the four that a kernel touches.
      key_mask = jnp.ones(x.shape[:2], bool) if key_mask is None else key_mask
      x, key_mask = (_lengthen(y, spare) for y in (x, key_mask))
      query_weight = None if query_weight is None else _lengthen(query_weight, spare)
    qkv = Dense(3 * width, use_bias=False, dtype=self.dtype, name='qkv')(x)
    bias = jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]).astype(self.dtype)
    qkv += bias[None, None]
    query, key, value = (  # each (B, heads, N, d)
      y.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2) for y in jnp.split(qkv, 3, axis=-1)
    )
    out, importance = attend_as(
      form, query, key, value, key_mask=key_mask, query_weight=query_weight
    )
    out = out.swapaxes(1, 2).reshape(x.shape)
    out = Dense(width, dtype=self.dtype, name='out')(out)
    return out[:, :n], None if importance is None else importance[:, :n]


def _lengthen(x: Array, spare: int) -> Array:
  """(B, N, ...) -> (B, N + spare, ...), padded at the end with zeros (False)."""
  return jnp.pad(x, ((0, 0), (0, spare), *((0, 0),) * (x.ndim - 2)))
