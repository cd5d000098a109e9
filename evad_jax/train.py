"""Training from the first step, or from where the last checkpoint stands.

Resume > init_from > scratch: a checkpoint of the run itself comes first, then the parameters that
config.init_from names, then random start values.

Batch, random key and learning rate of a step depend on the configuration and the step's number
alone. So a run that was killed and started again goes through the same numbers.
"""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from evad_jax import evaluate, from_config, init_from, sharding
from evad_jax import optimizer as optimizers
from evad_jax.checkpoint import Checkpoints
from evad_jax.data import pipeline
from evad_jax.data.records import RecordIndex
from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD
from evad_jax.run_log import RunLog, Stopwatch, duration
from evad_jax.structures import Batch
from evad_jax.train_step import StepMetrics, TrainState, initial_state, train_step


def train_and_evaluate(config: ConfigDict, workdir: Path) -> evaluate.Evaluation:
  """Trains to the last step, evaluating and saving on the way; returns the last evaluation.

  Starting it again with the same arguments continues from the newest checkpoint in `workdir`.
  Raises InputError for whatever is wrong with configuration, data or checkpoints.
  """
  model = from_config.make_model(config)
  index = from_config.open_split(config, config.data.train_split)
  eval_index = from_config.open_split(config, config.data.eval_split)
  mesh = sharding.make_mesh(config.mesh.model)
  check(config, mesh)
  total_steps = math.ceil(config.train.epochs * len(index) / config.train.batch_size)
  optimizer = make_optimizer(config, model, schedule(config, index))
  abstract = abstract_state(config, model, optimizer)
  shardings = sharding.state_shardings(abstract, optimizer, mesh, config.mesh.fsdp)
  evaluator = evaluate.make_evaluator(config, model, eval_index, mesh)

  with Checkpoints(workdir / 'checkpoints', config.train.keep_checkpoints) as checkpoints:
    step = checkpoints.latest_step() or 0
    if step:
      state = checkpoints.restore(step, sharding.placed(abstract, shardings))
      check_position(config, checkpoints, step)
      print(f'Continuing from step {step} of {total_steps} ({checkpoints.directory})', flush=True)
      if config.init_from:
        print(f'config.init_from={config.init_from} was for the first step alone', flush=True)
    else:
      state = first_state(config, model, optimizer, index.classes, workdir)
      state = sharding.put(state, shardings)
      print(f'Training {num_parameters(abstract):,} parameters for {total_steps} steps', flush=True)
    evaluation = None
    if step < total_steps:
      with RunLog(workdir, step) as log:
        loop = Loop(config, model, optimizer, mesh, index, total_steps)
        state, evaluation = loop.run(state, step, evaluator, checkpoints, log)
    if evaluation is None:
      evaluation = evaluator(evaluation_params(state))
  return evaluation


