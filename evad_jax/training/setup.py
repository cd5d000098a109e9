"""Builds the parts of a run from a configuration: optimizer, state, batches, compiled step."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evad_jax.checkpoints.manager import newest_settings
from evad_jax.data import pipeline
from evad_jax.data.records import RecordIndex
from evad_jax.distributed import sharding
from evad_jax.distributed.processes import tell
from evad_jax.model import layers, start_values
from evad_jax.model.evad import EVAD
from evad_jax.settings import automatic, from_config
from evad_jax.structures import Batch
from evad_jax.training import activation_memory, checks, init_from, keep_rates
from evad_jax.training import optimizer as optimizers
from evad_jax.training.train_step import StepMetrics, TrainState, initial_state, train_step


def resolve(config: ConfigDict, workdir: Path) -> ConfigDict:
  """The configuration with values for 'auto'; a resumed run keeps the values it started with."""
  saved = newest_settings(workdir / 'checkpoints') or {}
  return automatic.resolve(config, saved.get('model'), step_bytes)


def step_bytes(config: ConfigDict) -> int:
  """Memory of one device for a step, in bytes: state, gradients, and activations of its clips.

  For the largest canvas and the highest keep rate. Raises InputError where the configuration does
  not fit the devices.
  """
  mesh = sharding.make_mesh(config.mesh.model)
  model = from_config.make_model(config)
  checks.check(config, model, mesh)
  optimizer = make_optimizer(config, model, lambda step: 0.0)
  state = abstract_state(config, model, optimizer)
  places = sharding.state_shardings(state, optimizer, mesh, config.mesh.fsdp)
  held = activation_memory.on_device(state, places) + activation_memory.on_device(
    state.params, places.params
  )
  clips = config.train.batch_size // mesh.shape['data'] // config.train.accumulation
  canvas = max(from_config.canvases(config), key=math.prod)
  model = model.clone(keep_rate=max(keep_rates.listed(config), key=np.mean))
  return held + clips * activation_memory.kept_of_a_clip(config, model, canvas)


def schedule(config: ConfigDict, index: RecordIndex) -> Any:
  """Step (counted from 0) -> learning rate."""
  rate = optimizers.learning_rate(config.optimizer, config.train.epochs)
  epochs_per_step = config.train.batch_size / len(index)
  scale = config.train.batch_size / config.optimizer.rate_batch_size

  def of_step(step: Any) -> Any:
    if isinstance(step, jax.Array):
      step = step.astype(float)
    return scale * rate(step * epochs_per_step)

  return of_step


def open_batches(
  config: ConfigDict, index: RecordIndex, mesh: Mesh, start: int
) -> pipeline.BatchIterator:
  """This process's part of the training batches, from the one after step `start`."""
  part, parts = sharding.part_of_process(mesh)
  return pipeline.train_batches(
    index,
    from_config.clip_settings(config),
    seed=config.seed,
    batch_size=config.train.batch_size,
    process_index=part,
    process_count=parts,
    start_step=start,
    **from_config.pipeline_settings(config),
  )


def make_optimizer(
  config: ConfigDict, model: EVAD, rate: Callable[[Any], Any]
) -> optax.GradientTransformation:
  """AdamW of config.optimizer; `rate` maps a step to the base learning rate."""
  params = start_values.abstract_params(model)
  return optimizers.make_optimizer(config.optimizer, params, rate)


def first_params(config: ConfigDict, model: EVAD, classes: list[str], workdir: Path) -> Any:
  """The parameters at step 0, from config.init_from or from scratch; prints which."""
  params = start_values.start_params(model, config.seed)
  if not config.init_from:
    tell(f'Starting from scratch: random initialisation with config.seed={config.seed}')
    return params
  params, report = init_from.load(config, params, classes)
  tell(report.text())
  if jax.process_index() == 0:
    report.write(workdir / 'init_from.json')
  return params


def place_state(
  config: ConfigDict, params: Any, optimizer: optax.GradientTransformation, shardings: Any
) -> TrainState:
  """The state at step 0. The optimizer state is created sharded, so no device holds all of it."""
  start = jax.jit(state_of(config, optimizer), out_shardings=shardings, donate_argnums=0)
  return start(sharding.put(params, shardings.params))


def state_of(config: ConfigDict, optimizer: optax.GradientTransformation) -> Callable:
  """params -> TrainState at step 0."""
  return functools.partial(initial_state, optimizer=optimizer, ema=bool(config.train.ema_decay))


def abstract_state(
  config: ConfigDict, model: EVAD, optimizer: optax.GradientTransformation
) -> TrainState:
  """Shapes and dtypes of the state."""
  params = start_values.abstract_params(model)
  return jax.eval_shape(state_of(config, optimizer), params)


def evaluation_params(state: TrainState) -> Any:
  """The parameters to evaluate: the moving average where there is one."""
  return state.params if state.ema_params is None else state.ema_params


def num_parameters(state: TrainState) -> int:
  """The number of parameters of the model."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))


def compile_step(
  config: ConfigDict,
  model: EVAD,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  *,
  chained: bool = False,
) -> Any:
  """jit of train_step on the mesh: state sharded by config.mesh and donated, batch over 'data'.

  chained: jit of `chained_step` instead, which takes and returns one more flag.
  """
  everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
  abstract = abstract_state(config, model, optimizer)
  state = sharding.state_shardings(abstract, optimizer, mesh, config.mesh.fsdp)
  step = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    action_weight=config.loss.action_weight,
    consistency=config.train.consistency,
    accumulation=config.train.accumulation,
    masked=config.data.unreadable == 'skip',
    ema_decay=config.train.ema_decay,
    mesh=mesh if mesh.size > 1 else None,
  )
  if not chained:
    shardings = (state, split, everywhere), (state, everywhere)
  else:
    step = functools.partial(chained_step, step)
    shardings = (state, everywhere, split, everywhere), (state, everywhere, everywhere)
  step = layers.summing_gradients_in(config.mesh.gradient_dtype, sharding.within(mesh, step))
  return jax.jit(step, in_shardings=shardings[0], out_shardings=shardings[1], donate_argnums=0)


def chained_step(
  step: Callable, state: TrainState, sound: jax.Array, batch: Batch, key: jax.Array
) -> tuple[TrainState, StepMetrics, jax.Array]:
  """A step that changes nothing unless all steps before it were finite.

  So the host can check a step while the next one is computed, and still has the state that the
  step began with. sound: () bool, whether all steps so far were finite; returned with this step.
  """
  new, metrics = step(state, batch, key, sound)
  finite = jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)
  return new, metrics, sound & finite
