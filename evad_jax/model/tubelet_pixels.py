"""Clips as the pixels of their tubelets: what pre-training predicts, and how pictures come back.

The pixels of a tubelet are in the order (frame, row, column, channel), channel fastest, which is
the order of the rows of the tubelets' kernel, and of VideoMAE's targets.
"""

import math

import jax
import jax.numpy as jnp

from evad_jax.errors import InputError
from evad_jax.model.token_pruning import choose, entry_at, put

Array = jax.Array

# Grey levels, added to a standard deviation; VideoMAE adds 1e-6 to that of pixels in [0, 1].
_EPSILON = 255e-6


def grid_of(clip: tuple[int, ...], tubelet: int, patch: int) -> tuple[int, int, int]:
  """t, h, w of a clip's tokens; clip: T, H, W. Raises InputError unless it divides evenly."""
  frames, height, width = clip
  if frames % (2 * tubelet) or height % patch or width % patch:
    raise InputError(
      f'A clip of {frames} x {height} x {width} (frames, height, width) does not divide into '
      f'an even number of tubelets of {tubelet} x {patch} x {patch}.'
    )
  return frames // tubelet, height // patch, width // patch


def cut(clips: Array, tubelet: int, patch: int) -> Array:
  """(B, T, H, W, c) -> (B, N, tubelet * patch * patch * c), tokens in time order.

  Raises InputError as `grid_of`.
  """
  b, *_, channels = clips.shape
  t, h, w = grid_of(clips.shape[1:4], tubelet, patch)
  x = clips.reshape(b, t, tubelet, h, patch, w, patch, channels)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)  # (B, t, h, w, f, p, p, c)
  return x.reshape(b, t * h * w, tubelet * patch * patch * channels)


def join(pixels: Array, grid: tuple[int, int, int], tubelet: int, patch: int) -> Array:
  """The reverse of `cut` for a (t, h, w) grid: (B, N, pixels) -> (B, T, H, W, c)."""
  t, h, w = grid
  x = pixels.reshape(len(pixels), t, h, w, tubelet, patch, patch, -1)
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)  # (B, t, f, h, p, w, p, c)
  return x.reshape(len(pixels), t * tubelet, h * patch, w * patch, -1)


def standardise(pixels: Array, dtype: jnp.dtype = jnp.float32) -> Array:
  """Each tubelet and RGB channel minus its mean, over its standard deviation (VideoMAE).

  pixels (B, M, n * 3), uint8 or grey levels in [0, 255] -> the same shape in `dtype`. The variance
  is the unbiased one. Sums of grey levels are exact in float32, so a flat tubelet becomes 0.
  """
  mean, spread, x = _moments(pixels, dtype)
  return ((x - mean) / spread).reshape(pixels.shape)


def restore(standard: Array, pixels: Array) -> Array:
  """Undoes `standardise` with mean and deviation of the true pixels: (B, M, n * 3), grey levels."""
  mean, spread, _ = _moments(pixels, standard.dtype)
  return (standard.reshape(*standard.shape[:2], -1, 3) * spread + mean).reshape(standard.shape)


def fill_in(
  clips: Array,  # (B, T, H, W, 3) uint8
  pixels: Array,  # (B, M, n * 3), grey levels
  places: Array,  # (B, M), distinct token indices in time order
  tubelet: int,
  patch: int,
) -> Array:  # (B, T, H, W, 3), grey levels in the type of `pixels`
  """The clips with the pixels of some tubelets replaced, not clipped to [0, 255]."""
  grid = grid_of(clips.shape[1:4], tubelet, patch)
  length = math.prod(grid)
  replaced = entry_at(places, length) < places.shape[1]
  true = cut(clips, tubelet, patch).astype(pixels.dtype)
  whole = jnp.where(replaced[..., None], put(pixels, places, length), true)
  return join(whole, grid, tubelet, patch)


def pixels_at(clips: Array, places: Array, tubelet: int, patch: int) -> Array:
  """The pixels of the tubelets at some places: (B, T, H, W, c), (B, M) -> (B, M, n * c)."""
  return choose(cut(clips, tubelet, patch), places)


def _moments(pixels: Array, dtype: jnp.dtype) -> tuple[Array, Array, Array]:
  """Mean and standard deviation with its epsilon, (B, M, 1, 3), and the pixels (B, M, n, 3)."""
  x = pixels.reshape(*pixels.shape[:2], -1, 3).astype(dtype)
  mean = x.mean(axis=2, keepdims=True)
  return mean, x.std(axis=2, keepdims=True, ddof=1) + _EPSILON, x
