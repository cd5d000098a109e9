"""Which tokens pre-training hides: tube masks (VideoMAE, arXiv 2203.12602), running cells (v2).

A tube mask hides the same places of every time step, drawn for each clip. How many follows from the
grid and the ratio alone, so every shape is static. The running cell (VideoMAE v2, arXiv 2303.16727)
lets the decoder predict half of the places of a time step, in an order of which every place has its
turn in two of four successive time steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evad_jax.errors import InputError

Array = jax.Array
Grid = tuple[int, int, int]  # t, h, w

DECODER_MASKS = ('none', 'running_cell')


class Places(NamedTuple):
  """Tokens by their index in time order, int32, ascending."""

  visible: Array  # (B, V), what the encoder gets
  predicted: Array  # (B, M), masked tokens whose pixels are predicted
  spare: Array  # (B, R), visible tokens for which the decoder gets a mask token too: running cells


class Counts(NamedTuple):
  """The numbers V, M and R of `Places`, Python ints."""

  visible: int
  predicted: int
  spare: int


def count(grid: Grid, ratio: float, decoder_mask: str = 'none') -> Counts:
  """Tokens of each sort; ratio: masked part of a time step, rounded down to whole tokens.

  Raises InputError unless both sorts get a token, for an unknown decoder mask, and where running
  cells do not fit the grid.
  """
  t, h, w = grid
  cells = h * w
  masked = int(ratio * cells)
  if not 0 < masked < cells:
    raise InputError(
      f'A mask ratio of {ratio} hides {masked} of the {cells} tokens of a time step; at least one '
      'must be hidden and one be visible.'
    )
  if decoder_mask not in DECODER_MASKS:
    raise InputError(f'decoder_mask={decoder_mask!r} is not one of {DECODER_MASKS}.')
  visible = t * (cells - masked)
  if decoder_mask == 'none':
    return Counts(visible, t * masked, 0)
  if t % 4 or h % 2 or w % 2:
    raise InputError(
      f"decoder_mask='running_cell' needs a multiple of 4 time steps and even sides, and the token "
      f'grid is {t} x {h} x {w}.'
    )
  # Each place has its turn in half of the time steps, masked or not.
  return Counts(visible, t * masked // 2, visible // 2)


def draw(key: Array, batch: int, grid: Grid, ratio: float, decoder_mask: str = 'none') -> Places:
  """Draws the places of each clip of a batch on its own; raises InputError as `count`."""
  counts = count(grid, ratio, decoder_mask)
  t, h, w = grid
  tube, cell = jax.random.split(key)
  keys = jax.random.split(tube, batch)
  order = jax.vmap(lambda key: jax.random.permutation(key, h * w))(keys).astype(jnp.int32)
  kept = counts.visible // t
  visible, masked = _in_time(order[:, :kept], grid), _in_time(order[:, kept:], grid)
  if decoder_mask == 'none':
    return Places(visible, masked, visible[:, :0])
  turns = running_cell(jax.random.randint(cell, (batch,), 0, 4), grid)
  return Places(
    visible, _with_turn(masked, turns, counts.predicted), _with_turn(visible, turns, counts.spare)
  )


def running_cell(phase: Array, grid: Grid) -> Array:
  """Tokens that are decoded: phase (B,), 0 to 3 -> (B, t*h*w) bool, in time order.

  A cell is 2 x 2 places. Of the row 1 1 0 0, turned left by phase + time step + 1, its places take
  the entries row by row; 1 is not decoded.
  """
  t, h, w = grid
  row, column = np.indices((h, w)) % 2
  turned = phase[:, None] + jnp.arange(t)[None] + 1  # (B, t)
  entry = (2 * row + column).ravel()[None, None] + turned[..., None]  # (B, t, h*w)
  return (entry % 4 >= 2).reshape(len(phase), -1)


def _in_time(cells: Array, grid: Grid) -> Array:
  """Places of a time step, (B, n) -> the tokens there in all time steps, (B, t*n), ascending."""
  t, h, w = grid
  steps = jnp.arange(t, dtype=jnp.int32)[:, None] * (h * w)
  return (jnp.sort(cells, axis=1)[:, None] + steps[None]).reshape(len(cells), -1)


def _with_turn(places: Array, turns: Array, number: int) -> Array:
  """Those of the places, (B, n), that have their turn, (B, N) bool: (B, number), ascending."""
  has_turn = jnp.take_along_axis(turns, places, axis=1)
  first = jnp.argsort(~has_turn, axis=1, stable=True)[:, :number]
  return jnp.take_along_axis(places, first, axis=1)
