"""Start values of a model's parameters, and their shapes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from evad_jax.model.evad import EVAD


def init_params(config: ConfigDict, model: EVAD) -> Any:
  """Start values from config.seed; traceable."""
  height, width = config.clip.canvases[0]  # parameters are the same for every canvas
  clips = jnp.zeros((1, config.clip.clip_frames, height, width, 3))
  sizes = jnp.array([[height, width]], jnp.int32)
  return model.init(jax.random.key(config.seed), clips, sizes, train=False)['params']


def start_params(config: ConfigDict, model: EVAD) -> Any:
  """The parameters of a run from scratch, on one device."""
  return jax.jit(functools.partial(init_params, config, model))()


def abstract_params(config: ConfigDict, model: EVAD) -> Any:
  """Shapes and types of the parameters."""
  return jax.eval_shape(functools.partial(init_params, config, model))


@functools.lru_cache(maxsize=16)
def abstract_params_of_any_clip(model: EVAD) -> Any:
  """The same without clips, which change no parameter; says nothing of clips that do not fit."""
  side = 4 * model.patch
  clips, sizes = jnp.zeros((1, 4 * model.tubelet, side, side, 3)), jnp.full((1, 2), side)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), clips, sizes, train=False))['params']