class Loop:
  """The steps of one run; holds what does not change during it."""

  def __init__(
    self,
    config: ConfigDict,
    model: EVAD,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    index: RecordIndex,
    total_steps: int,
  ):
    """Compiles nothing yet: jit does so at the first step."""
    self.config, self.mesh, self.index, self.total = config, mesh, index, total_steps
    self.schedule = schedule(config, index)
    self.step_fn = compile_step(config, model, optimizer, mesh)
    self.key = jax.random.key(config.seed + 1)
    self.compiled = set()  # shapes of clips, one program each

  def run(
    self,
    state: TrainState,
    start: int,
    evaluator: Any,
    checkpoints: Checkpoints,
    log: RunLog,
  ) -> tuple[TrainState, evaluate.Evaluation | None]:
    """Trains from step `start`; returns the last state and its evaluation."""
    train, evaluation = self.config.train, None
    whole, interval, logged = Stopwatch(), Stopwatch(), start
    batches = pipeline.train_batches(
      self.index,
      from_config.clip_settings(self.config),
      seed=self.config.seed,
      batch_size=train.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      start_step=start,
      **from_config.pipeline_settings(self.config),
    )
    with batches:
      for step in range(start + 1, self.total + 1):
        batch = sharding.put_batch(interval.wait_for(batches), self.mesh)
        state, metrics = self.call(state, batch, interval)
        last = step == self.total
        if step % train.log_every == 0 or last or step == start + 1:
          self.report(step, logged, start, jax.device_get(metrics), interval, whole, log)
          logged = step
          interval.restart()
        evaluation = None
        if last or (train.eval_every and step % train.eval_every == 0):
          evaluation = evaluator(evaluation_params(state))
          report_evaluation(step, evaluation, log)
          interval.restart()
        if evaluation or step % train.checkpoint_every == 0:
          figures = evaluation.metrics() if evaluation else None
          settings = {
            'model': self.config.model.to_dict(),
            'clip': self.config.clip.to_dict(),
            'classes': list(self.index.classes),
          }
          checkpoints.save(step, state, settings, data_position(self.config, step), figures)
    return state, evaluation

  def call(
    self, state: TrainState, batch: Batch, interval: Stopwatch
  ) -> tuple[TrainState, StepMetrics]:
    """One step. The first on each canvas compiles: that is told, and left out of the pace."""
    shape = batch.clips.shape
    if shape in self.compiled:
      return self.step_fn(state, batch, self.key)
    self.compiled.add(shape)
    begin = time.perf_counter()
    result = jax.block_until_ready(self.step_fn(state, batch, self.key))
    seconds = time.perf_counter() - begin
    if len(self.compiled) > 1:  # the first is told with the first step
      print(f'compiled for clips of {shape[2]} x {shape[3]} in {duration(seconds)}', flush=True)
      interval.exclude(seconds)
    return result

  def report(
    self,
    step: int,
    logged: int,
    start: int,
    metrics: StepMetrics,
    interval: Stopwatch,
    whole: Stopwatch,
    log: RunLog,
  ) -> None:
    """One line to read and one for the file. Raises InputError on a loss that is no number."""
    loss = float(metrics.loss)
    if not math.isfinite(loss):
      raise InputError(
        f'The loss of step {step} is {loss}; lower config.optimizer.rate, or set '
        'config.optimizer.clip_norm, and start again: it continues from the last checkpoint.'
      )
    batch_size = self.config.train.batch_size
    # Compilation belongs to the first step of a run: leave it out of the forecast.
    pace = interval.seconds() / (step - logged)
    rate = float(self.schedule(step - 1))
    figures = {
      'loss': loss,
      **{f'loss/{name}': float(term[-1]) for name, term in metrics.terms._asdict().items()},
      'grad_norm': float(metrics.grad_norm),
      'learning_rate': rate,
      'epoch': step * batch_size / len(self.index),
      'examples_per_second': batch_size / pace,
      'data_wait_share': interval.waiting_share(),
    }
    log.write(step, figures)
    eta = 'compiled' if step == start + 1 else f'ETA {duration(pace * (self.total - step))}'
    print(
      f'step {step}/{self.total}  epoch {figures["epoch"]:.2f}  loss {loss:.4f}  '
      f'rate {rate:.2e}  {batch_size / pace:.1f} clips/s  '
      f'waiting for data {100 * figures["data_wait_share"]:.0f} %  '
      f'{duration(whole.seconds())} elapsed, {eta}',
      flush=True,
    )


def report_evaluation(step: int, evaluation: evaluate.Evaluation, log: RunLog) -> None:
  """The two figures as a line and in the log."""
  figures = {k: v for k, v in evaluation.metrics().items() if isinstance(v, float)}
  log.write(step, {f'eval/{name}': value for name, value in figures.items()})
  print(
    f'step {step}  ' + '  '.join(f'{name} {value:.4f}' for name, value in figures.items()),
    flush=True,
  )


def check(config: ConfigDict, mesh: Mesh) -> None:
  """Raises InputError for settings that would fail only after the first compilation, or never."""
  train = config.train
  heads = {f'config.model.{key}': config.model[key] for key in ('num_heads', 'decoder_heads')}
  sharding.check_model_axis(mesh, heads)
  sharding.check_batch_size(train.batch_size, mesh, 'config.train.batch_size')
  if train.accumulation < 1 or train.batch_size % (train.accumulation * mesh.shape['data']):
    raise InputError(
      f'config.train.accumulation={train.accumulation} must divide the clips of each device, '
      f'{train.batch_size // mesh.shape["data"]}.'
    )
  for key in ('log_every', 'checkpoint_every', 'keep_checkpoints'):
    if train[key] < 1:
      raise InputError(f'config.train.{key}={train[key]} must be at least 1.')
  if train.epochs <= 0:
    raise InputError(f'config.train.epochs={train.epochs} must be above 0.')


