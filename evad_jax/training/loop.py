"""Training from the first step, or from where the last checkpoint stands.

Resume > init_from > scratch: a checkpoint of the run itself comes first, then the parameters that
config.init_from names, then random start values.

Batch, random key and learning rate of a step depend on the configuration and the step's number
alone. So a run that was killed and started again goes through the same numbers.
"""

import functools
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
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
from evad_jax.model.evad import EVAD
from evad_jax.settings import from_config
from evad_jax.structures import Batch
from evad_jax.training import (
  checks,
  keep_rates,
  non_finite,
  overview,
  run_data,
  setup,
)
from evad_jax.training.progress import Progress, report_evaluation
from evad_jax.training.run_log import RunLog, Stopwatch, duration
from evad_jax.training.train_step import StepMetrics, TrainState


def train_and_evaluate(config: ConfigDict, workdir: Path) -> evaluate.Evaluation:
  """Trains to the last step, evaluating and saving on the way; returns the last evaluation.

  Starting it again with the same arguments continues from the newest checkpoint in `workdir`.
  Raises InputError for whatever is wrong with configuration, data or checkpoints, and Preempted or
  Interrupted after a SIGTERM, when all that was computed is saved.
  """
  config = setup.resolve(config, workdir)
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
  optimizer = setup.make_optimizer(config, model, setup.schedule(config, index))
  abstract = setup.abstract_state(config, model, optimizer)
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
      params = setup.first_params(config, model, index.classes, workdir)
      state = setup.place_state(config, params, optimizer, shardings)
      tell(f'Training {setup.num_parameters(abstract):,} parameters for {total_steps} steps')
    watch = non_finite.Watch(config, index, workdir, position.get('skipped', 0))
    late = position.get('evaluation_due') and not checkpoints.was_evaluated(step)
    if step == total_steps and not late:
      return evaluator(setup.evaluation_params(state))
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
      rate: setup.compile_step(config, self.models[rate], optimizer, mesh, chained=True)
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
      setup.schedule(self.config, self.index),
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
      evaluation = evaluator(setup.evaluation_params(state))
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
