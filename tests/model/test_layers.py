"""Drop path, Dense on many axes, and GELU."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.model.layers import Dense, DropPath, Mlp, gelu, summing_gradients_in


@pytest.mark.parametrize('rate', [0.1, 0.6])
def test_drop_path_keeps_the_expectation(rate):
  count = 4000
  x = jnp.ones((count, 3, 2))
  out = DropPath(rate).apply({}, x, train=True, rngs={'drop_path': jax.random.key(0)})
  first = np.asarray(out[:, 0, 0])
  np.testing.assert_array_equal(out, np.broadcast_to(first[:, None, None], out.shape))
  np.testing.assert_allclose(np.unique(first), [0, 1 / (1 - rate)], rtol=1e-6)
  # Within four standard deviations of the mean of a scaled Bernoulli variable.
  assert abs(first.mean() - 1) < 4 * np.sqrt(rate / (1 - rate) / count)


def test_drop_path_does_nothing_outside_training_or_at_rate_zero():
  x = jnp.arange(6.0).reshape(3, 2)
  np.testing.assert_array_equal(DropPath(0.9).apply({}, x, train=False), x)
  np.testing.assert_array_equal(DropPath(0.0).apply({}, x, train=True), x)


def test_dense_and_mlp_by_numpy():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 4, 5))
  first = {'kernel': rng.normal(size=(5, 7)), 'bias': rng.normal(size=7)}
  second = {'kernel': rng.normal(size=(7, 5)), 'bias': rng.normal(size=5)}
  hidden = x @ first['kernel'] + first['bias']
  np.testing.assert_allclose(Dense(7).apply({'params': first}, x), hidden, atol=1e-5)
  erf = np.vectorize(math.erf)
  wanted = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))) @ second['kernel'] + second['bias']
  out = Mlp(7).apply({'params': {'fc1': first, 'fc2': second}}, x)
  np.testing.assert_allclose(out, wanted, atol=2e-5)


def test_gelu_and_its_gradient_are_those_of_the_library():
  x = np.linspace(-9, 9, 1001)
  with jax.enable_x64(True):
    found, wanted = (
      jax.vmap(jax.value_and_grad(form))(jnp.asarray(x))
      for form in (gelu, lambda x: jax.nn.gelu(x, approximate=False))
    )
  np.testing.assert_allclose(found[0], wanted[0], atol=1e-14)
  np.testing.assert_allclose(found[1], wanted[1], atol=1e-14)
  slope = jax.vmap(jax.grad(gelu))(jnp.asarray(x, jnp.bfloat16))
  assert slope.dtype == jnp.bfloat16
  np.testing.assert_allclose(slope.astype(float), wanted[1], atol=0.02)


def test_gelu_keeps_its_argument_alone_for_the_backward_pass():
  _, backward = jax.vjp(gelu, jnp.ones(7))
  assert [x.shape for x in jax.tree.leaves(backward)] == [(7,)]


@pytest.mark.parametrize('gradient_dtype', ['float32', 'compute'])
def test_gradients_of_kernels_are_sums_in_the_type_that_is_asked_for(gradient_dtype):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(3, 100, 4)), jnp.bfloat16)
  params = {'params': {'kernel': jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)}}
  module = Dense(5, use_bias=False, dtype=jnp.bfloat16)

  def gradient(params):
    out, backward = jax.vjp(lambda params: module.apply(params, x), params)
    assert out.dtype == jnp.bfloat16
    return backward(out)[0]['params']['kernel']

  found = summing_gradients_in(gradient_dtype, gradient)(params)
  out = np.asarray(module.apply(params, x), float)
  wanted = np.einsum('bnd,bnf->df', np.asarray(x, float), out)
  assert found.dtype == jnp.float32
  error = np.abs(found - wanted).max() / np.abs(wanted).max()
  assert error < 1e-6 if gradient_dtype == 'float32' else 1e-4 < error < 1e-2


def test_another_type_for_gradients_is_an_error():
  with pytest.raises(InputError, match="gradient_dtype='half' is not one of"):
    summing_gradients_in('half', None)
