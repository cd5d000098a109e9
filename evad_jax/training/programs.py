"""The compiled steps of a run: one program for each keep rate and clip shape."""

import time

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evad_jax.distributed import sharding
from evad_jax.distributed.processes import tell
from evad_jax.model.evad import EVAD
from evad_jax.structures import Batch
from evad_jax.training import keep_rates, setup
from evad_jax.training.progress import Progress
from evad_jax.training.run_log import duration
from evad_jax.training.train_step import StepMetrics, TrainState


class Programs:
  """Computes the steps of one run, each at its keep rate."""

  def __init__(
    self, config: ConfigDict, model: EVAD, optimizer: optax.GradientTransformation, mesh: Mesh
  ):
    """Compiles nothing yet: jit does at the first step."""
    self.config, self.mesh = config, mesh
    self.skips = config.train.non_finite == 'skip'  # a step does not wait for those before it
    self.rates = keep_rates.listed(config)
    self.models = {rate: model.clone(keep_rate=rate) for rate in self.rates}
    self.step_fns = {
      rate: setup.compile_step(config, self.models[rate], optimizer, mesh, chained=True)
      for rate in self.rates
    }
    everywhere = sharding.replicated(mesh)
    self.sound = jax.jit(lambda: jnp.array(True), out_shardings=everywhere)()
    self.key = jax.jit(lambda: jax.random.key(config.seed + 1), out_shardings=everywhere)()
    self.compiled = set()  # (clip shape, keep rate), one program each

  def run(
    self, state: TrainState, batch: Batch, step: int, progress: Progress
  ) -> tuple[TrainState, StepMetrics]:
    """Computes one step. The first of each program compiles: printed, and not timed as training."""
    rate = keep_rates.of_step(self.rates, self.config.seed, step)
    step_fn, shape = self.step_fns[rate], batch.clips.shape
    if (shape, rate) in self.compiled:
      progress.count(self.models[rate], shape)
      return self._taken(step_fn(state, self.sound, batch, self.key))
    self.compiled.add((shape, rate))
    begin = time.perf_counter()
    result = jax.block_until_ready(step_fn(state, self.sound, batch, self.key))
    seconds = time.perf_counter() - begin
    if len(self.compiled) > 1:  # the first is reported with the first step
      tell(
        f'compiled for clips of {shape[2]} x {shape[3]}, keep rate {rate}, in {duration(seconds)}'
      )
      progress.interval.exclude(seconds)
    return self._taken(result)

  def _taken(self, result: tuple) -> tuple[TrainState, StepMetrics]:
    state, metrics, sound = result
    if not self.skips:
      self.sound = sound
    return state, metrics
