"""Tubelets against a loop, in the forms of all platforms."""

import jax
import numpy as np
import pytest

from evad_jax.model.vit import TubeletEmbedding


@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
def test_tubelets_are_products_of_their_pixels(platform, monkeypatch):
  rng = np.random.default_rng(0)
  clips = rng.normal(size=(2, 4, 8, 12, 3)).astype(np.float32)
  kernel = rng.normal(size=(2 * 4 * 4 * 3, 5)).astype(np.float32)
  bias = rng.normal(size=5).astype(np.float32)
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  module = TubeletEmbedding(5, tubelet=2, patch=4)
  found = module.apply({'params': {'projection': {'kernel': kernel, 'bias': bias}}}, clips)
  assert found.shape == (2, 12, 5)
  found = found.reshape(2, 2, 2, 3, 5)
  for b, t, y, x in np.ndindex(2, 2, 2, 3):
    pixels = clips[b, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].ravel()
    np.testing.assert_allclose(found[b, t, y, x], pixels @ kernel + bias, atol=2e-5)
