"""RoIAlign, the aligned kind (arXiv 1703.06870), as products with two matrices of tent weights.

Bilinear sampling is separable: the value of a bin is Y f X^T, where row i of Y (and of X) holds the
mean of the bilinear weights of the bin's samples on each pixel row (column). The border rule folds
into the weights. No gradient flows to the boxes.
"""

import jax
import jax.numpy as jnp

from evad_jax import boxes as box_ops

Array = jax.Array


def sample_weights(
  low: Array,  # (...) lower end of each box on this axis, in pixels of the map
  high: Array,  # (...)
  length: int,  # pixels of the map on this axis
  bins: int,
  samples: int,  # per bin
) -> Array:  # (..., bins, length)
  """Mean tent weights of the samples of every bin along one axis.

  A sample further than one pixel outside the map counts 0 (but still counts in the mean); one
  within that pixel is clamped to the edge.
  """
  # Summed in the published order: a place is tens of pixels, and its rounding shows in the weights.
  bin_size = ((high - low) / bins)[..., None, None]
  start = low[..., None, None] + jnp.arange(bins, dtype=low.dtype)[:, None] * bin_size
  middle = (jnp.arange(samples, dtype=low.dtype) + 0.5) * bin_size / samples
  place = start + middle  # (..., bins, samples)
  inside = (place >= -1) & (place <= length)
  place = jnp.clip(place, 0, length - 1)
  pixel = jnp.arange(length, dtype=low.dtype)
  tent = jnp.maximum(0, 1 - jnp.abs(place[..., None] - pixel))  # (..., bins, samples, length)
  return jnp.where(inside[..., None], tent, 0).mean(axis=-2)


def roi_weights(
  boxes: Array,  # (B, P, 4) xyxy pixels of the input
  stride: float,
  height: int,
  width: int,
  bins: int = 7,
  samples: int = 2,
) -> tuple[Array, Array]:  # (B, P, bins, height), (B, P, bins, width)
  """The two matrices of RoIAlign of every box on a map of the given size and stride."""
  boxes = jax.lax.stop_gradient(boxes) / stride - 0.5
  x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
  rows = sample_weights(y1, y2, height, bins, samples)
  columns = sample_weights(x1, x2, width, bins, samples)
  return rows, columns


def roi_align(features: Array, rows: Array, columns: Array) -> Array:
  """features (B, y, x, C), rows (B, P, i, y), columns (B, P, j, x) -> (B, P, i, j, C)."""
  rows, columns = rows.astype(features.dtype), columns.astype(features.dtype)
  partial = jnp.einsum('bpjx,byxc->bpyjc', columns, features)
  return jnp.einsum('bpiy,bpyjc->bpijc', rows, partial)


def roi_levels(boxes: Array, canonical_size: float, num_levels: int) -> Array:
  """(B, P, 4) -> (B, P) int32, the pyramid level of each box, 0 the finest (arXiv 1612.03144).

  A box whose geometric mean side is `canonical_size` pixels belongs to level 2.
  """
  side = jnp.sqrt(jnp.maximum(box_ops.area(boxes), 0))
  level = jnp.floor(2 + jnp.log2(side / canonical_size + 1e-8))
  return jnp.clip(level, 0, num_levels - 1).astype(jnp.int32)


def multilevel_roi_align(
  pyramid: list[Array],  # of (B, y, x, C), fine to coarse
  boxes: Array,  # (B, P, 4) xyxy pixels of the input
  finest_stride: float,
  canonical_size: float,
) -> Array:  # (B, P, 7, 7, C)
  """RoIAlign of every box on its own level. Other levels get weights of zero."""
  levels = roi_levels(jax.lax.stop_gradient(boxes), canonical_size, len(pyramid))
  out = 0
  for i, features in enumerate(pyramid):
    rows, columns = roi_weights(boxes, finest_stride * 2**i, *features.shape[1:3])
    rows = jnp.where((levels == i)[..., None, None], rows, 0)
    out = out + roi_align(features, rows, columns)
  return out
