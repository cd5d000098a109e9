"""Communication volume of a training step on a mesh, counted by hand to check the compiler.

Bytes that one device sends, in float32, with every exchange around a ring. A block split over m
devices (tensor parallel) sums its two outputs in the forward pass and the gradient of the MLP's
input in the backward pass, which also gathers the gradients of queries, keys and values, because
their matrix is not split. Recomputing a block's activations sums the attention's output, and
gathers sharded weights, a second time.
"""

import math
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from evad_jax.distributed import parameter_rules, sharding
from evad_jax.model.evad import EVAD
from evad_jax.model.multiply_adds import count_tokens

FLOAT = 4  # bytes


class Exchange(NamedTuple):
  """Bytes that one device sends in one step."""

  gradients: float  # summed over data-parallel devices
  sums: float  # of activations, over tensor-parallel devices
  gathers: float  # of activations, over tensor-parallel devices
  weights: float  # gathered before use if sharded over data-parallel devices

  def all_reduce(self) -> float:
    """Bytes of gradients and sums."""
    return self.gradients + self.sums

  def all_gather(self) -> float:
    """Bytes of gathered activations and weights."""
    return self.gathers + self.weights


def by_hand(
  model: EVAD, params: Any, mesh: Mesh, fully_sharded: bool, frames: int, canvas: tuple, clips: int
) -> Exchange:
  """params: shapes. clips: per data-parallel part, of `frames` frames on a canvas in pixels."""
  data, parts = mesh.shape['data'], mesh.shape['model']
  sizes = jax.tree.map(lambda x: math.prod(x.shape) * FLOAT, params)
  specs = sharding.parameter_specs(params, mesh, fully_sharded)
  kept = jax.tree.map(lambda size, spec: size / (parts if 'model' in spec else 1), sizes, specs)
  repeated = parameter_rules.by_rules(
    params, ((rf'{sharding.BLOCK}/.*', 2 if model.remat else 1), ('.*', 1)), __name__
  )
  split = jax.tree.map(
    lambda size, spec, times: times * size if 'data' in spec else 0, kept, specs, repeated
  )
  once, twice = _rows(model, frames, canvas)
  around = (parts - 1) / parts * FLOAT * clips
  return Exchange(
    gradients=2 * (data - 1) / data * sum(jax.tree.leaves(kept)),
    sums=2 * around * (once * (2 if model.remat else 1) + 2 * twice),
    gathers=around * 3 * once,
    weights=(data - 1) / data * sum(jax.tree.leaves(split)),
  )


def _rows(model: EVAD, frames: int, canvas: tuple[int, int]) -> tuple[int, int]:
  """Elements in the inputs of all attention layers, and of all MLPs, of one clip."""
  tokens = count_tokens(model, frames, canvas)
  decoder = model.decoder_depth * (tokens.leaving[-1] + model.num_proposals) * model.decoder_width
  return (
    sum(tokens.entering) * model.width + decoder,
    sum(tokens.leaving) * model.width + decoder,
  )
