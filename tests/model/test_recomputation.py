"""Recomputing activations in the backward pass changes no gradient, whatever the rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.model import attention
from evad_jax.model.fused_attention import attend_fused
from evad_jax.model.vit import Encoder

FRAMES, HEIGHT, WIDTH = 8, 64, 112
TOKENS = 448


@functools.cache
def start(encoder):
  clips, mask = jnp.zeros((1, FRAMES, HEIGHT, WIDTH, 3)), jnp.ones((1, TOKENS // 4), bool)
  return jax.jit(functools.partial(encoder.init, train=False))(jax.random.key(0), clips, mask)


@functools.cache
def gradients(form, dtype, remat):
  """Gradients, for tubelets and blocks, of a sum over the encoder's outputs, at start values."""
  encoder = Encoder(
    width=192,
    depth=3,
    num_heads=3,
    tubelet=2,
    patch=8,
    pretrain_grid=(4, 4),
    keep_rates=(0.7, 0.7, 1.0),
    enhanced_weight=1.0,
    feature_blocks=(0, 1, 2),
    drop_path=0.0,
    remat=remat,
    attention=form,
    dtype=dtype,
  )
  clips = jnp.asarray(np.random.default_rng(0).normal(size=(1, FRAMES, HEIGHT, WIDTH, 3)), dtype)
  mask = jnp.arange(TOKENS // 4)[None] < TOKENS // 4 - 14  # a row of a slot is padding
  params = start(encoder.clone(attention='plain', remat=False, dtype=jnp.float32))

  def loss(params):
    tokens, maps = encoder.apply(params, clips, mask, train=False)
    return sum((x.astype(jnp.float32) ** 3).mean() for x in (tokens.x, *maps))

  grads = jax.jit(jax.grad(loss))(params)['params']
  return {
    name: np.concatenate([np.ravel(x).astype(float) for x in jax.tree.leaves(grads[name])])
    for name in ('tubelets', *(f'block_{i}' for i in range(3)))
  }


@pytest.mark.parametrize(
  'form, dtype',
  [
    pytest.param('plain', jnp.bfloat16, marks=pytest.mark.slow),
    ('blocked', jnp.bfloat16),
    ('fused', jnp.bfloat16),
    pytest.param('blocked', jnp.float32, marks=pytest.mark.slow),
  ],
)
def test_gradients_with_and_without(monkeypatch, form, dtype):
  # The fused form in the library's own words, which a CPU has too.
  monkeypatch.setattr(attention, 'form_for', lambda attention, tokens, dtype: attention)
  everywhere = functools.partial(attend_fused, kernel='xla')
  monkeypatch.setattr(attention, 'attend_fused', lambda *a, kernel, **more: everywhere(*a, **more))
  kept, recomputed = gradients(form, dtype, False), gradients(form, dtype, True)
  for name in kept:
    assert np.linalg.norm(kept[name]) > 0
    distance = np.linalg.norm(kept[name] - recomputed[name]) / np.linalg.norm(kept[name])
    assert distance < (1e-2 if dtype == jnp.bfloat16 else 1e-4), (name, distance)
