"""Initial parameters of a model, and their shapes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from evad_jax.model.evad import EVAD
from evad_jax.model.masked_autoencoder import MaskedAutoencoder
from evad_jax.model.masking import Places

Model = EVAD | MaskedAutoencoder


def start_params(model: Model, seed: int) -> Any:
  """Initial parameters of a run from scratch, float32, on one device."""
  return _start(_plain(model), seed)


def abstract_params(model: Model) -> Any:
  """Shapes and dtypes of the parameters. Raises InputError for settings that do not fit."""
  return _abstract(_plain(model))


def _plain(model: Model) -> Model:
  """The model without what changes its computation alone, so that it is traced once for all."""
  model = model.clone(attention='plain', remat=False, dtype=jnp.float32)
  return model.clone(keep_rate=1.0) if isinstance(model, EVAD) else model


@functools.partial(jax.jit, static_argnums=0)
def _start(model: Model, seed: int) -> Any:
  # Parameters do not depend on the size of a clip, so the smallest one does.
  side, key = 2 * model.patch, jax.random.key(seed)
  clips = jnp.zeros((1, 2 * model.tubelet, side, side, 3))
  if isinstance(model, EVAD):
    return model.init(key, clips, jnp.array([[side, side]]), train=False)['params']
  one = jnp.zeros((1, 1), jnp.int32)
  return model.init(key, clips, Places(one, one + 1, one[:, :0]))['params']


@functools.lru_cache(maxsize=32)  # tracing takes seconds, and a run asks several times
def _abstract(model: Model) -> Any:
  return jax.eval_shape(functools.partial(_start, model), 0)
