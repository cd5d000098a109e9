"""Activation memory: what a step keeps from its forward pass for its backward pass.

It is counted without compiling. The compiler plans the rest: gradients as large as the parameters,
and the workspace of one layer. The CPU compiler recomputes all blocks before the first is needed,
so its plan says little about accelerators.
"""

import functools
import math
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evad_jax.model import start_values
from evad_jax.model.evad import EVAD
from evad_jax.structures import Batch, Targets
from evad_jax.training import losses
from evad_jax.training.train_step import loss_terms


def abstract_batch(config: ConfigDict, clips: int, canvas: tuple[int, int]) -> Batch:
  """Shapes and dtypes of a global batch."""
  frames, boxes = config.clip.clip_frames, config.clip.max_boxes
  return _batch(clips, frames, canvas, boxes, config.model.num_actions)


def kept_of_a_clip(config: ConfigDict, model: EVAD, canvas: tuple[int, int]) -> int:
  """Bytes of activations that one more clip adds, without what all clips share (parameters).

  model.remat decides what is kept: all activations of the blocks, or the attention outputs.
  """
  frames, boxes = config.clip.clip_frames, config.clip.max_boxes
  two, one = (_kept(model, clips, frames, tuple(canvas), boxes) for clips in (2, 1))
  return two - one


def on_device(shapes: Any, shardings: Any) -> int:
  """Bytes that one device holds of arrays with these shapes and dtypes."""
  return sum(
    x.dtype.itemsize * math.prod(place.shard_shape(x.shape))
    for x, place in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
  )


def _batch(clips: int, frames: int, canvas: tuple[int, int], boxes: int, actions: int) -> Batch:

  def shape(kind: Any, *axes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((clips, *axes), kind)

  f32, i32 = np.float32, np.int32
  return Batch(
    shape(np.uint8, frames, *canvas, 3),
    shape(i32, 2),
    shape(f32, boxes, 4),
    Targets(shape(f32, boxes, 4), shape(f32, boxes, actions), shape(bool, boxes)),
    shape(bool),
    shape(i32),
  )


@functools.lru_cache(maxsize=32)  # tracing takes seconds
def _kept(model: EVAD, clips: int, frames: int, canvas: tuple[int, int], boxes: int) -> int:
  """Bytes of what the backward pass of a batch gets from the forward pass, and of parameters."""

  def backward(params: Any, batch: Batch, key: jax.Array) -> Any:
    norms = losses.normalizers(batch.targets, model.num_proposals)
    loss = functools.partial(
      loss_terms, batch=batch, norms=norms, key=key, model=model, action_weight=1.0, mesh=None
    )
    return jax.vjp(lambda params: loss(params)[0], params)[1]

  params = start_values.abstract_params(model)
  batch = _batch(clips, frames, canvas, boxes, model.num_actions)
  kept = jax.eval_shape(backward, params, batch, jax.eval_shape(lambda: jax.random.key(0)))
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(kept))
