"""Initial parameters of a model, and their shapes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from evad_jax.model.evad import EVAD


def start_params(model: EVAD, seed: int) -> Any:
  """Initial parameters of a run from scratch, float32, on one device."""
  return _start(_plain(model), seed)


def abstract_params(model: EVAD) -> Any:
  """Shapes and dtypes of the parameters. Raises InputError for settings that do not fit."""
  return _abstract(_plain(model))


def _plain(model: EVAD) -> EVAD:
  """The model without what changes its computation alone, so that it is traced once for all."""
  return model.clone(keep_rate=1.0, attention='plain', remat=False, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _start(model: EVAD, seed: int) -> Any:
  # Parameters do not depend on the size of a clip, so the smallest one does.
  side = 2 * model.patch
  clips, sizes = jnp.zeros((1, 2 * model.tubelet, side, side, 3)), jnp.array([[side, side]])
  return model.init(jax.random.key(seed), clips, sizes, train=False)['params']


@functools.lru_cache(maxsize=32)  # tracing takes seconds, and a run asks several times
def _abstract(model: EVAD) -> Any:
  return jax.eval_shape(functools.partial(_start, model), 0)
