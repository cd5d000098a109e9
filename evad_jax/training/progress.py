"""Reports the progress of a run: prints and logs the metrics of steps and evaluations."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evad_jax.data.record_index import RecordIndex
from evad_jax.distributed import device_peak
from evad_jax.distributed.processes import tell
from evad_jax.model import multiply_adds
from evad_jax.model.evad import EVAD
from evad_jax.training import keep_rates
from evad_jax.training.run_log import EVALUATION, RunLog, Stopwatch, duration


class Progress:
  """The throughput and remaining time of one run."""

  def __init__(
    self,
    config: ConfigDict,
    index: RecordIndex,
    schedule: Callable[[Any], Any],
    start: int,
    total: int,
    log: RunLog,
    devices: int = 1,
  ):
    """schedule: step, from 0, -> learning rate. start: steps done before, of `total`."""
    self._devices, self._multiply_adds = devices, 0
    self._config, self._index, self._schedule, self._log = config, index, schedule, log
    self._start, self._logged, self._total = start, start, total
    self._whole, self.interval = Stopwatch(), Stopwatch()  # of the run, and since the last report

  def count(self, model: EVAD, shape: tuple[int, ...]) -> None:
    """Adds the work of a step on clips of this shape, (B, T, H, W, 3), to the interval."""
    clips, frames, height, width, _ = shape
    self._multiply_adds += clips * _forward(model, frames, (height, width))

  def report(self, step: int, metrics: Any, skipped: int) -> None:
    """Prints one line and logs one.

    metrics: StepMetrics of host values. skipped: updates skipped so far.
    """
    batch_size, loss = self._config.train.batch_size, float(metrics.loss)
    # The first step of a run includes compilation, so it makes no forecast.
    pace = self.interval.seconds() / (step - self._logged)
    figures = {
      'loss': loss,
      **{f'loss/{name}': float(term[-1]) for name, term in metrics.terms._asdict().items()},
      'grad_norm': float(metrics.grad_norm),
      'learning_rate': float(self._schedule(step - 1 - skipped)),
      'epoch': step * batch_size / len(self._index),
      'examples_per_second': batch_size / pace,
      'data_wait_share': self.interval.waiting_share(),
    }
    if self._config.train.consistency:
      figures['loss/consistency'] = float(metrics.consistency)
    reached = ''
    peak_share = device_peak.share(self._multiply_adds, self.interval.seconds(), self._devices)
    if peak_share and self._multiply_adds:
      figures['peak_share'] = peak_share
      reached = f'{100 * peak_share:.0f} % of the 16-bit peak  '
    drawn = ''
    if self._config.train.keep_rates:
      rate = keep_rates.of_step(keep_rates.listed(self._config), self._config.seed, step)
      drawn = f'  keep rate {rate}'
      figures['keep_rate'] = float(np.mean(rate))
    if self._config.train.non_finite == 'skip':
      figures['skipped_steps'] = skipped
    self._log.write(step, figures)
    first = step == self._start + 1
    eta = 'compiled' if first else f'ETA {duration(pace * (self._total - step))}'
    tell(
      f'step {step}/{self._total}  epoch {figures["epoch"]:.2f}  loss {loss:.4f}  '
      f'rate {figures["learning_rate"]:.2e}{drawn}  {batch_size / pace:.1f} clips/s  {reached}'
      f'waiting for data {100 * figures["data_wait_share"]:.0f} %  '
      f'{duration(self._whole.seconds())} elapsed, {eta}'
    )
    self._logged = step
    self.restart()

  def restart(self) -> None:
    """Begins a new interval."""
    self._multiply_adds = 0
    self.interval.restart()


@functools.lru_cache(maxsize=64)
def _forward(model: EVAD, frames: int, canvas: tuple[int, int]) -> int:
  """Multiply-adds of the forward pass of one clip."""
  return sum(multiply_adds.multiply_adds(model, frames, canvas, published=False).values())


def report_evaluation(step: int, figures: dict[str, Any], log: RunLog) -> None:
  """Prints and logs the metrics over all classes."""
  numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
  log.write(step, {f'{EVALUATION}{name}': value for name, value in numbers.items()})
  tell(f'step {step}  ' + '  '.join(f'{name} {value:.4f}' for name, value in numbers.items()))
