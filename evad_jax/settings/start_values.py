"""Initial parameters of a model, and their shapes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from evad_jax.model.evad import EVAD


def init_params(config: ConfigDict, model: EVAD) -> Any:
  """Initial parameters from config.seed; traceable."""
  height, width = config.clip.canvases[0]  # parameters are the same for every canvas
  clips = jnp.zeros((1, config.clip.clip_frames, height, width, 3))
  sizes = jnp.array([[height, width]], jnp.int32)
  return model.init(jax.random.key(config.seed), clips, sizes, train=False)['params']


def start_params(config: ConfigDict, model: EVAD) -> Any:
  """Initial parameters of a run from scratch, on one device."""
  return jax.jit(functools.partial(init_params, config, model))()


def abstract_params(config: ConfigDict, model: EVAD) -> Any:
  """Shapes and dtypes of the parameters."""
  return jax.eval_shape(functools.partial(init_params, config, model))
