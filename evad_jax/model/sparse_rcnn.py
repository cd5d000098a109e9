"""The query-based person detector: Sparse R-CNN (arXiv 2011.12450) on the keyframe's pyramid.

Learned proposals are refined by stages with their own weights; each stage starts from the boxes of
the one before, without gradient (paper section 3.3).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax import boxes as box_ops
from evad_jax.errors import InputError
from evad_jax.model.layers import Dense, LayerNorm, at_least_float32
from evad_jax.model.roi_align import lay, multilevel_roi_align, sheet_of

Array = jax.Array

DELTA_WEIGHTS = (2.0, 2.0, 1.0, 1.0)
MAX_LOG_SCALE = math.log(100_000 / 16)  # bounds exp() of a size delta


def apply_deltas(boxes: Array, deltas: Array) -> Array:
  """Moves centres by dx*w, dy*h and scales sizes by exp(d): (..., 4) xyxy, (..., 4) -> xyxy."""
  size = boxes[..., 2:] - boxes[..., :2]
  centre = boxes[..., :2] + 0.5 * size
  deltas = deltas / jnp.broadcast_to(jnp.asarray(DELTA_WEIGHTS, deltas.dtype), deltas.shape)
  centre = centre + deltas[..., :2] * size
  size = size * jnp.exp(jnp.minimum(deltas[..., 2:], MAX_LOG_SCALE))
  return box_ops.from_cxcywh(jnp.concatenate([centre, size], axis=-1))


class DynamicConvolution(nn.Module):
  """Each proposal makes its own two matrices, which act on its RoI's vectors."""

  hidden: int = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, proposals: Array, rois: Array) -> Array:  # (B, P, C), (B, P, 49, C)
    width = proposals.shape[-1]
    matrices = Dense(2 * width * self.hidden, dtype=self.dtype, name='matrices')(proposals)
    first, second = jnp.split(matrices, 2, axis=-1)
    first = first.reshape(*first.shape[:2], width, self.hidden)
    second = second.reshape(*second.shape[:2], self.hidden, width)
    x = jnp.einsum('bpnc,bpch->bpnh', rois, first)
    x = nn.relu(LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm1')(x))
    x = jnp.einsum('bpnh,bphc->bpnc', x, second)
    x = nn.relu(LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm2')(x))
    x = Dense(width, dtype=self.dtype, name='out')(x.reshape(*x.shape[:2], -1))
    return nn.relu(LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm3')(x))


class ProposalAttention(nn.Module):
  """Self-attention among the proposals of one image, all projections with bias."""

  num_heads: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:  # (B, P, C) -> (B, P, C)
    qkv = Dense(3 * x.shape[-1], dtype=self.dtype, name='qkv')(x)
    qkv = qkv.reshape(*x.shape[:2], 3, self.num_heads, -1)
    query, key, value = (qkv[:, :, i] for i in range(3))
    out = nn.dot_product_attention(
      query,
      key,
      value,
      dtype=self.dtype,
      force_fp32_for_softmax=jnp.dtype(self.dtype).itemsize == 2,
    )
    return Dense(x.shape[-1], dtype=self.dtype, name='out')(out.reshape(x.shape))


class Stage(nn.Module):
  """One refinement of all proposals: attention, dynamic convolution, feed-forward, two towers."""

  num_heads: int = 8
  dynamic_width: int = 64
  feed_forward: int = 2048
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    proposals: Array,  # (B, P, C) features
    boxes: Array,  # (B, P, 4) xyxy pixels
    rois: Array,  # (B, P, 7, 7, C)
  ) -> tuple[Array, Array, Array]:  # features (B, P, C), logits (B, P, 2), boxes (B, P, 4)
    def norm(name: str) -> nn.LayerNorm:
      return LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

    x = proposals
    x = norm('norm1')(
      x + ProposalAttention(self.num_heads, dtype=self.dtype, name='self_attention')(x)
    )
    dynamic = DynamicConvolution(self.dynamic_width, dtype=self.dtype, name='dynamic_convolution')
    x = norm('norm2')(x + dynamic(x, rois.reshape(*rois.shape[:2], -1, rois.shape[-1])))
    hidden = nn.relu(Dense(self.feed_forward, dtype=self.dtype, name='fc1')(x))
    x = norm('norm3')(x + Dense(x.shape[-1], dtype=self.dtype, name='fc2')(hidden))

    def tower(depth: int, name: str) -> Array:
      y = x
      for i in range(depth):
        y = Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name=f'{name}_{i}')(y)
        y = nn.relu(norm(f'{name}_norm_{i}')(y))
      return y

    # Logits and deltas have full precision: boxes are float32 whatever the compute type.
    wide = at_least_float32(self.dtype)
    logits = Dense(2, dtype=wide, name='class_logits')(tower(1, 'class_tower'))
    deltas = Dense(4, dtype=wide, name='box_deltas')(tower(3, 'box_tower'))
    return x, logits, apply_deltas(boxes, deltas)


def image_boxes(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
  """Initial proposals as published: each covers the full image; (P, 4) cxcywh."""
  del key
  return jnp.tile(jnp.asarray([0.5, 0.5, 1.0, 1.0], dtype), (shape[0], 1))


def grid_boxes(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
  """Initial proposals on a regular grid of overlapping upright boxes; (P, 4) cxcywh, normalised.

  Proposals that start apart specialise in different people early, which helps short training runs.
  """
  del key
  columns = math.ceil(math.sqrt(shape[0]))
  rows = math.ceil(shape[0] / columns)
  place = jnp.arange(shape[0])
  cx = ((place % columns).astype(float) + 0.5) / columns
  cy = ((place // columns).astype(float) + 0.5) / rows
  size = jnp.broadcast_to(jnp.asarray([0.35, 0.5]), (shape[0], 2))
  return jnp.concatenate([cx[:, None], cy[:, None], size], axis=1).astype(dtype)


PROPOSAL_INITS = {'image': image_boxes, 'grid': grid_boxes}


class PersonDetector(nn.Module):
  """Pyramid -> person logits and boxes of every stage."""

  num_proposals: int
  num_stages: int
  num_heads: int
  dynamic_width: int
  feed_forward: int
  proposal_init: str  # 'image' or 'grid'
  finest_stride: float  # pixels, of the first map
  canonical_size: float  # pixels, see roi_levels
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    pyramid: list[Array],  # of (B, y, x, C)
    sizes: Array,  # (B, 2) height and width of the unpadded input
  ) -> tuple[Array, Array]:  # logits (stages, B, P, 2), boxes (stages, B, P, 4) xyxy pixels
    if self.proposal_init not in PROPOSAL_INITS:
      raise InputError(
        f'proposal_init={self.proposal_init!r} is not one of {sorted(PROPOSAL_INITS)}.'
      )
    batch, width = pyramid[0].shape[0], pyramid[0].shape[-1]
    wide = at_least_float32(self.dtype)
    init = PROPOSAL_INITS[self.proposal_init]
    normalised = self.param('proposal_boxes', init, (self.num_proposals, 4))
    features = self.param(
      'proposal_features', nn.initializers.normal(1.0), (self.num_proposals, width)
    )
    # Scaled before conversion to corners: the gradients of two opposite corners then cancel exactly
    # where a centre does not matter. Scaling later leaves a rounding error, which Adam magnifies.
    boxes = box_ops.to_pixels(normalised.astype(wide)[None], sizes[:, None])
    boxes = box_ops.from_cxcywh(boxes)  # (B, P, 4)
    x = jnp.broadcast_to(features.astype(self.dtype), (batch, *features.shape))
    sheet = sheet_of(pyramid)
    maps = lay(pyramid, sheet)
    all_logits, all_boxes = [], []
    for i in range(self.num_stages):
      rois = multilevel_roi_align(maps, sheet, boxes, self.finest_stride, self.canonical_size)
      stage = Stage(
        self.num_heads, self.dynamic_width, self.feed_forward, self.dtype, name=f'stage_{i}'
      )
      x, logits, refined = stage(x, boxes, rois)
      all_logits.append(logits)
      all_boxes.append(refined)
      boxes = jax.lax.stop_gradient(refined)
    return jnp.stack(all_logits), jnp.stack(all_boxes)
