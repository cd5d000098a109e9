"""EVAD (ICCV 2023, arXiv 2304.08451): clips in, people and their actions out.

clip -> tubelet tokens -> (attention, prune, MLP) x depth -> kept tokens ------------+
             |                                                                       |
             +-> keyframe maps of four blocks -> pyramid -> person boxes (stages)    |
                                                                |                    |
                boxes, extended, over all time steps -> RoIAlign on the restored grid
                                                                |                    |
                        context refinement decoder over [kept tokens, actors] -> actions
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax.errors import InputError
from evad_jax.model.context_refinement import ContextRefinement
from evad_jax.model.fpn import FeaturePyramid
from evad_jax.model.layers import at_least_float32
from evad_jax.model.sparse_rcnn import PersonDetector
from evad_jax.model.vit import Encoder
from evad_jax.structures import Outputs

Array = jax.Array

PADDINGS = ('masked', 'released')


def pixel_mask(sizes: Array, height: int, width: int, cell: int = 1) -> Array:
  """(B, 2) image sizes -> (B, height/cell, width/cell) bool, True where a cell has a real pixel."""
  rows = jnp.arange(0, height, cell, dtype=sizes.dtype)[None] < sizes[:, :1]
  columns = jnp.arange(0, width, cell, dtype=sizes.dtype)[None] < sizes[:, 1:]
  return rows[:, :, None] & columns[:, None, :]


def normalize_clips(clips: Array, sizes: Array, dtype: jnp.dtype = jnp.float32) -> Array:
  """uint8 RGB -> (x / 255 - 0.45) / 0.225, exactly zero right of and below the image.

  clips (B, T, H, W, 3), sizes (B, 2) height and width -> (B, T, H, W, 3) of `dtype`.
  """
  x = (clips.astype(at_least_float32(dtype)) / 255 - 0.45) / 0.225
  real = pixel_mask(sizes, *clips.shape[2:4])[:, None, :, :, None]
  return jnp.where(real, x, 0).astype(dtype)


class EVAD(nn.Module):
  """The complete detector. Field defaults are the published ViT-B at keep rate 0.7 for AVA."""

  num_actions: int = 80
  # Encoder
  width: int = 768
  depth: int = 12
  num_heads: int = 12
  patch: int = 16  # pixels; pyramid strides and the RoI canonical size scale with it
  tubelet: int = 2  # frames
  pretrain_size: int = 224  # pixels; the grid of the position table is pretrain_size / patch
  prune_blocks: tuple[int, ...] = (3, 6, 9)  # indices from 0
  keep_rate: float | tuple[float, ...] = 0.7  # of a block's tokens; one for all, or one each
  enhanced_weight: float = 1.0  # of the keyframe's queries in the importance; published: 1 or 4
  feature_blocks: tuple[int, ...] = (2, 5, 8, 11)
  drop_path: float = 0.1
  # Person detector
  detector_width: int = 256
  detector_heads: int = 8
  num_proposals: int = 100
  num_stages: int = 6
  dynamic_width: int = 64
  feed_forward: int = 2048
  proposal_init: str = 'image'  # start boxes: 'image' (published) or 'grid'
  # Context refinement
  roi_extension: tuple[float, float] = (0.4, 0.2)
  token_restoring: str = 'scatter'  # 'released' for published pruned weights
  decoder_width: int = 384
  decoder_depth: int = 6
  decoder_heads: int = 6
  decoder_drop_path: float = 0.1
  action_hidden: int = 2048
  # All
  padding: str = 'masked'  # 'released' for published weights: padding counts as image
  remat: bool = False  # recompute the blocks' activations in the backward pass
  attention: str = 'auto'  # implementation: or 'plain', 'blocked', 'fused'
  dtype: jnp.dtype = jnp.float32  # of the computation; parameters are float32

  def block_keep_rates(self) -> tuple[float, ...]:
    """One keep rate per encoder block. Raises InputError if the settings do not fit together."""
    rates = self.keep_rate
    if not isinstance(rates, (tuple, list)):
      rates = (rates,) * len(self.prune_blocks)
    if len(rates) != len(self.prune_blocks):
      raise InputError(
        f'keep_rate={self.keep_rate} has {len(rates)} rates for {len(self.prune_blocks)} '
        f'prune_blocks, {self.prune_blocks}; give one rate, or one for each block.'
      )
    for name, blocks in (
      ('prune_blocks', self.prune_blocks),
      ('feature_blocks', self.feature_blocks),
    ):
      if sorted(set(blocks) & set(range(self.depth))) != list(blocks):
        raise InputError(
          f'{name}={blocks} must be distinct blocks from 0 to {self.depth - 1}, in ascending order.'
        )
    if len(self.feature_blocks) != 4:
      raise InputError(f'feature_blocks={self.feature_blocks} must be four blocks, one per map.')
    by_block = dict(zip(self.prune_blocks, rates, strict=True))
    return tuple(float(by_block.get(i, 1.0)) for i in range(self.depth))

  @nn.compact
  def __call__(
    self,
    clips: Array,  # (B, T, H, W, 3), normalised and zero padded (normalize_clips)
    sizes: Array,  # (B, 2) int, height and width of the image inside the canvas
    *,
    train: bool,
  ) -> Outputs:
    """Runs the detector; training with drop path needs the random stream 'drop_path'."""
    if self.padding not in PADDINGS:
      raise InputError(f'padding={self.padding!r} is not one of {PADDINGS}.')
    masked = self.padding == 'masked'
    height, width = clips.shape[2:4]
    h, w = height // self.patch, width // self.patch
    token_mask = None
    if masked:
      # Pixels outside the image must not matter, whatever their values.
      clips = jnp.where(pixel_mask(sizes, height, width)[:, None, :, :, None], clips, 0)
      token_mask = pixel_mask(sizes, height, width, self.patch)  # (B, h, w)
    pretrain_grid = (self.pretrain_size // self.patch,) * 2
    tokens, maps = Encoder(
      width=self.width,
      depth=self.depth,
      num_heads=self.num_heads,
      tubelet=self.tubelet,
      patch=self.patch,
      pretrain_grid=pretrain_grid,
      keep_rates=self.block_keep_rates(),
      enhanced_weight=self.enhanced_weight,
      feature_blocks=tuple(self.feature_blocks),
      drop_path=self.drop_path,
      remat=self.remat,
      attention=self.attention,
      dtype=self.dtype,
      name='encoder',
    )(
      clips.astype(self.dtype),
      None if token_mask is None else token_mask.reshape(len(token_mask), -1),
      train=train,
    )
    if masked:
      maps = [jnp.where(token_mask[..., None], x, 0) for x in maps]
    pyramid = FeaturePyramid(self.detector_width, self.dtype, name='fpn')(maps)
    person_logits, boxes = PersonDetector(
      num_proposals=self.num_proposals,
      num_stages=self.num_stages,
      num_heads=self.detector_heads,
      dynamic_width=self.dynamic_width,
      feed_forward=self.feed_forward,
      proposal_init=self.proposal_init,
      finest_stride=self.patch / 4,
      canonical_size=14 * self.patch,  # the published 224 pixels at patch 16
      dtype=self.dtype,
      name='person_detector',
    )(pyramid, sizes)
    action_logits = ContextRefinement(
      width=self.decoder_width,
      depth=self.decoder_depth,
      num_heads=self.decoder_heads,
      num_actions=self.num_actions,
      action_hidden=self.action_hidden,
      pretrain_grid=pretrain_grid,
      patch=self.patch,
      roi_extension=tuple(self.roi_extension),
      token_restoring=self.token_restoring,
      drop_path=self.decoder_drop_path,
      remat=self.remat,
      attention=self.attention,
      dtype=self.dtype,
      name='context_refinement',
    )(tokens, (clips.shape[1] // self.tubelet, h, w), boxes[-1], sizes, train=train)
    return Outputs(person_logits, boxes, action_logits)
