"""Layers that every part of the model shares: Dense, LayerNorm, DropPath, Mlp.

Parameters are float32; `dtype` is the type of the computation (bfloat16 or float32; float64 in the
parity checks). Norms take their statistics in at least float32 (flax does).
"""

import contextvars
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax.errors import InputError

Array = jax.Array

xavier = nn.initializers.xavier_uniform()

GRADIENT_DTYPES = ('float32', 'compute')
SAVED = 'saved'  # name of what recomputation keeps

# The two-pass variance: the fast form E[x^2] - E[x]^2 loses digits where the mean is large.
LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
  """The type for softmax, losses and boxes: float32, or float64 if that is the compute type."""
  dtype = jnp.dtype(dtype)
  return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


_summed_in = contextvars.ContextVar('gradient_dtype', default='float32')


def summing_gradients_in(gradient_dtype: str, function: Callable) -> Callable:
  """`function`, traced so that kernel gradients are summed in 'float32' or the 'compute' type.

  Devices sum them in that type, too. Raises InputError for any other value.
  """
  if gradient_dtype not in GRADIENT_DTYPES:
    raise InputError(
      f'config.mesh.gradient_dtype={gradient_dtype!r} is not one of {GRADIENT_DTYPES}.'
    )

  @functools.wraps(function)
  def call(*arguments: Any) -> Any:
    before = _summed_in.set(gradient_dtype)
    try:
      return function(*arguments)
    finally:
      _summed_in.reset(before)

  return call


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x: Array, kernel: Array, dtype: jnp.dtype, sums: str) -> Array:
  """(rows, D), (D, F) -> (rows, F) in `dtype`; sums: one of GRADIENT_DTYPES."""
  return x.astype(dtype) @ kernel.astype(dtype)


def _product_forward(x, kernel, dtype, sums):
  # Keeps the cast kernel: a sharded one would otherwise be gathered again.
  cast = kernel.astype(dtype)
  return x.astype(dtype) @ cast, (x, cast, jnp.empty(0, kernel.dtype))


def _product_gradients(dtype, sums, kept, gradient):
  x, kernel, like_kernel = kept
  wide = at_least_float32(dtype) if sums == 'float32' else dtype
  to_x = jax.lax.dot_general(gradient, kernel, (((1,), (1,)), ((), ())))
  to_kernel = jax.lax.dot_general(
    x.astype(dtype), gradient, (((0,), (0,)), ((), ())), preferred_element_type=wide
  )
  return to_x.astype(x.dtype), to_kernel.astype(like_kernel.dtype)


_product.defvjp(_product_forward, _product_gradients)


def _uniform(bound: float | None, otherwise: nn.initializers.Initializer) -> Callable:
  """Start values uniform in [-bound, bound], or by another rule where there is no bound."""
  if bound is None:
    return otherwise
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Dense(nn.Module):
  """Like nn.Dense, with Xavier init, computed on one flat axis of rows.

  The weight gradient of a (B, N, D) input contracts two axes, which XLA's CPU backend does several
  times slower than the same product on (B*N, D). It is never rounded to 16 bits before it is summed
  over clips and devices, unless `summing_gradients_in` asks for it.
  """

  features: int
  use_bias: bool = True
  dtype: jnp.dtype = jnp.float32
  bound: float | None = None  # kernel starts uniform in [-bound, bound]; None: Xavier

  @nn.compact
  def __call__(self, x: Array) -> Array:  # (..., D) -> (..., features)
    start = _uniform(self.bound, xavier)
    kernel = self.param('kernel', start, (x.shape[-1], self.features))
    out = _product(x.reshape(-1, x.shape[-1]), kernel, self.dtype, _summed_in.get())
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
      out += bias.astype(self.dtype)[None]
    return out.reshape(*x.shape[:-1], self.features)


class Affine(nn.Module):
  """Kernel and bias of a Dense layer, for modules that compute the product themselves."""

  rows: int
  features: int
  dtype: jnp.dtype = jnp.float32
  bound: float | None = None  # both start uniform in [-bound, bound]; None: as Dense

  @nn.compact
  def __call__(self) -> tuple[Array, Array]:  # (rows, features), (features,)
    kernel = self.param('kernel', _uniform(self.bound, xavier), (self.rows, self.features))
    zeros = nn.initializers.zeros_init()
    bias = self.param('bias', _uniform(self.bound, zeros), (self.features,))
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
  """Exact (erf) GELU. Its backward pass keeps x alone; jax.nn's keeps more of that size."""
  return nn.gelu(x, approximate=False)


def _gelu_gradient(x: Array, gradient: Array) -> tuple[Array]:
  wide = x.astype(at_least_float32(x.dtype))
  density = jnp.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
  slope = jax.scipy.stats.norm.cdf(wide) + wide * density
  return ((slope * gradient.astype(wide.dtype)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_gradient)


class Mlp(nn.Module):
  """Linear, exact (erf) GELU, linear."""

  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:  # (..., D) -> (..., D)
    hidden = gelu(Dense(self.hidden, dtype=self.dtype, name='fc1')(x))
    return Dense(x.shape[-1], dtype=self.dtype, name='fc2')(hidden)
