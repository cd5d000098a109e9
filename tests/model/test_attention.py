"""Attention and the importance of tokens against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.model.attention import SelfAttention

B, N, HEADS, WIDTH = 2, 7, 2, 8
MODULE = SelfAttention(HEADS)


@pytest.fixture(scope='module')
def case():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(B, N, WIDTH)).astype(np.float32)
  parameters = {
    'q_bias': rng.normal(size=WIDTH),
    'v_bias': rng.normal(size=WIDTH),
    'qkv': {'kernel': rng.normal(size=(WIDTH, 3 * WIDTH)) * 0.5},
    'out': {'kernel': rng.normal(size=(WIDTH, WIDTH)), 'bias': rng.normal(size=WIDTH)},
  }
  mask = np.array([[1, 1, 0, 1, 1, 0, 1], [1] * N], bool)
  weight = rng.uniform(0, 4, (B, N)).astype(np.float32)
  return x, jax.tree.map(np.float32, parameters), mask, weight


@jax.jit
def run(parameters, x, key_mask=None, query_weight=None):
  return MODULE.apply({'params': parameters}, x, key_mask=key_mask, query_weight=query_weight)


def oracle(p, x, mask, weight):
  """One query of one head at a time."""
  d = WIDTH // HEADS
  out, importance = np.zeros((B, N, WIDTH)), np.zeros((B, N))
  for b in range(B):
    projected = x[b].astype(float) @ p['qkv']['kernel']
    query, key, value = np.split(projected, 3, axis=1)
    query, value = query + p['q_bias'], value + p['v_bias']
    for head in range(HEADS):
      part = slice(head * d, (head + 1) * d)
      for i in range(N):
        scores = np.array([query[i, part] @ key[j, part] for j in range(N)]) / np.sqrt(d)
        row = np.exp(scores) * mask[b]
        row /= row.sum()
        out[b, i, part] = row @ value[:, part]
        importance[b] += weight[b, i] * row / N / HEADS
  return out @ p['out']['kernel'] + p['out']['bias'], importance


@pytest.mark.parametrize('masked', [False, True])
def test_output_and_importance_equal_the_loops(case, masked):
  x, parameters, mask, weight = case
  mask = mask if masked else np.ones_like(mask)
  out, importance = run(parameters, x, mask if masked else None, weight)
  wanted_out, wanted_importance = oracle(parameters, x, mask, weight)
  np.testing.assert_allclose(out, wanted_out, atol=2e-5)
  np.testing.assert_allclose(importance, wanted_importance, atol=1e-6)
  if masked:
    assert (np.asarray(importance)[~mask] == 0).all()


def test_rows_of_weight_zero_do_not_count(case):
  x, parameters, _, weight = case
  weight = weight.copy()
  weight[:, 3:] = 0
  _, importance = run(parameters, x, None, weight)
  np.testing.assert_allclose(importance.sum(axis=1), weight.sum(axis=1) / N, rtol=1e-5)


def test_large_logits_do_not_overflow(case):
  x, parameters, mask, weight = case
  out, importance = run(parameters, 100 * x, mask, weight)
  assert np.isfinite(out).all() and np.isfinite(importance).all()
  np.testing.assert_allclose(importance.sum(axis=1), weight.sum(axis=1) / N, rtol=1e-5)


def test_no_gradient_flows_through_importance(case):
  x, parameters, mask, weight = case

  def loss(x, importance_share):
    out, importance = run(parameters, x, mask, weight)
    return out.sum() + importance_share * (importance**2).sum()

  without, with_it = jax.grad(loss)(x, 0.0), jax.grad(loss)(x, 1e3)
  np.testing.assert_array_equal(without, with_it)
  assert np.abs(without).max() > 0.1


def test_importance_only_where_asked_for_and_output_the_same(case):
  x, parameters, mask, weight = case
  out, importance = run(parameters, x, mask)
  assert importance is None
  np.testing.assert_allclose(out, run(parameters, x, mask, weight)[0], atol=1e-6)


def test_bfloat16_importance_is_float32(case):
  x, parameters, mask, weight = case
  out, importance = SelfAttention(HEADS, dtype=jnp.bfloat16).apply(
    {'params': parameters}, jnp.asarray(x, jnp.bfloat16), key_mask=mask, query_weight=weight
  )
  assert (out.dtype, importance.dtype) == (jnp.bfloat16, jnp.float32)
  wanted_out, wanted_importance = oracle(parameters, x, mask, weight)
  np.testing.assert_allclose(out.astype(float), wanted_out, atol=0.3)
  np.testing.assert_allclose(importance, wanted_importance, atol=0.05)


def test_heads_must_divide_the_width():
  with pytest.raises(InputError, match='num_heads=3 must divide the width, 8'):
    SelfAttention(3).init(jax.random.key(0), jnp.zeros((1, 2, 8)))
