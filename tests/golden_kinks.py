"""ReLU inputs that lie within float32's rounding of zero, and on which side of it they belong.

A ReLU has no derivative at zero: an input whose exact value is 1e-8 of its layer's largest passes
its gradient or not, depending on the last bit of a sum, and Adam makes a full step either way. Both
are correct float32 answers; which one a processor gives does not depend on the implementation. Here
such inputs are found in float64, at the same parameters, and held on the side that they have there.
All others, and all tolerances, stay as they are.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.golden_case import Case, build_model

Sides = list[np.ndarray]  # a layer each, int8: 1 above zero, -1 below, 0 if not near it

# Of a layer's largest input: what the published implementation's own float32 is off by.
NEAR = 4e-6


def sides(case: Case, params: Any) -> Sides:
  """The sides of all ReLU inputs near zero in a forward pass of a float32 case, in call order."""
  before = jax.config.jax_enable_x64
  jax.config.update('jax_enable_x64', True)
  try:
    model = build_model(case._replace(x64=True), 'released')
    wide = jax.tree.map(lambda x: jnp.asarray(x, np.float64), params)
    inputs = _relu_inputs(wide, case.clips.astype(np.float64), case.sizes, model=model)
    return [_sides(np.asarray(x)) for x in inputs]
  finally:
    jax.config.update('jax_enable_x64', before)


def count(layers: Sides) -> tuple[int, int]:
  """How many inputs are near zero, and how many there are."""
  return sum(int(np.count_nonzero(x)) for x in layers), sum(x.size for x in layers)


@contextlib.contextmanager
def held(layers: Sides | None) -> Iterator[None]:
  """While the model is traced, its ReLUs pass or stop inputs near zero as `layers` prescribes."""
  if layers is None:
    yield
    return
  remaining = iter(layers)

  def relu(x: jax.Array) -> jax.Array:
    side = next(remaining)
    return jnp.where(side == 0, jnp.maximum(x, 0), jnp.where(side > 0, x, 0))

  with mock.patch.object(nn, 'relu', relu):
    yield
  if next(remaining, None) is not None:
    raise AssertionError('The model has fewer ReLUs than sides were found for.')


def _sides(x: np.ndarray) -> np.ndarray:
  near = np.abs(x) <= NEAR * np.abs(x).max()
  return np.where(near, np.where(x > 0, 1, -1), 0).astype(np.int8)


@functools.partial(jax.jit, static_argnames='model')
def _relu_inputs(params: Any, clips: Any, sizes: Any, *, model: nn.Module) -> list[jax.Array]:
  """The inputs of every ReLU of a forward pass, in call order."""
  inputs = []

  def relu(x: jax.Array) -> jax.Array:
    inputs.append(x)
    return jnp.maximum(x, 0)

  with mock.patch.object(nn, 'relu', relu):
    model.apply({'params': params}, clips, sizes, train=True)
  return inputs
