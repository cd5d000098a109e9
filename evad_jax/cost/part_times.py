"""Measures forward times of the model's parts, each on the inputs that it gets in the model."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from evad_jax import boxes as box_ops
from evad_jax.cost import measured_cost
from evad_jax.cost.report_scale import ENOUGH, ROUNDS, Scale, make_config, tell_error
from evad_jax.cost.stage_runs import Stage
from evad_jax.model import attention, multiply_adds, roi_align
from evad_jax.model.evad import EVAD, normalize_clips
from evad_jax.settings import from_config
from evad_jax.training import matcher

Array = jax.Array


def parts(stage: Stage, scale: Scale) -> None:
  """Writes a row for every part of the model, for attention, RoIAlign and the matcher."""
  config = make_config(scale, scale.batches[0], 0.7)
  model = from_config.make_model(config)
  params = measured_cost.random_params(model)
  batch = jax.device_put(measured_cost.random_batch(config))
  clips = jax.jit(functools.partial(normalize_clips, dtype=model.dtype))(batch.clips, batch.sizes)
  for name, (call, arguments) in model_parts(model, params, clips, batch.sizes).items():
    time_part(stage, name, call, *arguments)
  attention_parts(stage, model, config)
  levels, boxes = pyramid_and_boxes(model, config)
  sheet = roi_align.sheet_of(levels)

  def align(maps: jax.Array, boxes: jax.Array) -> jax.Array:
    stride, size = model.patch / 4, 14 * model.patch
    return roi_align.multilevel_roi_align(maps, sheet, boxes, stride, size)

  time_part(stage, 'RoIAlign of one person stage', align, roi_align.lay(levels, sheet), boxes)
  stages, clips_at_once = model.num_stages, config.train.batch_size
  logits = jnp.zeros((stages, clips_at_once, model.num_proposals, 2))
  found = jnp.broadcast_to(boxes, (stages, *boxes.shape))
  padded = padded_targets(batch.targets, config.clip.max_boxes)
  for name, targets in (
    (f'matcher, {measured_cost.PEOPLE} columns', batch.targets),
    (f'matcher, {config.clip.max_boxes} columns', padded),
  ):
    time_part(stage, name, matcher.match, logits, found, targets, batch.sizes)


def time_part(stage: Stage, name: str, call: Callable, *arguments: Any) -> None:
  """Writes a row with the median of several calls; notes what an implementation cannot do."""
  if stage.left() < ENOUGH:
    stage.note(f'No time for {name}.')
    return
  try:
    compiled = jax.jit(call).lower(*arguments).compile()
    seconds = measured_cost.take_turns(
      [lambda: jax.block_until_ready(compiled(*arguments))], ROUNDS
    )
  except Exception as error:
    tell_error(stage, name, error)
    return
  temporary = compiled.memory_analysis().temp_size_in_bytes / 1e6
  stage.row(part=name, ms=1e3 * statistics.median(seconds[0]), temporary_MB=temporary)


def model_parts(
  model: EVAD, params: Any, clips: Array, sizes: Array
) -> dict[str, tuple[Callable, tuple]]:
  """The model's parts: name -> a function of parameters and arrays, and its arguments."""
  seen = {}

  def forward(params: Any, clips: Array, sizes: Array) -> dict[str, list[Array]]:
    arrays = {}

    def watch(following, arguments, keywords, context):
      part = context.module
      if context.method_name == '__call__' and len(part.path) == 1:
        leaves, structure = jax.tree.flatten(arguments)
        fixed = [None if isinstance(x, jax.Array) else x for x in leaves]
        seen[part.name] = part.clone(parent=None), structure, fixed, keywords
        arrays[part.name] = [x for x in leaves if isinstance(x, jax.Array)]
      return following(*arguments, **keywords)

    with nn.intercept_methods(watch):
      model.apply({'params': params}, clips, sizes, train=False)
    return arrays

  arrays = jax.jit(forward)(params, clips, sizes)

  def part_of(name: str) -> Callable:
    module, structure, fixed, keywords = seen[name]

    def call(params: Any, given: list[Array]) -> Any:
      rest = iter(given)
      leaves = [next(rest) if x is None else x for x in fixed]
      arguments = jax.tree.unflatten(structure, leaves)
      return module.apply({'params': params}, *arguments, **keywords)

    return call

  return {name: (part_of(name), (params[name], arrays[name])) for name in seen}


def attention_parts(stage: Stage, model: EVAD, config: ConfigDict) -> None:
  """Measures every attention implementation of the device, without and with importance."""
  tokens = multiply_adds.count_tokens(model, config.clip.clip_frames, config.clip.canvases[0])
  rng = np.random.default_rng(0)
  for n in sorted(set(tokens.stages), reverse=True)[:2]:
    shape = (config.train.batch_size, model.num_heads, n, model.width // model.num_heads)
    q, k, v = (jnp.asarray(rng.standard_normal(shape, np.float32), model.dtype) for _ in range(3))
    mask, weight = jnp.ones((shape[0], n), bool), jnp.ones((shape[0], n))
    for form in available_forms(model.dtype):
      call = functools.partial(attention.attend_as, form)
      time_part(
        stage, f'attention {form}, {n} tokens', lambda *a, c=call: c(*a[:3], key_mask=a[3]),
        q, k, v, mask,
      )  # fmt: skip
      time_part(
        stage,
        f'attention {form} with importance, {n} tokens',
        lambda *a, c=call: c(*a[:3], key_mask=a[3], query_weight=a[4]),
        q, k, v, mask, weight,
      )  # fmt: skip


def available_forms(dtype: Any) -> list[str]:
  """The attention implementations that this device supports for this dtype."""
  found = []
  for form in ('plain', 'blocked', 'fused'):
    try:
      attention.form_for(form, 2 * attention.BLOCKED_FROM, dtype)
    except ValueError:
      continue
    found.append(form)
  return found


def pyramid_and_boxes(model: EVAD, config: ConfigDict) -> tuple[list[Array], Array]:
  """Four random maps, and boxes of typical people, (B, P, 4) pixels."""
  (height, width), batch = config.clip.canvases[0], config.train.batch_size
  rng = np.random.default_rng(0)
  levels = []
  for i in range(4):
    stride = model.patch * 2**i // 4
    shape = (batch, height // stride, width // stride, model.detector_width)
    levels.append(jnp.asarray(rng.standard_normal(shape, np.float32), model.dtype))
  low = rng.uniform(0, 0.6, (batch, model.num_proposals, 2))
  boxes = np.concatenate([low, low + rng.uniform(0.05, 0.4, low.shape)], axis=-1)
  return levels, jnp.asarray(box_ops.to_pixels(boxes, (height, width)), jnp.float32)


def padded_targets(targets: Any, length: int) -> Any:
  """The same people padded to `length` columns, as in training."""

  def pad(x: Array) -> Array:
    return jnp.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2))

  return jax.tree.map(pad, targets)
