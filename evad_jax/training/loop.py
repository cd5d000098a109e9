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
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from evad_jax.checkpoints import recovery
from evad_jax.checkpoints.manager import Checkpoints, newest_settings
from evad_jax.data import pipeline
from evad_jax.data.records import RecordIndex
from evad_jax.data.unreadable import Unreadable, summary
from evad_jax.distributed import processes, sharding
from evad_jax.distributed.preemption import Interrupted, Preempted, Preemption
from evad_jax.distributed.processes import tell
from evad_jax.distributed.profiling import Profile
from evad_jax.evaluation import evaluate
from evad_jax.files import storage
from evad_jax.model import layers
from evad_jax.model.evad import EVAD
from evad_jax.settings import automatic, from_config
from evad_jax.structures import Batch
from evad_jax.training import (
  activation_memory,
  checks,
  init_from,
  keep_rates,
  non_finite,
  overview,
  run_data,
)
from evad_jax.training import optimizer as optimizers
from evad_jax.training.progress import Progress, report_evaluation
from evad_jax.training.run_log import RunLog, Stopwatch, duration
from evad_jax.training.train_step import StepMetrics, TrainState, initial_state, train_step


def train_and_evaluate(config: ConfigDict, workdir: Path) -> evaluate.Evaluation:
  """Trains to the last step, evaluating and saving on the way; returns the last evaluation.

  Starting it again with the same arguments continues from the newest checkpoint in `workdir`.
  Raises InputError for whatever is wrong with configuration, data or checkpoints, and Preempted or
  Interrupted after a SIGTERM, when all that was computed is saved.
  """
  config = resolve(config, workdir)
  model = from_config.make_model(config)
  index = from_config.open_split(config, config.data.train_split)
  eval_index = from_config.open_split(config, config.data.eval_split)
  mesh = sharding.make_mesh(config.mesh.model)
  checks.check(config, model, mesh)
  saved = newest_settings(workdir / 'checkpoints')
  if saved:
    run_data.check(config, index, saved, workdir)
  checks.tell_scale(config, mesh)
  total_steps = math.ceil(config.train.epochs * len(index) / config.train.batch_size)
  optimizer = make_optimizer(config, model, schedule(config, index))
  abstract = abstract_state(config, model, optimizer)
  shardings = sharding.state_shardings(abstract, optimizer, mesh, config.mesh.fsdp)
  tell('\n'.join([overview.computation(config, model, mesh), 'Parameters, by part of the model:']))
  tell('\n'.join(overview.parameters(abstract, shardings)))
  evaluator = evaluate.make_evaluator(config, model, eval_index, mesh)

  with (
    storage.told(workdir),
    Preemption() as preemption,
    Checkpoints(workdir / 'checkpoints', config.train.keep_checkpoints) as checkpoints,
  ):
    evaluator = functools.partial(evaluator, interrupted=preemption.requested)
    restored = recovery.restore_newest(checkpoints, sharding.placed(abstract, shardings))
    if restored:
      step, state, position = restored
      checks.check_position(config, checkpoints, step, position)
      tell(f'Continuing from step {step} of {total_steps} ({checkpoints.directory})')
      if config.init_from:
        tell(f'config.init_from={config.init_from} was for the first step alone')
    else:
      step, position = 0, {}
      checks.check_split(config, eval_index)
      params = first_params(config, model, index.classes, workdir)
      state = place_state(config, params, optimizer, shardings)
      tell(f'Training {num_parameters(abstract):,} parameters for {total_steps} steps')
    watch = non_finite.Watch(config, index, workdir, position.get('skipped', 0))
    late = position.get('evaluation_due') and not checkpoints.was_evaluated(step)
    if step == total_steps and not late:
      return evaluator(evaluation_params(state))
    with RunLog(workdir, step, processes.is_first(), evaluates_again=bool(late)) as log:
      profile = Profile(config.profile, workdir / 'profile')
      loop = Loop(config, model, optimizer, mesh, index, total_steps, preemption, watch, profile)
      evaluation = None
      if late:
        evaluation = loop.evaluate_late(state, step, evaluator, checkpoints, log)
      if step < total_steps:
        evaluation = loop.run(state, step, evaluator, checkpoints, log)
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
    preemption: Preemption,
    watch: non_finite.Watch,
    profile: Profile,
  ):
    """Compiles nothing yet: jit does so at the first step."""
    self.config, self.mesh, self.index, self.total = config, mesh, index, total_steps
    self.preemption, self.watch, self.profile = preemption, watch, profile
    self.unreadable = Unreadable(index)
    self.rates = keep_rates.listed(config)
    self.models = {rate: model.clone(keep_rate=rate) for rate in self.rates}
    self.step_fns = {
      rate: compile_step(config, self.models[rate], optimizer, mesh, chained=True)
      for rate in self.rates
    }
    self.sound = jax.jit(lambda: jnp.array(True), out_shardings=sharding.replicated(mesh))()
    self.unseen: tuple[int, Batch, StepMetrics] | None = None  # of the step not looked at yet
    self.key = jax.jit(
      lambda: jax.random.key(config.seed + 1), out_shardings=sharding.replicated(mesh)
    )()
    self.compiled = set()  # (shape of clips, keep rate), one program each

  def run(
    self,
    state: TrainState,
    start: int,
    evaluator: Any,
    checkpoints: Checkpoints,
    log: RunLog,
  ) -> evaluate.Evaluation:
    """Trains from step `start`; returns the evaluation after the last step.

    Raises Preempted after saving where a SIGTERM came.
    """
    train, evaluation = self.config.train, None
    progress = Progress(
      self.config,
      self.index,
      schedule(self.config, self.index),
      start,
      self.total,
      log,
      self.mesh.size,
    )
    part, parts = sharding.part_of_process(self.mesh)
    batches = pipeline.train_batches(
      self.index,
      from_config.clip_settings(self.config),
      seed=self.config.seed,
      batch_size=train.batch_size,
      process_index=part,
      process_count=parts,
      start_step=start,
      **from_config.pipeline_settings(self.config),
    )
    with batches, self.profile as profile:
      following = self.fetch(batches, progress.interval)
      for step in range(start + 1, self.total + 1):
        if isinstance(following, Exception):
          self.look(state)
          # A SIGTERM to a whole group of processes ends those that make batches as well.
          if self.preemption.received_alone():
            self.leave(state, step - 1, start, checkpoints)
          raise following
        batch = following
        profile.before(step)
        state, metrics = self.call(state, batch, progress, step)
        if step < self.total:  # the next batch comes to the device while it computes
          following = self.fetch(batches, progress.interval, metrics.loss)
        self.look(state)  # at the step before, while this one is computed
        self.unseen = step, batch, metrics
        profile.after(step, state)
        checkpoints.check()
        last = step == self.total
        told = step % train.log_every == 0 or last or step == start + 1
        due = last or (train.eval_every and step % train.eval_every == 0)
        saved, evaluation = due or step % train.checkpoint_every == 0, None
        stop = self.asks(step, due) and self.preemption.requested()
        if told or saved or stop:
          self.look(state)
        if told:
          progress.report(step, jax.device_get(metrics), self.watch.skipped)
        if saved or stop:  # before the evaluation, which may find what ends the run
          self.save(state, step, due, checkpoints)
        if due and not stop:
          evaluation = self.evaluate_saved(state, step, evaluator, checkpoints, log)
          progress.restart()
          stop = evaluation is None
        if stop:
          self.leave(state, step, start, checkpoints)
    self.tell_unreadable()
    return evaluation

  def tell_unreadable(self) -> None:
    """Says which clips all processes have gone on without."""
    told = summary(self.index, processes.gather(list(self.unreadable.numbers)))
    if told:
      tell(told)

  def look(self, state: TrainState) -> None:
    """Looks at the last step that was not looked at; state: after it, or after the one behind it.

    That is the same where it matters: behind a step that is not finite nothing changes, unless such
    steps are skipped, and then no state is kept.
    """
    if self.unseen:
      (step, batch, metrics), self.unseen = self.unseen, None
      self.watch.look(step, state, batch, metrics)

  def asks(self, step: int, due: bool) -> bool:
    """Whether all processes ask each other for a SIGTERM after this step; one asks after each."""
    return jax.process_count() == 1 or due or step % self.config.hosts.agree_every == 0

  def fetch(
    self, batches: pipeline.BatchIterator, interval: Stopwatch, computed: jax.Array | None = None
  ) -> Batch | Exception:
    """The next batch on the devices, or why there is none: to be raised where it is needed.

    computed: what the devices are at work on. Until it is there, nothing waits for data.
    """
    try:
      busy = (lambda: not computed.is_ready()) if computed is not None else lambda: False
      batch = interval.wait_for(batches, busy)
      self.unreadable.note(batch.index)
      return sharding.put_batch(batch, self.mesh)
    except Exception as error:
      return error

  def leave(self, state: TrainState, step: int, start: int, checkpoints: Checkpoints) -> None:
    """Saves the state after a step, unless it is there already, and raises Preempted."""
    if step not in (start, checkpoints.latest_step()):
      self.save(state, step, False, checkpoints)
    checkpoints.wait()
    raise Preempted(f'step {step} of {self.total}')

  def evaluate_saved(
    self, state: TrainState, step: int, evaluator: Any, checkpoints: Checkpoints, log: RunLog
  ) -> evaluate.Evaluation | None:
    """Evaluates a saved state, and adds the figures to it; None where a SIGTERM came first."""
    try:
      evaluation = evaluator(evaluation_params(state))
    except Interrupted:
      return None
    report_evaluation(step, evaluation.metrics(), log)
    checkpoints.wait()
    checkpoints.set_metrics(step, evaluation.metrics())
    return evaluation

  def evaluate_late(
    self, state: TrainState, step: int, evaluator: Any, checkpoints: Checkpoints, log: RunLog
  ) -> evaluate.Evaluation:
    """The evaluation of a step after which a SIGTERM came before it."""
    evaluation = self.evaluate_saved(state, step, evaluator, checkpoints, log)
    if evaluation is None:
      raise Preempted(f'step {step} of {self.total}')
    return evaluation

  def save(
    self, state: TrainState, step: int, evaluation_due: bool, checkpoints: Checkpoints
  ) -> None:
    """Starts saving all that a later run needs; it evaluates a state whose evaluation is due."""
    settings = {
      'model': self.config.model.to_dict(),
      'clip': self.config.clip.to_dict(),
      'classes': list(self.index.classes),
      'class_ids': self.index.class_ids,
      'data': run_data.describe(self.config, self.index),
    }
    position = checks.data_position(self.config, step)
    position |= {'evaluation_due': bool(evaluation_due), 'skipped': self.watch.skipped}
    checkpoints.save(step, state, settings, position, None)

  def call(
    self, state: TrainState, batch: Batch, progress: Progress, step: int
  ) -> tuple[TrainState, StepMetrics]:
    """One step. The first of each program compiles: that is told, and left out of the pace."""
    rate = keep_rates.of_step(self.rates, self.config.seed, step)
    step_fn, shape = self.step_fns[rate], batch.clips.shape
    if (shape, rate) in self.compiled:
      progress.count(self.models[rate], shape)
      state, metrics, self.sound = step_fn(state, self.sound, batch, self.key)
      return state, metrics
    self.compiled.add((shape, rate))
    begin = time.perf_counter()
    result = jax.block_until_ready(step_fn(state, self.sound, batch, self.key))
    seconds = time.perf_counter() - begin
    if len(self.compiled) > 1:  # the first is told with the first step
      tell(
        f'compiled for clips of {shape[2]} x {shape[3]}, keep rate {rate}, in {duration(seconds)}'
      )
      progress.interval.exclude(seconds)
    state, metrics, self.sound = result
    return state, metrics


