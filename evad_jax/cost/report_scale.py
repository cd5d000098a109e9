"""Sizes of the programs in an accelerator report."""

from typing import NamedTuple

from ml_collections import ConfigDict

from evad_jax.cost import measured_cost
from evad_jax.cost.stage_runs import Stage

ROUNDS = 20  # timed calls of every program
ENOUGH = 8  # seconds that measuring one part of the model may take, compilation included


class Scale(NamedTuple):
  """Sizes of the report's model and clips."""

  size: str
  canvas: tuple[int, int]  # pixels
  dtype: str
  batches: tuple[int, ...]  # clips, the most informative first


SCALES = {
  'B': Scale('B', (288, 512), 'bfloat16', (8, 1, 16)),
  'L': Scale('L', (288, 512), 'bfloat16', (4, 1, 8)),
  'small': Scale('small', (128, 224), 'bfloat16', (8, 1, 16)),
  'tiny': Scale('small', (32, 64), 'float32', (2,)),
}


def make_config(scale: Scale, batch: int, keep_rate: float, remat: bool = True) -> ConfigDict:
  """Makes a configuration of that scale."""
  config = measured_cost.make_config(scale.size, scale.canvas, scale.dtype, batch, keep_rate)
  config.model.remat = remat
  if scale.canvas == SCALES['tiny'].canvas:  # so that a CPU compiles it quickly
    config.model.update(num_stages=1, decoder_depth=1)
  return config


def tell_error(stage: Stage, what: str, error: Exception) -> None:
  """Notes an error; the stage fails unless the device merely has too little memory."""
  if 'RESOURCE_EXHAUSTED' in str(error):
    stage.note(f'{what}: the device has too little memory.')
    return
  stage.note(f'{what}: {type(error).__name__}: {" ".join(str(error).split())[:300]}')
  stage.broken = True
