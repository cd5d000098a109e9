"""Weights and clips of the golden cases, remade from names and seeds (NumPy only).

The numbers under tests/golden were computed with these very weights, so every bit counts: the order
of the draws and of the float64 operations is part of the rule.
"""

import json
import zlib
from pathlib import Path

import numpy as np

NAMES = Path(__file__).resolve().parent / 'golden'


def published_shapes(size: str) -> dict[str, tuple[int, ...]]:
  """Names and shapes of all published tensors of a model: size 'tiny', 'B' or 'L'."""
  return {n: tuple(s) for n, s in json.loads((NAMES / f'names_{size}.json').read_text()).items()}


def make_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The float32 tensor of a published name: normal, seeded by the name, over sqrt(fan in)."""
  if name == 'criterion.empty_weight':  # a buffer of the published loss, not random
    return np.array([1, 0.1], np.float32)
  random = np.random.default_rng(zlib.crc32(name.encode()))
  if name == 'init_proposal_boxes.weight':  # (P, 4) cxcywh, spread over the image
    uniform = random.random(shape)
    return (uniform * [0.6, 0.6, 0.5, 0.5] + [0.2, 0.2, 0.1, 0.1]).astype(np.float32)
  normal = random.standard_normal(shape)
  if len(shape) == 1 and name.endswith('.weight'):  # scale of a LayerNorm
    return (1 + 0.1 * normal).astype(np.float32)
  return (normal * _spread(name, shape)).astype(np.float32)


def _spread(name: str, shape: tuple[int, ...]) -> float:
  """Standard deviation of a tensor that is neither boxes nor the scale of a norm."""
  root = np.sqrt(int(np.prod(shape[1:])))  # of the fan in; 1 for a vector
  if name == 'init_proposal_features.weight':
    return 1.0
  if name.endswith('mask_token'):
    return 0.5
  if name.endswith('bboxes_delta.weight'):
    return 0.1 / root
  if name.endswith('bboxes_delta.bias'):
    return 0.01
  return 1 / root if len(shape) > 1 else 0.1


def make_clip(seed: int, frames: int, height: int, width: int) -> np.ndarray:
  """A normalised clip, (3, T, H, W) float32: coarse blocks, finer blocks and noise.

  Frames and sides must be multiples of 4.
  """
  random = np.random.default_rng(seed)

  def blocks(time: int, side: int) -> np.ndarray:
    cells = [-(-n // size) for n, size in ((frames, time), (height, side), (width, side))]
    grid = random.standard_normal((3, *cells))
    grid = np.kron(grid, np.ones((1, time, side, side)))
    return grid[:, :frames, :height, :width]

  coarse, fine, noise = blocks(4, 32), blocks(2, 8), blocks(1, 1)
  return (coarse + 0.5 * fine + 0.25 * noise).astype(np.float32)
