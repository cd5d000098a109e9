"""Box arithmetic for NumPy and JAX alike; boxes are (..., 4), xyxy unless named otherwise."""

from typing import Any

import numpy as np

Array = Any  # anything of the Python array API: np.ndarray, jax.Array


def from_cxcywh(boxes: Array) -> Array:
  """(..., 4) centre x, centre y, width, height -> (..., 4) xyxy, in the same units."""
  xp = boxes.__array_namespace__()
  centre, size = boxes[..., :2], boxes[..., 2:]
  return xp.concat([centre - size / 2, centre + size / 2], axis=-1)


def to_pixels(boxes: Array, sizes: Array) -> Array:
  """Normalised -> pixels: (..., 4) times the sizes, (..., 2) heights and widths."""
  return boxes * _sides(boxes, sizes)


def normalise(boxes: Array, sizes: Array) -> Array:
  """Pixels -> normalised: (..., 4) divided by the sizes, (..., 2) heights and widths."""
  return boxes / _sides(boxes, sizes)


def _sides(boxes: Array, sizes: Array) -> Array:
  """(..., 4) width, height, width, height, in the dtype of the boxes."""
  xp = boxes.__array_namespace__()
  sizes = xp.asarray(sizes, dtype=boxes.dtype)
  return xp.stack([sizes[..., 1], sizes[..., 0]] * 2, axis=-1)


def area(boxes: Array) -> Array:
  """(..., 4) -> (...); no pixel is added: a box from 0 to 1 has length 1."""
  return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip(boxes: Array, height: Array, width: Array) -> Array:
  """Clips x to [0, width - 1] and y to [0, height - 1]; height and width broadcast to (...)."""
  xp = boxes.__array_namespace__()
  x = xp.clip(boxes[..., 0::2], 0, xp.asarray(width)[..., None] - 1)
  y = xp.clip(boxes[..., 1::2], 0, xp.asarray(height)[..., None] - 1)
  return xp.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], axis=-1)


def flip_horizontally(boxes: Array, width: Array) -> Array:
  """Mirrors x to width - 1 - x (pixel centres), keeping x1 <= x2."""
  xp = boxes.__array_namespace__()
  x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
  return xp.stack([width - 1 - x2, y1, width - 1 - x1, y2], axis=-1)


def _overlap(a: Array, b: Array) -> tuple[Array, Array]:
  """Intersection and union areas of every pair: (..., N, 4), (..., M, 4) -> two (..., N, M)."""
  xp = a.__array_namespace__()
  a, b = a[..., :, None, :], b[..., None, :, :]
  low = xp.maximum(a[..., :2], b[..., :2])
  high = xp.minimum(a[..., 2:], b[..., 2:])
  size = xp.maximum(high - low, xp.zeros_like(low))
  intersection = size[..., 0] * size[..., 1]
  return intersection, area(a) + area(b) - intersection


def pairwise_iou(a: Array, b: Array) -> Array:
  """IoU of every pair: (..., N, 4), (..., M, 4) -> (..., N, M) in [0, 1]; 0 if both are empty."""
  xp = a.__array_namespace__()
  intersection, union = _overlap(a, b)
  return xp.where(union > 0, intersection / xp.where(union > 0, union, 1), 0)


def elementwise_iou(a: Array, b: Array) -> Array:
  """IoU of the boxes at the same index: (..., 4), (..., 4) -> (...) in [0, 1]; 0 if both are empty.

  Works column by column, so that millions of pairs take a few long operations.
  """
  xp = a.__array_namespace__()
  width = xp.minimum(a[..., 2], b[..., 2]) - xp.maximum(a[..., 0], b[..., 0])
  height = xp.minimum(a[..., 3], b[..., 3]) - xp.maximum(a[..., 1], b[..., 1])
  zero = xp.zeros_like(width)
  intersection = xp.maximum(width, zero) * xp.maximum(height, zero)
  union = area(a) + area(b) - intersection
  return xp.where(union > 0, intersection / xp.where(union > 0, union, 1), 0)


def pairwise_giou(a: Array, b: Array) -> Array:
  """Generalised IoU (arXiv 1902.09630) of every pair: (..., N, M) in [-1, 1].

  Value and gradient are finite for empty boxes: divisions by an empty union or hull are replaced,
  not masked afterwards.
  """
  xp = a.__array_namespace__()
  intersection, union = _overlap(a, b)
  a, b = a[..., :, None, :], b[..., None, :, :]
  size = xp.maximum(a[..., 2:], b[..., 2:]) - xp.minimum(a[..., :2], b[..., :2])
  hull = size[..., 0] * size[..., 1]
  iou = xp.where(union > 0, intersection / xp.where(union > 0, union, 1), 0)
  return iou - xp.where(hull > 0, (hull - union) / xp.where(hull > 0, hull, 1), 0)


def to_annotated(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """Normalised boxes -> float64 in the units of the annotation, as files have them.

  boxes: (N, 4) xyxy in [0, 1]. sizes: (N, 2) height and width that annotated boxes refer to; 1 x 1
  where those are normalised, too. Rounded to a millionth of the frame or a thousandth of a pixel,
  the precision of float32: boxes that were equal in a file are equal again, and metrics computed
  here equal those computed from a file.
  """
  scaled = to_pixels(boxes.astype(np.float64), sizes)
  normalised = (np.asarray(sizes) <= 1).all(axis=1)[:, None]
  return np.where(normalised, scaled.round(6), scaled.round(3))
