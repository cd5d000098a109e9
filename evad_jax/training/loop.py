"""The training loop: starts at the first step, or resumes from the newest checkpoint.

Resume > init_from > scratch: a checkpoint of the run itself has priority, then the parameters of
config.init_from, then random initialisation.

Batch, random key and learning rate of a step depend on the configuration and the step number
alone. So a run that is killed and resumed computes the same numbers.
"""

import functools
import math
from pathlib import Path

import jax
from ml_collections import ConfigDict

from evad_jax.checkpoints import recovery
from evad_jax.checkpoints.manager import Checkpoints, newest_settings
from evad_jax.data.records import RecordIndex
from evad_jax.distributed import processes, sharding
from evad_jax.distributed.preemption import Preemption
from evad_jax.distributed.processes import tell
from evad_jax.distributed.profiling import Profile
from evad_jax.evaluation import evaluate
from evad_jax.files import storage
from evad_jax.settings import from_config
from evad_jax.training import (
  checks,
  non_finite,
  overview,
  run_data,
  setup,
)
from evad_jax.training.feed import Feed
from evad_jax.training.keeper import Keeper
from evad_jax.training.programs import Programs
from evad_jax.training.progress import Progress
from evad_jax.training.run_log import RunLog
from evad_jax.training.train_step import TrainState


def train_and_evaluate(config: ConfigDict, workdir: Path) -> evaluate.Evaluation:
  """Trains to the last step, evaluates and saves on the way; returns the last evaluation.

  A call with the same arguments resumes from the newest checkpoint in `workdir`. Raises InputError
  for anything wrong with configuration, data or checkpoints, and Preempted or Interrupted after a
  SIGTERM, once everything computed is saved.
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
    Preemption(config.hosts.agree_every) as preemption,
    Checkpoints(workdir / 'checkpoints', config.train.keep_checkpoints) as checkpoints,
  ):
    evaluator = functools.partial(evaluator, interrupted=preemption.requested)
    restored = recovery.restore_newest(checkpoints, sharding.placed(abstract, shardings))
    if restored:
      step, state, position = restored
      checks.check_position(config, checkpoints, step, position)
      tell(f'Continuing from step {step} of {total_steps} ({checkpoints.directory})')
      if config.init_from:
        tell(f'config.init_from={config.init_from} is ignored: it applies to a new run alone')
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
      keeper = Keeper(config, index, total_steps, checkpoints, watch, evaluator, log)
      evaluation = keeper.evaluate_late(state, step) if late else None
      if step < total_steps:
        programs = Programs(config, model, optimizer, mesh)
        profile = Profile(config.profile, workdir / 'profile')
        evaluation = train(state, step, index, programs, keeper, preemption, profile)
    return evaluation


def train(
  state: TrainState,
  start: int,  # steps done before
  index: RecordIndex,
  programs: Programs,
  keeper: Keeper,
  preemption: Preemption,
  profile: Profile,
) -> evaluate.Evaluation:
  """Trains from step `start` to the last; returns the evaluation after the last.

  After a SIGTERM it saves and raises Preempted.
  """
  config, mesh, total, watch = programs.config, programs.mesh, keeper.total, keeper.watch
  rate = setup.schedule(config, index)
  progress = Progress(config, index, rate, start, total, keeper.log, mesh.size)
  with setup.open_batches(config, index, mesh, start) as batches, profile:
    feed = Feed(batches, mesh, index, progress.interval)
    following = feed.fetch()
    for step in range(start + 1, total + 1):
      if isinstance(following, Exception):
        watch.catch_up(state)
        # A SIGTERM to the process group ends the data workers too.
        if preemption.received_alone():
          keeper.leave(state, step - 1, start)
        raise following
      batch = following
      profile.before(step)
      state, metrics = programs.run(state, batch, step, progress)
      if step < total:  # the next batch is transferred while the device computes
        following = feed.fetch(metrics.loss)
      watch.catch_up(state)  # checks the step before, while this one is computed
      watch.defer(step, batch, metrics)
      profile.after(step, state)
      keeper.checkpoints.check()

      last = step == total
      told = step % config.train.log_every == 0 or last or step == start + 1
      due = last or bool(config.train.eval_every and step % config.train.eval_every == 0)
      saved, evaluation = due or step % config.train.checkpoint_every == 0, None
      stop = preemption.asked(step, due)
      if told or saved or stop:
        watch.catch_up(state)
      if told:
        progress.report(step, jax.device_get(metrics), watch.skipped)
      if saved or stop:  # before the evaluation, which may end the run with an error
        keeper.save(state, step, due)
      if due and not stop:
        evaluation = keeper.evaluate(state, step)
        progress.restart()
        stop = evaluation is None
      if stop:
        keeper.leave(state, step, start)
  feed.tell_unreadable()
  return evaluation
