"""Layers that every part of the model shares: Dense, LayerNorm, DropPath, Mlp.

Parameters are float32; `dtype` is the type of the computation (bfloat16 or float32; float64 in the
parity checks). Norms take their statistics in at least float32 (flax does).
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

xavier = nn.initializers.xavier_uniform()

SAVED = 'saved'  # name of what a policy of recomputation keeps

# The two-pass variance: the fast form E[x^2] - E[x]^2 loses digits where the mean is large.
LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
  """The type for softmax, losses and boxes: float32, or float64 where that is the compute type."""
  return jnp.promote_types(dtype, jnp.float32)


class Dense(nn.Dense):
  """nn.Dense with Xavier init, computed on one flat axis of rows.

  The weight gradient of a (B, N, D) input contracts two axes, which XLA's CPU backend does several
  times slower than the same product on (B*N, D).
  """

  kernel_init: nn.initializers.Initializer = xavier

  @nn.compact
  def __call__(self, x: Array) -> Array:  # (..., D) -> (..., features)
    return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)


class Affine(nn.Module):
  """Kernel and bias of a Dense layer, for those who make the product themselves."""

  rows: int
  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self) -> tuple[Array, Array]:  # (rows, features), (features,)
    kernel = self.param('kernel', xavier, (self.rows, self.features))
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    return kernel.astype(self.dtype), bias.astype(self.dtype)


class DropPath(nn.Module):
  """Stochastic depth (arXiv 1603.09382): drops a residual branch for a whole example."""

  rate: float  # probability of dropping, in [0, 1)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:  # (B, ...) -> (B, ...)
    if not train or self.rate == 0:
      return x
    keep = 1 - self.rate
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    kept_mask = jax.random.bernoulli(self.make_rng('drop_path'), keep, shape)
    return jnp.where(kept_mask, x / keep, 0).astype(x.dtype)


@jax.custom_vjp
def gelu(x: Array) -> Array:
  """Exact (erf) GELU. Its backward pass keeps x alone, where jax.nn's keeps more of that size."""
  return nn.gelu(x, approximate=False)


def _gelu_gradient(x: Array, gradient: Array) -> tuple[Array]:
  wide = x.astype(at_least_float32(x.dtype))
  density = jnp.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
  slope = jax.scipy.stats.norm.cdf(wide) + wide * density
  return ((slope * gradient).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_gradient)


class Mlp(nn.Module):
  """Linear, exact (erf) GELU, linear."""

  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:  # (..., D) -> (..., D)
    hidden = gelu(Dense(self.hidden, dtype=self.dtype, name='fc1')(x))
    return Dense(x.shape[-1], dtype=self.dtype, name='fc2')(hidden)
