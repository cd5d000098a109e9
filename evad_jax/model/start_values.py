"""Initial parameters of a model, and their shapes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from evad_jax.model.evad import EVAD


@functools.partial(jax.jit, static_argnums=0)
def start_params(model: EVAD, seed: int) -> Any:
  """Initial parameters of a run from scratch, float32, on one device."""
  # Parameters do not depend on the size of a clip, so the smallest one does.
  side = 2 * model.patch
  clips = jnp.zeros((1, 2 * model.tubelet, side, side, 3))
  unpruned = model.clone(keep_rate=1.0, remat=False)
  return unpruned.init(jax.random.key(seed), clips, jnp.array([[side, side]]), train=False)[
    'params'
  ]


@functools.lru_cache(maxsize=32)  # a run asks several times, and tracing takes seconds
def abstract_params(model: EVAD) -> Any:
  """Shapes and dtypes of the parameters. Raises InputError for settings that do not fit."""
  return jax.eval_shape(functools.partial(start_params, model), 0)
