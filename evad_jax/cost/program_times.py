"""Measures time and memory of predictions and training steps, by batch and keep rate."""

import concurrent.futures
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from evad_jax.cost import measured_cost
from evad_jax.cost.report_scale import ROUNDS, SCALES, Scale, make_config, tell_error
from evad_jax.cost.stage_runs import Stage
from evad_jax.distributed import device_peak
from evad_jax.model import multiply_adds
from evad_jax.settings import from_config


def prediction(stage: Stage, scale: Scale) -> None:
  """Measures predictions, uint8 clips to detections, by keep rate and batch."""
  groups = []
  for batch in scale.batches:
    groups.append([make_config(scale, batch, rate) for rate in (0.7, 1.0, 0.6)])
  measure_groups(stage, scale, groups, training=False)


def training(stage: Stage, scale: Scale) -> None:
  """Measures a training step, without and with recomputation of activations."""
  groups = []
  for batch in scale.batches:
    pair = [make_config(scale, batch, 0.7, remat) for remat in (False, True)]
    if scale.canvas == SCALES['tiny'].canvas:  # a CPU compiles one by one
      groups += [[config] for config in pair]
    else:
      groups.append(pair)
      groups.append([make_config(scale, batch, rate, False) for rate in (1.0, 0.6)])
  measure_groups(stage, scale, groups, training=True)


def measure_groups(
  stage: Stage, scale: Scale, groups: Sequence[Sequence[ConfigDict]], *, training: bool
) -> None:
  """Writes a row per configuration; a group is compiled in parallel and measured in turns."""
  kind = jax.devices()[0].device_kind
  dtype = from_config.make_model(groups[0][0]).dtype
  nominal = device_peak.peak_of(kind) if scale.dtype != 'float32' else None
  peaks = measured_cost.measured_peak(dtype), nominal
  longest = 0.0
  for number, group in enumerate(groups):
    if number and stage.left() < 1.2 * longest + 2:
      stage.note('No time for ' + ', '.join(told(c) for g in groups[number:] for c in g) + '.')
      break
    begin = time.monotonic()
    measure_group(stage, group, peaks, training)
    longest = max(longest, time.monotonic() - begin)
  used = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  if used:
    stage.note(f'Peak device memory in use, over the entire stage: {used / 1e9:.2f} GB.')


def told(config: ConfigDict) -> str:
  """Describes a configuration in words."""
  remat = 'remat' if config.model.remat else 'no remat'
  return f'batch {config.train.batch_size} keep {config.model.keep_rate:g} {remat}'


def measure_group(
  stage: Stage, configs: Sequence[ConfigDict], peaks: tuple[float, float | None], training: bool
) -> None:
  """Compiles in threads and measures in turns; notes what cannot be compiled or run."""
  params = measured_cost.random_params(from_config.make_model(configs[0]))
  batch = jax.device_put(measured_cost.random_batch(configs[0]))
  make = measured_cost.step_program if training else measured_cost.prediction_program

  def compiled(config: ConfigDict) -> measured_cost.Program | Exception:
    try:
      return make(config, from_config.make_model(config), params, batch)
    except Exception as error:
      return error

  with concurrent.futures.ThreadPoolExecutor(len(configs)) as threads:
    programs = list(threads.map(compiled, configs))
  ready = []
  for config, program in zip(configs, programs, strict=True):
    try:
      if isinstance(program, Exception):
        raise program
      program.call()  # one after the other, to find what does not fit on its own
      ready.append((config, program))
    except Exception as error:
      tell_error(stage, told(config), error)
  seconds = measured_cost.take_turns([p.call for _, p in ready], ROUNDS)
  for (config, program), times in zip(ready, seconds, strict=True):
    stage.row(**figures(config, program, statistics.median(times), peaks, training))


def figures(
  config: ConfigDict,
  program: measured_cost.Program,
  seconds: float,
  peaks: tuple[float, float | None],
  training: bool,
) -> dict[str, Any]:
  """One row; a step counts as three forward passes."""
  model, frames = from_config.make_model(config), config.clip.clip_frames
  canvas, batch = config.clip.canvases[0], config.train.batch_size
  work = sum(multiply_adds.multiply_adds(model, frames, canvas, published=False).values())
  work += multiply_adds.roi_multiply_adds(model, multiply_adds.count_tokens(model, frames, canvas))
  rate = (3 if training else 1) * work * batch / seconds  # multiply-adds per second
  memory = program.compiled.memory_analysis()
  whole = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  whole += memory.output_size_in_bytes - memory.alias_size_in_bytes
  return {
    'batch': batch,
    'keep rate': config.model.keep_rate,
    'remat': config.model.remat if training else None,
    'ms': 1e3 * seconds,
    'clips/s': batch / seconds,
    'of measured peak': round(rate / peaks[0], 3),
    'of nominal peak': peaks[1] and round(2 * rate / peaks[1], 3),
    'temporary MB': memory.temp_size_in_bytes / 1e6,
    'all MB': whole / 1e6,
    'compile s': round(program.compile_seconds, 1),
  }
