"""Tubelets of clips against loops; standardised pixels and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.model import tubelet_pixels


def test_the_order_of_pixels_against_a_loop():
  clips = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 9, 3), np.uint8)
  found = np.asarray(tubelet_pixels.cut(clips, 2, 3))
  assert found.shape == (2, 2 * 2 * 3, 2 * 3 * 3 * 3)
  number = np.arange(54).reshape(2, 3, 3, 3)
  for t, y, x in np.ndindex(2, 2, 3):
    for f, row, column, channel in np.ndindex(2, 3, 3, 3):
      pixel = clips[:, 2 * t + f, 3 * y + row, 3 * x + column, channel]
      token = (t * 2 + y) * 3 + x
      np.testing.assert_array_equal(found[:, token, number[f, row, column, channel]], pixel)
  np.testing.assert_array_equal(tubelet_pixels.join(found, (2, 2, 3), 2, 3), clips)


def test_standardised_against_a_loop_and_back():
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (2, 5, 2 * 4 * 4 * 3), np.uint8)
  found = np.asarray(tubelet_pixels.standardise(pixels))
  for b, m, channel in np.ndindex(2, 5, 3):
    x = pixels[b, m, channel::3] / 255
    wanted = (x - x.mean()) / (np.sqrt(x.var(ddof=1)) + 1e-6)
    np.testing.assert_allclose(found[b, m, channel::3], wanted, atol=2e-6)
  back = tubelet_pixels.restore(jnp.asarray(found), pixels)
  np.testing.assert_allclose(back, pixels, atol=1e-3)


def test_flat_tubelets_become_zero():
  for level in (0, 1, 100, 255):
    pixels = np.full((1, 1, 1536), level, np.uint8)
    np.testing.assert_array_equal(tubelet_pixels.standardise(pixels), 0)


def test_some_tubelets_are_filled_in():
  clips = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 4, 3), np.uint8)
  places = jnp.array([[1, 7], [5, 0]])
  pixels = jnp.full((2, 2, 24), 300.0) + jnp.arange(2.0)[None, :, None]
  found = tubelet_pixels.cut(tubelet_pixels.fill_in(clips, pixels, places, 2, 2), 2, 2)
  wanted = np.array(tubelet_pixels.cut(clips, 2, 2), np.float32)
  for clip, row in enumerate(places):
    wanted[clip, row] = pixels[clip]
  np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize('clip', [(6, 8, 8), (8, 9, 8), (8, 8, 10)])
def test_a_clip_that_does_not_divide_is_an_error(clip):
  with pytest.raises(InputError, match='even number of tubelets of 2 x 4 x 4'):
    jax.eval_shape(lambda x: tubelet_pixels.cut(x, 2, 4), jnp.zeros((1, *clip, 3)))
