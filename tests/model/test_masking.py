"""Tube masks and running cells by hand and by count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.model import masking

PUBLISHED = (8, 14, 14)


@pytest.mark.parametrize(
  'grid, ratio, decoder_mask, wanted',
  [
    (PUBLISHED, 0.9, 'none', (160, 1408, 0)),
    (PUBLISHED, 0.75, 'none', (392, 1176, 0)),
    ((8, 18, 18), 0.9, 'none', (264, 2328, 0)),
    (PUBLISHED, 0.9, 'running_cell', (160, 704, 80)),
    ((4, 2, 2), 0.5, 'running_cell', (8, 4, 4)),
  ],
)
def test_counts(grid, ratio, decoder_mask, wanted):
  assert masking.count(grid, ratio, decoder_mask) == wanted


@pytest.mark.parametrize(
  'grid, ratio, decoder_mask, words',
  [
    (PUBLISHED, 0.005, 'none', 'hides 0 of the 196 tokens'),
    (PUBLISHED, 1.0, 'none', 'hides 196 of the 196 tokens'),
    (PUBLISHED, 0.9, 'random', "decoder_mask='random' is not one of"),
    ((6, 14, 14), 0.9, 'running_cell', 'multiple of 4 time steps .* 6 x 14 x 14'),
    ((8, 14, 7), 0.9, 'running_cell', 'even sides'),
  ],
)
def test_what_does_not_fit_is_an_error(grid, ratio, decoder_mask, words):
  with pytest.raises(InputError, match=words):
    masking.count(grid, ratio, decoder_mask)


@functools.cache
def drawn(batch, grid, ratio, decoder_mask='none'):
  draw = jax.jit(masking.draw, static_argnums=(1, 2, 3, 4))
  return jax.device_get(draw(jax.random.key(0), batch, grid, ratio, decoder_mask))


def test_a_tube_hides_the_same_places_of_every_time_step():
  places = drawn(50, PUBLISHED, 0.9)
  assert places.visible.shape == (50, 160) and places.spare.shape == (50, 0)
  both = np.concatenate([places.visible, places.predicted], axis=1)
  np.testing.assert_array_equal(np.sort(both, axis=1), np.tile(np.arange(1568), (50, 1)))
  for ids in (places.visible, places.predicted):
    assert ids.dtype == np.int32 and (np.diff(ids, axis=1) > 0).all()
    steps = ids.reshape(50, 8, -1)
    np.testing.assert_array_equal(
      steps - 196 * np.arange(8)[:, None], np.tile(steps[:, :1], (8, 1))
    )
  assert len({row.tobytes() for row in places.visible}) == 50  # one map per clip


def test_every_place_is_hidden_equally_often():
  places = drawn(4000, (2, 3, 3), 0.6)
  often = np.bincount(places.predicted.ravel(), minlength=18) / 4000
  # Within four standard deviations of 5 of 9.
  np.testing.assert_allclose(often, 5 / 9, atol=4 * np.sqrt(5 / 9 * 4 / 9 / 4000))


def test_a_clip_has_its_tube_in_any_batch_and_with_running_cells():
  few, many = drawn(50, PUBLISHED, 0.9), drawn(100, PUBLISHED, 0.9, 'running_cell')
  np.testing.assert_array_equal(few.visible, many.visible[:50])


def slow_cells(phase, grid):
  """The published rule in loops: True where a token is decoded."""
  t, h, w = grid
  found = np.zeros(grid, bool)
  for step, row, column in np.ndindex(t, h, w):
    queue = [1, 1, 0, 0]
    for _ in range((phase + step + 1) % 4):
      queue.append(queue.pop(0))
    found[step, row, column] = not queue[2 * (row % 2) + column % 2]
  return found.ravel()


@pytest.mark.parametrize('grid', [(4, 2, 2), (8, 4, 6)])
def test_running_cells_against_loops(grid):
  cells = np.asarray(masking.running_cell(jnp.arange(4), grid))
  np.testing.assert_array_equal(cells, [slow_cells(phase, grid) for phase in range(4)])
  steps = cells.reshape(4, grid[0], -1)
  assert (steps.sum(axis=2) == steps.shape[2] // 2).all()
  for first in range(grid[0] - 3):
    assert (steps[:, first : first + 4].sum(axis=1) == 2).all()


def test_running_cells_always_predict_704_of_784():
  places = drawn(100, PUBLISHED, 0.9, 'running_cell')
  phases = []
  for visible, predicted, spare in zip(*places, strict=True):
    assert len(predicted) == len(set(predicted)) == 704 and len(spare) == len(set(spare)) == 80
    assert not set(predicted) & set(visible) and set(spare) <= set(visible)
    turns = np.zeros(1568, bool)
    turns[[*predicted, *spare]] = True
    phases += [p for p in range(4) if np.array_equal(turns, slow_cells(p, PUBLISHED))]
  assert len(phases) == 100 and set(phases) == {0, 1, 2, 3}