def resolve(config: ConfigDict, workdir: Path) -> ConfigDict:
  """The configuration with values for 'auto', those of the run where it is continued."""
  saved = newest_settings(workdir / 'checkpoints') or {}
  return automatic.resolve(config, saved.get('model'), step_bytes)


def step_bytes(config: ConfigDict) -> int:
  """Bytes of a device for a step: state, gradients, and what its clips of the costliest kind keep.

  Raises InputError where the configuration does not fit the devices.
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
  return held + clips * activation_memory.kept_of_a_clip(
    model, state.params, lambda clips: activation_memory.abstract_batch(config, clips, canvas)
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


def start_params(config: ConfigDict, model: EVAD) -> Any:
  """The parameters of a run from scratch, on one device."""
  return jax.jit(functools.partial(init_params, config, model))()


def first_params(config: ConfigDict, model: EVAD, classes: list[str], workdir: Path) -> Any:
  """The parameters at step 0, of config.init_from or from scratch; says which, in words."""
  params = start_params(config, model)
  if not config.init_from:
    tell(f'Starting from scratch: start values of config.seed={config.seed}')
    return params
  params, report = init_from.load(config, params, classes)
  tell(report.text())
  if jax.process_index() == 0:
    report.write(workdir / 'init_from.json')
  return params


def place_state(
  config: ConfigDict, params: Any, optimizer: optax.GradientTransformation, shardings: Any
) -> TrainState:
  """The state at step 0; what the optimizer keeps is made where it stays, whole on no device."""
  start = jax.jit(state_of(config, optimizer), out_shardings=shardings, donate_argnums=0)
  return start(sharding.put(params, shardings.params))


def state_of(config: ConfigDict, optimizer: optax.GradientTransformation) -> Callable:
  """params -> TrainState at step 0."""
  return functools.partial(initial_state, optimizer=optimizer, ema=bool(config.train.ema_decay))


def abstract_state(
  config: ConfigDict, model: EVAD, optimizer: optax.GradientTransformation
) -> TrainState:
  """Shapes and types of the state."""
  params = jax.eval_shape(functools.partial(init_params, config, model))
  return jax.eval_shape(state_of(config, optimizer), params)


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
  config: ConfigDict,
  model: EVAD,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  *,
  chained: bool = False,
) -> Any:
  """jit of train_step on the mesh: state as config.mesh says and donated, batch over 'data'.

  chained: of `chained_step`, which takes and returns one flag more.
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
    step = functools.partial(chained_step, step, config.train.non_finite == 'skip')
    shardings = (state, everywhere, split, everywhere), (state, everywhere, everywhere)
  step = layers.summing_gradients_in(config.mesh.gradient_dtype, sharding.within(mesh, step))
  return jax.jit(step, in_shardings=shardings[0], out_shardings=shardings[1], donate_argnums=0)


def chained_step(
  step: Callable, skips: bool, state: TrainState, sound: jax.Array, batch: Batch, key: jax.Array
) -> tuple[TrainState, StepMetrics, jax.Array]:
  """A step that changes nothing unless all steps before it were finite, or `skips`.

  So the host may look at a step when the next is on its way, and still finds the state it began
  with. sound: () bool, whether they were; the same comes back with this step.
  """
  new, metrics = step(state, batch, key)
  if skips:
    return new, metrics, sound
  new = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, state)
  finite = jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)
  return new, metrics, sound & finite
