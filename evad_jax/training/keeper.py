"""What a run keeps of a step: a checkpoint, and the metrics of its evaluation."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data.record_index import RecordIndex
from evad_jax.distributed.preemption import Interrupted, Preempted
from evad_jax.evaluation.evaluate import Evaluation
from evad_jax.training import checks, run_data, setup
from evad_jax.training.non_finite import Watch
from evad_jax.training.progress import report_evaluation
from evad_jax.training.run_log import RunLog
from evad_jax.training.train_step import TrainState


class Keeper:
  """Saves and evaluates the states of one run."""

  def __init__(
    self,
    config: ConfigDict,
    index: RecordIndex,
    total: int,
    checkpoints: Checkpoints,
    watch: Watch,
    evaluator: Callable[[Any], Evaluation],
    log: RunLog,
  ):
    """index: of the training split. total: steps. evaluator: parameters -> Evaluation."""
    self.total, self.checkpoints, self.watch, self.log = total, checkpoints, watch, log
    self._config, self._index, self._evaluator = config, index, evaluator

  def save(self, state: TrainState, step: int, evaluation_due: bool) -> None:
    """Starts to save all that a resumed run needs.

    evaluation_due: a resumed run evaluates the state first.
    """
    settings = {
      'model': self._config.model.to_dict(),
      'clip': self._config.clip.to_dict(),
      'classes': list(self._index.classes),
      'class_ids': self._index.class_ids,
      'data': run_data.describe(self._config, self._index),
    }
    position = checks.data_position(self._config, step)
    position |= {'evaluation_due': evaluation_due, 'skipped': self.watch.skipped}
    self.checkpoints.save(step, state, settings, position, None)

  def evaluate(self, state: TrainState, step: int) -> Evaluation | None:
    """Evaluates a saved state and adds the metrics to it; None where a SIGTERM came first."""
    try:
      evaluation = self._evaluator(setup.evaluation_params(state))
    except Interrupted:
      return None
    report_evaluation(step, evaluation.metrics(), self.log)
    self.checkpoints.wait()
    self.checkpoints.set_metrics(step, evaluation.metrics())
    return evaluation

  def evaluate_late(self, state: TrainState, step: int) -> Evaluation:
    """Makes the evaluation that a SIGTERM prevented; raises Preempted at another SIGTERM."""
    evaluation = self.evaluate(state, step)
    if evaluation is None:
      raise Preempted(f'step {step} of {self.total}')
    return evaluation

  def leave(self, state: TrainState, step: int, start: int) -> None:
    """Saves the state after a step, unless it is saved already, and raises Preempted."""
    if step not in (start, self.checkpoints.latest_step()):
      self.save(state, step, False)
    self.checkpoints.wait()
    raise Preempted(f'step {step} of {self.total}')
