"""What the devices of a mesh have to exchange in a step, by hand: the check on the compiler.

Bytes that a device sends, float32, where every exchange goes around a ring. Of a block, split over
m devices: sums of its two outputs on the way forward, and of the gradient of the MLP's input on the
way back; there the gradients of queries, keys and values are gathered, because their matrix is
whole. Recomputing a block's activations sums the attention's output, and gathers split weights, a
second time.
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

  gradients: float  # summed over the parts of the batch
  sums: float  # of activations, over the parts of a block
  gathers: float  # of activations, over the parts of a block
  weights: float  # gathered before use, where they are split over the parts of the batch

  def all_reduce(self) -> float:
    """Gradients and sums."""
    return self.gradients + self.sums

  def all_gather(self) -> float:
    """Activations and weights."""
    return self.gathers + self.weights


def by_hand(
  model: EVAD, params: Any, mesh: Mesh, fully_sharded: bool, frames: int, canvas: tuple, clips: int
) -> Exchange:
  """params: shapes. clips: of each part of a batch, of `frames` frames on a canvas in pixels."""
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
  """Numbers in the input of all attentions, and in that of all MLPs, of one clip."""
  tokens = count_tokens(model, frames, canvas)
  decoder = model.decoder_depth * (tokens.leaving[-1] + model.num_proposals) * model.decoder_width
  return (
    sum(tokens.entering) * model.width + decoder,
    sum(tokens.leaving) * model.width + decoder,
  )
