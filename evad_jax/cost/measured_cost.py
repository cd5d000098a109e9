"""Measures time, memory and compilation of a prediction and a training step on one device."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from evad_jax import boxes as box_ops
from evad_jax import checkout
from evad_jax.distributed import sharding
from evad_jax.inference.predict import predict
from evad_jax.model import multiply_adds, start_values
from evad_jax.model.evad import EVAD
from evad_jax.settings import from_config
from evad_jax.structures import Batch, Targets
from evad_jax.training import setup
from evad_jax.training.train_step import initial_state

Array = jax.Array

PEOPLE = 8  # in every random clip
PEAK_SIDE = {'cpu': 2048}  # side of the matrices whose product measures the device's peak
PEAK_SIDE_OF_OTHERS = 8192


class Measurement(NamedTuple):
  """Metrics of one combination; evad_jax/tools/benchmark.py explains them."""

  size: str
  canvas: str
  dtype: str
  batch: int
  keep_rate: float
  tokens: tuple[int, ...]  # stage by stage
  gmac: float  # of one clip, forward
  counted: float  # the compiler's count as a share of ours
  seconds: float  # per call, median
  clips_per_second: float
  temporary_mb: float
  all_mb: float
  compile_seconds: float
  peak_share: float


class Program(NamedTuple):
  """A compiled program with its arguments; `call` runs it once and waits for it."""

  call: Callable[[], None]
  compiled: jax.stages.Compiled
  compile_seconds: float


def make_config(
  size: str, canvas: tuple[int, int], dtype: str, batch: int, keep_rate: float
) -> ConfigDict:
  """The configuration of a size, on one canvas."""
  common = checkout.module('configs.common')
  config = common.get_config()
  common.set_size(config, size)
  config.model.update(keep_rate=keep_rate, dtype=dtype)
  config.clip.canvases = (canvas,)
  config.train.batch_size = batch
  return config


def measure(
  size: str, configs: Sequence[ConfigDict], *, training: bool, rounds: int
) -> list[Measurement]:
  """Measures configurations that differ only in keep rate, alternating between them."""
  models = [from_config.make_model(config) for config in configs]
  frames, canvas = configs[0].clip.clip_frames, configs[0].clip.canvases[0]
  for model in models:
    multiply_adds.count_tokens(
      model, frames, canvas
    )  # raises InputError before anything is compiled
  params = random_params(models[0])
  batch = jax.device_put(random_batch(configs[0]))
  make = step_program if training else prediction_program
  programs = [
    make(config, model, params, batch) for config, model in zip(configs, models, strict=True)
  ]
  seconds = take_turns([program.call for program in programs], rounds)
  peak = measured_peak(models[0].dtype)
  return [
    _summary(size, config, model, program, statistics.median(times), peak, training)
    for config, model, program, times in zip(configs, models, programs, seconds, strict=True)
  ]


def take_turns(calls: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
  """Seconds of every call, one list each: one untimed run, then `rounds` runs, alternating."""
  seconds = [[] for _ in calls]
  for call in calls:
    call()
  for _ in tqdm(range(rounds), 'measuring', unit='round', leave=False):
    for call, times in zip(calls, seconds, strict=True):
      times.append(seconds_of(call))
  return seconds


def random_params(model: EVAD) -> Any:
  """Random parameters that keep activations finite; compiles nothing."""
  rng = np.random.default_rng(0)

  def draw(leaf: jax.ShapeDtypeStruct) -> Array:
    return jnp.asarray(0.02 * rng.standard_normal(leaf.shape, np.float32))

  return jax.tree.map(draw, start_values.abstract_params(model))


def random_batch(config: ConfigDict) -> Batch:
  """Noise that fills the canvas, with random people as targets."""
  rng, batch = np.random.default_rng(0), config.train.batch_size
  height, width = config.clip.canvases[0]
  low = rng.uniform(0, 0.5, (batch, PEOPLE, 2))
  boxes = np.concatenate([low, low + rng.uniform(0.1, 0.5, low.shape)], axis=-1)
  pixels = box_ops.to_pixels(boxes, (height, width)).astype(np.float32)
  labels = (rng.random((batch, PEOPLE, config.model.num_actions)) < 0.1).astype(np.float32)
  return Batch(
    rng.integers(0, 256, (batch, config.clip.clip_frames, height, width, 3), np.uint8),
    np.tile(np.array([[height, width]], np.int32), (batch, 1)),
    boxes.astype(np.float32),
    Targets(pixels, labels, np.ones((batch, PEOPLE), bool)),
    np.ones(batch, bool),
    np.arange(batch, dtype=np.int32),
  )


def seconds_of(call: Callable[[], Any]) -> float:
  """Wall-clock seconds of one call."""
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def measured_peak(dtype: jnp.dtype) -> float:
  """Multiply-adds per second of a product of two large matrices, the best of eight."""
  side = PEAK_SIDE.get(jax.default_backend(), PEAK_SIDE_OF_OTHERS)
  x = jnp.asarray(np.random.default_rng(0).standard_normal((side, side), np.float32), dtype)
  product = jax.jit(jnp.matmul).lower(x, x).compile()
  return side**3 / min(seconds_of(lambda: product(x, x).block_until_ready()) for _ in range(8))


def compilers_count(model: EVAD, frames: int, canvas: tuple[int, int]) -> float:
  """Half the operations that the compiler counts in the forward pass of one clip.

  It counts the body of a loop once. So this uses the plain implementation of attention, which has
  no loop; the actor features have one, over the slots.
  """
  plain = model.clone(attention='plain', dtype=jnp.float32)
  clips = jax.ShapeDtypeStruct((1, frames, *canvas, 3), jnp.float32)
  sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  forward = jax.jit(functools.partial(plain.apply, train=False))
  params = {'params': start_values.abstract_params(model)}
  return forward.lower(params, clips, sizes).cost_analysis()['flops'] / 2


def prediction_program(config: ConfigDict, model: EVAD, params: Any, batch: Batch) -> Program:
  """Compiles the prediction: uint8 clips to detections."""
  compiled, seconds = _compile(jax.jit(functools.partial(predict, model)), params, batch)
  return Program(lambda: jax.block_until_ready(compiled(params, batch)), compiled, seconds)


def step_program(config: ConfigDict, model: EVAD, params: Any, batch: Batch) -> Program:
  """Compiles one training step, as a training run does."""
  optimizer = setup.make_optimizer(config, model, lambda step: 1e-6)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  arguments = initial_state(jax.tree.map(jnp.copy, params), optimizer, ema=False), batch
  key = jax.random.key(0)
  state, batch, key = sharding.put_replicated((*arguments, key), mesh)
  compiled, seconds = _compile(
    setup.compile_step(config, model, optimizer, mesh), state, batch, key
  )
  held = [state]  # a step donates its argument's memory to the new state

  def call() -> None:
    held[0], _ = jax.block_until_ready(compiled(held[0], batch, key))

  return Program(call, compiled, seconds)


def _compile(function: Any, *arguments: Any) -> tuple[jax.stages.Compiled, float]:
  lowered = function.lower(*arguments)
  start = time.perf_counter()
  compiled = lowered.compile()
  return compiled, time.perf_counter() - start


def _summary(
  size: str,
  config: ConfigDict,
  model: EVAD,
  program: Program,
  seconds: float,
  peak: float,
  training: bool,
) -> Measurement:
  """One row of the table."""
  frames, canvas, batch = config.clip.clip_frames, config.clip.canvases[0], config.train.batch_size
  tokens = multiply_adds.count_tokens(model, frames, canvas)
  published = sum(multiply_adds.multiply_adds(model, frames, canvas).values())
  ours = sum(multiply_adds.multiply_adds(model, frames, canvas, published=False).values())
  roi = multiply_adds.roi_multiply_adds(model, tokens)
  counted = compilers_count(model, frames, canvas) / (ours + roi / tokens.slots)
  ours += roi
  memory = program.compiled.memory_analysis()
  whole = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  whole += memory.output_size_in_bytes - memory.alias_size_in_bytes
  return Measurement(
    size=size,
    canvas=f'{canvas[0]}x{canvas[1]}',
    dtype=config.model.dtype,
    batch=batch,
    keep_rate=config.model.keep_rate,
    tokens=tokens.stages,
    gmac=round(published / 1e9, 3),
    counted=round(counted, 4),
    seconds=round(seconds, 5),
    clips_per_second=round(batch / seconds, 3),
    temporary_mb=round(memory.temp_size_in_bytes / 1e6, 1),
    all_mb=round(whole / 1e6, 1),
    compile_seconds=round(program.compile_seconds, 1),
    peak_share=round((3 if training else 1) * ours * batch / seconds / peak, 3),
  )
