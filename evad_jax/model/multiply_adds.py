"""Multiply-adds and tokens of a model, from its settings alone.

Counted as in the literature ("GFLOPs" of a clip, paper table 1): matrix products and convolutions,
unused outputs included; no norms, activations or RoIAlign. The published pyramid projects its maps
after resizing them, ours before, with the same result at a lower cost (model/fpn.py). Both counts
are here.
"""

import math
from typing import NamedTuple

from evad_jax.errors import InputError
from evad_jax.model import masking
from evad_jax.model.evad import EVAD
from evad_jax.model.masked_autoencoder import MaskedAutoencoder
from evad_jax.model.token_pruning import num_kept
from evad_jax.model.tubelet_pixels import grid_of

BINS = 7  # of RoIAlign, along each side


class Tokens(NamedTuple):
  """Python ints that follow from settings and canvas."""

  slots: int  # t
  rows: int  # h
  columns: int  # w
  entering: tuple[int, ...]  # each encoder block
  leaving: tuple[int, ...]  # each encoder block; the last are those that the decoder gets

  @property
  def stages(self) -> tuple[int, ...]:
    """The distinct numbers in order: 2592, 1815, 1271, 890 for ViT-B at keep rate 0.7."""
    return tuple(dict.fromkeys((self.entering[0], *self.leaving)))


def count_tokens(model: EVAD, frames: int, canvas: tuple[int, int]) -> Tokens:
  """Tokens of every block. Raises InputError if canvas or keep rates do not fit the model."""
  height, width = canvas
  if frames % (2 * model.tubelet):
    raise InputError(
      f'A clip of {frames} frames does not divide into an even number of tubelets of '
      f'{model.tubelet}.'
    )
  if height % (2 * model.patch) or width % (2 * model.patch):
    raise InputError(
      f'A canvas of {height}x{width} pixels does not suit a patch of {model.patch}: both sides '
      f'must be multiples of {2 * model.patch}.'
    )
  slots, rows, columns = frames // model.tubelet, height // model.patch, width // model.patch
  entering, leaving = [], []
  n = slots * rows * columns
  for block, rate in enumerate(model.block_keep_rates()):
    entering.append(n)
    if rate != 1:
      n = rows * columns + num_kept(n, rows * columns, rate, block)
    leaving.append(n)
  return Tokens(slots, rows, columns, tuple(entering), tuple(leaving))


def multiply_adds(
  model: EVAD, frames: int, canvas: tuple[int, int], *, published: bool = True
) -> dict[str, int]:
  """Multiply-adds of one clip by part; `published`: with the pyramid in its published order."""
  tokens = count_tokens(model, frames, canvas)
  blocks = zip(tokens.entering, tokens.leaving, strict=True)
  return {
    'tubelets': tokens.entering[0] * model.tubelet * model.patch**2 * 3 * model.width,
    'encoder': sum(_block(n, left, model.width) for n, left in blocks),
    'pyramid': _pyramid(model, tokens, published),
    'person stages': model.num_stages * _stage(model),
    'decoder': _decoder(model, tokens.leaving[-1]),
  }


def pretraining_multiply_adds(
  model: MaskedAutoencoder,
  clip: tuple[int, int, int],
  mask_ratio: float,
  decoder_mask: str = 'none',
  *,
  published: bool = True,
) -> dict[str, int]:
  """Multiply-adds of one clip of pre-training by part; clip: T, H, W.

  published: with every token's tubelet projected, and pixels predicted for visible tokens too where
  these have a mask token. Ours does neither. Raises InputError as `masking.count`.
  """
  grid = grid_of(clip, model.tubelet, model.patch)
  counts = masking.count(grid, mask_ratio, decoder_mask)
  visible, asked = counts.visible, counts.predicted + counts.spare
  pixels, c = model.tubelet * model.patch**2 * 3, model.decoder_width
  projected = math.prod(grid) if published else visible
  return {
    'tubelets': projected * pixels * model.width,
    'encoder': model.depth * _block(visible, visible, model.width),
    'projection': visible * model.width * c,
    'decoder': model.decoder_depth * _block(visible + asked, visible + asked, c),
    'pixels': (asked if published else counts.predicted) * c * pixels,
  }


def roi_multiply_adds(model: EVAD, tokens: Tokens) -> int:
  """Multiply-adds that our actor features add: they compute RoIAlign as one matrix product."""
  cells = tokens.rows * tokens.columns
  return model.num_proposals * BINS**2 * cells * model.decoder_width * tokens.slots


def _block(n: int, left: int, width: int) -> int:
  """Projections and attention of the n tokens that enter, MLP of those that are left."""
  return 4 * n * width**2 + 2 * n**2 * width + 8 * left * width**2


def _pyramid(model: EVAD, tokens: Tokens, published: bool) -> int:
  """A 1 x 1 and a 3 x 3 convolution at each of four resolutions."""
  cells, half = tokens.rows * tokens.columns, -(-tokens.rows // 2) * -(-tokens.columns // 2)
  resized = 16 * cells + 4 * cells + cells + half
  lateral = resized if published else 4 * cells
  return lateral * model.width * model.detector_width + 9 * resized * model.detector_width**2


def _stage(model: EVAD) -> int:
  """One refinement of all proposals."""
  c, hidden = model.detector_width, model.dynamic_width
  attention = 4 * c**2 + 2 * model.num_proposals * c
  dynamic = c * 2 * c * hidden + BINS**2 * 2 * c * hidden + BINS**2 * c**2
  towers = 4 * c**2 + c * (2 + 4)
  return model.num_proposals * (attention + dynamic + 2 * c * model.feed_forward + towers)


def _decoder(model: EVAD, kept: int) -> int:
  """Projection, blocks on kept tokens and actors, and the classifier of every block."""
  c, actors = model.decoder_width, model.num_proposals
  head = actors * model.action_hidden * (c + model.num_actions)
  block = _block(kept + actors, kept + actors, c)
  return kept * model.width * c + model.decoder_depth * (block + head)
