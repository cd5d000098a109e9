"""Fixed sine and cosine position tables and their bicubic resizing (paper section 3.1; VideoMAE).

Tables are constants of a compiled program: they are made with NumPy from static sizes.
"""

import functools

import numpy as np


def sincos_table(length: int, width: int) -> np.ndarray:
  """(length, width) float32: sin (even column j), cos (odd) of p / 10000^(2 floor(j/2) / width)."""
  column = np.arange(width)
  angle = np.arange(length)[:, None] / np.power(10000.0, 2 * (column // 2) / width)
  return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def bicubic_matrix(source: int, target: int) -> np.ndarray:
  """(target, source) float64 weights: cubic kernel a = -0.75, half-pixel centres, edges clamped.

  No anti-aliasing. jax.image.resize has a = -0.5 and renormalises at the edges instead.
  """
  a = -0.75
  centre = (np.arange(target) + 0.5) * source / target - 0.5
  base = np.floor(centre).astype(int)
  weights = np.zeros((target, source))
  for tap in (-1, 0, 1, 2):
    d = np.abs(centre - (base + tap))
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    place = np.clip(base + tap, 0, source - 1)
    np.add.at(weights, (np.arange(target), place), np.where(d <= 1, near, far))
  return weights


@functools.lru_cache(maxsize=32)
def position_table(
  grid: tuple[int, int, int], pretrain_grid: tuple[int, int], width: int
) -> np.ndarray:
  """Position codes of a (t, h, w) token grid, in time order: (t*h*w, width), float64.

  The table belongs to the pre-training grid (t, *pretrain_grid). Each time step is resized on its
  own, but only where the number of positions differs: another shape with the same number uses the
  table as it is, like the published system. The table is rounded to float32 before resizing.
  """
  t, h, w = grid
  h0, w0 = pretrain_grid
  table = sincos_table(t * h0 * w0, width).astype(np.float64)
  if h * w != h0 * w0:
    rows, columns = bicubic_matrix(h0, h), bicubic_matrix(w0, w)
    table = table.reshape(t, h0, w0, width)
    table = np.einsum('yi,xj,tijd->tyxd', rows, columns, table, optimize=True)
  table = table.reshape(t * h * w, width)
  table.setflags(write=False)  # shared by every caller through the cache
  return table
