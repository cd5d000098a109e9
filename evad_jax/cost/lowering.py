"""Lowers the training step and the prediction of a configuration for a mesh; computes nothing.

Shared by the tools that compile programs to count their cost.
"""

from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from evad_jax.distributed import sharding
from evad_jax.evaluation import evaluate
from evad_jax.model.evad import EVAD
from evad_jax.settings import from_config
from evad_jax.structures import Batch
from evad_jax.training import activation_memory, setup
from evad_jax.training.train_step import TrainState


class Parts(NamedTuple):
  """What the programs are built from; arrays are shapes and dtypes."""

  model: EVAD
  optimizer: optax.GradientTransformation
  state: TrainState
  batch: Batch  # over all devices


def parts_of(config: ConfigDict, clips: int, canvas: tuple[int, int]) -> Parts:
  """clips: global batch size; canvas: height and width in pixels."""
  model = from_config.make_model(config)
  optimizer = setup.make_optimizer(config, model, lambda step: 1e-4)
  state = setup.abstract_state(config, model, optimizer)
  return Parts(model, optimizer, state, activation_memory.abstract_batch(config, clips, canvas))


def lower_step(config: ConfigDict, parts: Parts, mesh: Mesh) -> Any:
  """Lowers the training step; config.mesh must describe the mesh."""
  step = setup.compile_step(config, parts.model, parts.optimizer, mesh)
  return step.lower(parts.state, parts.batch, jax.eval_shape(lambda: jax.random.key(0)))


def lower_predict(config: ConfigDict, parts: Parts, mesh: Mesh) -> Any:
  """Lowers the prediction of a batch."""
  params = parts.state.params
  specs = sharding.parameter_specs(params, mesh, config.mesh.fsdp)
  places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
  split = jax.tree.map(lambda _: sharding.batch_sharding(mesh), parts.batch)
  arguments = sharding.placed(params, places), sharding.placed(parts.batch, split)
  return evaluate.compile_predict(parts.model, mesh).lower(*arguments)
