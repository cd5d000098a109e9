"""Traces keyframe-centric token pruning of a clip (paper section 3.2), stage by stage.

Blocks record which tokens they kept and how important each was, in their own order. This module
turns the records into grids in time order, which `pruning_sheets` can draw.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax.model.context_refinement import restore_grid
from evad_jax.model.evad import normalize_clips
from evad_jax.structures import PruningStage

Array = jax.Array


def trace_pruning(
  model: nn.Module,
  params: Any,
  clips: Array,  # (B, T, H, W, 3) uint8 on the canvas, as in Batch
  sizes: Array,  # (B, 2) int32, height and width of the picture
) -> list[PruningStage]:
  """The stages of a batch, one per pruning block, in order; none if nothing is pruned.

  A free function, to be jitted with the model bound. Raises InputError if the model's keep rates
  do not fit the clip.
  """
  x = normalize_clips(clips, sizes, model.dtype)
  variables = {'params': params}
  _, state = model.apply(variables, x, sizes, train=False, mutable=['intermediates'])
  t, h, w = clips.shape[1] // model.tubelet, *(side // model.patch for side in clips.shape[2:4])
  return pruning_stages(state['intermediates'].get('encoder', {}), (t, h, w))


def of_clip(stages: Sequence[PruningStage], place: int) -> list[PruningStage]:
  """The stages of one clip of the batch, for pictures: without axis B, on the host."""
  stages = jax.device_get(list(stages))
  return [PruningStage(int(s.block), s.kept[place], s.importance[place]) for s in stages]


def pruning_stages(sown: dict[str, Any], grid: tuple[int, int, int]) -> list[PruningStage]:
  """Turns what the encoder's blocks sowed into grids of t, h, w; order and errors as above."""
  blocks = {int(name.removeprefix('block_')): leaves for name, leaves in sown.items()}
  stages, entering = [], None
  for block, leaves in sorted(blocks.items()):
    (importance,), (kept_places,) = leaves['importance'], leaves['kept_places']
    if entering is None:  # all tokens enter the first one, in order
      entering = jnp.arange(importance.shape[1] - grid[1] * grid[2], dtype=jnp.int32)
      entering = jnp.broadcast_to(entering, (len(importance), len(entering)))
    num_kept = grid[1] * grid[2] + kept_places.shape[1]
    kept = _to_grid(jnp.ones((len(importance), num_kept), bool), kept_places, False, grid)
    importance = _to_grid(importance.astype(jnp.float32), entering, jnp.nan, grid)
    stages.append(PruningStage(block, kept, importance))
    entering = kept_places
  return stages


def _to_grid(values: Array, places: Array, fill: Any, grid: tuple[int, int, int]) -> Array:
  """(B, S + K) values, the keyframe's first, and (B, K) indices -> (B, t, h, w)."""
  return restore_grid(values[..., None], places, jnp.full(1, fill, values.dtype), grid)[..., 0]