def data_position(config: ConfigDict, step: int) -> dict[str, int]:
  """Where the order of clips stands after a step: its seed, and the next place in it."""
  return {'seed': config.seed, 'next_example': step * config.train.batch_size}


def check_position(config: ConfigDict, checkpoints: Checkpoints, step: int) -> None:
  """Raises InputError where the run would not go on with the clip after the last one."""
  saved, ours = checkpoints.position(step), data_position(config, step)
  if saved != ours:
    raise InputError(
      f'{checkpoints.directory}: step {step} was saved at data position {saved}, but config.seed '
      f'and config.train.batch_size of this run give {ours}; use the values it was started with, '
      'or another --workdir.'
    )


def schedule(config: ConfigDict, index: RecordIndex) -> Any:
  """Step (counted from 0) -> learning rate."""
  rate = optimizers.learning_rate(config.optimizer, config.train.epochs)
  epochs_per_step = config.train.batch_size / len(index)
  scale = config.train.batch_size / config.optimizer.rate_batch_size
  return lambda step: scale * rate(step * epochs_per_step)


def init_params(config: ConfigDict, model: EVAD) -> Any:
  """Start values from config.seed."""
  height, width = config.clip.canvases[0]  # parameters are the same for every canvas
  clips = jnp.zeros((1, config.clip.clip_frames, height, width, 3))
  sizes = jnp.array([[height, width]], jnp.int32)
  return model.init(jax.random.key(config.seed), clips, sizes, train=False)['params']


def make_optimizer(
  config: ConfigDict, model: EVAD, rate: Callable[[Any], Any]
) -> optax.GradientTransformation:
  """AdamW of config.optimizer; `rate` maps a step to the base learning rate."""
  params = jax.eval_shape(functools.partial(init_params, config, model))
  return optimizers.make_optimizer(config.optimizer, params, rate)


def start_state(
  config: ConfigDict, model: EVAD, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state at step 0."""
  params = jax.jit(functools.partial(init_params, config, model))()
  return initial_state(params, optimizer, bool(config.train.ema_decay))


def first_state(
  config: ConfigDict,
  model: EVAD,
  optimizer: optax.GradientTransformation,
  classes: list[str],
  workdir: Path,
) -> TrainState:
  """The state at step 0 from config.init_from, or from scratch; says which, in words."""
  state = start_state(config, model, optimizer)
  if not config.init_from:
    print(f'Starting from scratch: start values of config.seed={config.seed}', flush=True)
    return state
  params, report = init_from.load(config, state.params, classes)
  print(report.text(), flush=True)
  if jax.process_index() == 0:
    report.write(workdir / 'init_from.json')
  ema_params = jax.tree.map(jnp.copy, params) if config.train.ema_decay else None
  return state._replace(params=params, ema_params=ema_params)


def abstract_state(
  config: ConfigDict, model: EVAD, optimizer: optax.GradientTransformation
) -> TrainState:
  """Shapes and types of the state."""
  return jax.eval_shape(functools.partial(start_state, config, model, optimizer))


def restore_params(
  config: ConfigDict, model: EVAD, checkpoints: Checkpoints, step: int, mesh: Mesh
) -> Any:
  """The parameters to evaluate of a checkpoint."""
  abstract = jax.eval_shape(functools.partial(init_params, config, model))
  specs = sharding.parameter_specs(abstract, mesh, config.mesh.fsdp)
  shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
  return checkpoints.read_params(step, sharding.placed(abstract, shardings))


def evaluation_params(state: TrainState) -> Any:
  """The moving average where there is one."""
  return state.params if state.ema_params is None else state.ema_params


def num_parameters(state: TrainState) -> int:
  """How many numbers the model has learned."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))


def compile_step(
  config: ConfigDict, model: EVAD, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Any:
  """jit of train_step on the mesh: state as config.mesh says and donated, batch over 'data'."""
  everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
  abstract = abstract_state(config, model, optimizer)
  state = sharding.state_shardings(abstract, optimizer, mesh, config.mesh.fsdp)
  return jax.jit(
    functools.partial(
      train_step,
      model=model,
      optimizer=optimizer,
      action_weight=config.loss.action_weight,
      accumulation=config.train.accumulation,
      ema_decay=config.train.ema_decay,
      mesh=mesh if mesh.size > 1 else None,
    ),
    in_shardings=(state, split, everywhere),
    out_shardings=(state, everywhere),
    donate_argnums=0,
  )
