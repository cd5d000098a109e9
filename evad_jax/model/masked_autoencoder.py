"""VideoMAE (arXiv 2203.12602) and VideoMAE v2 (2303.16727): pre-training without labels.

clip -> visible tubelets -> encoder -> projection -> [visible tokens ; mask tokens] -> decoder
     -> the pixels of the masked tubelets

Its parameters have the names and shapes of those of EVAD, so that a detector starts from them as
they are: the encoder, and the decoder's projection, mask token and blocks, which lie under
`context_refinement`. The decoder's last norm and its head have no counterpart there.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax.model.attention import keep_attention
from evad_jax.model.layers import Dense, LayerNorm, at_least_float32
from evad_jax.model.masking import Places
from evad_jax.model.position_embedding import position_table
from evad_jax.model.token_pruning import Tokens
from evad_jax.model.tubelet_pixels import grid_of
from evad_jax.model.vit import Block, Encoder

Array = jax.Array

# Of ImageNet, by channel, as in the published pre-training; detectors use one number for all.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize_by_channel(clips: Array, dtype: jnp.dtype = jnp.float32) -> Array:
  """uint8 RGB (..., 3) -> (x / 255 - MEAN) / DEVIATION of `dtype`."""
  wide = at_least_float32(dtype)
  axes = (None,) * (clips.ndim - 1)
  x = clips.astype(wide) / 255 - jnp.asarray(MEAN, wide)[axes]
  return (x / jnp.asarray(DEVIATION, wide)[axes]).astype(dtype)


def cut_normal(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
  """Normal numbers of deviation 0.02, those within 0.02: the published mask token."""
  return 0.02 * jax.random.truncated_normal(key, -1, 1, shape, dtype)


class Predictions(NamedTuple):
  """What the model says of the masked tubelets, and which they are."""

  pixels: Array  # (B, M, tubelet * patch * patch * 3), in the order of model/tubelet_pixels.py
  places: Places


class MaskedAutoencoder(nn.Module):
  """Encoder on visible tokens alone, small decoder. Field defaults are VideoMAE's ViT-B."""

  # Encoder
  width: int = 768
  depth: int = 12
  num_heads: int = 12
  patch: int = 16  # pixels
  tubelet: int = 2  # frames
  pretrain_size: int = 224  # pixels; the grid of the position tables is pretrain_size / patch
  # Decoder
  decoder_width: int = 384
  decoder_depth: int = 4  # 6 to start every block of EVAD's ViT-B
  decoder_heads: int = 6
  # Both
  remat: bool = False  # recompute the blocks' activations in the backward pass
  attention: str = 'auto'  # implementation: or 'plain', 'blocked', 'fused'
  dtype: jnp.dtype = jnp.float32  # of the computation; parameters are float32

  @nn.compact
  def __call__(
    self,
    clips: Array,  # (B, T, H, W, 3), normalised (normalize_by_channel)
    places: Places,  # masking.draw
  ) -> Predictions:
    """Predicts the pixels at `places.predicted`; nothing is random, in training either."""
    pretrain_grid = (self.pretrain_size // self.patch,) * 2
    pixels = self.tubelet * self.patch**2 * 3
    tokens, _ = Encoder(
      width=self.width,
      depth=self.depth,
      num_heads=self.num_heads,
      tubelet=self.tubelet,
      patch=self.patch,
      pretrain_grid=pretrain_grid,
      keep_rates=(1.0,) * self.depth,
      enhanced_weight=1.0,
      feature_blocks=(),
      drop_path=0.0,
      remat=self.remat,
      attention=self.attention,
      dtype=self.dtype,
      tubelet_bound=pixels**-0.5,
      name='encoder',
    )(clips.astype(self.dtype), None, train=False, visible=places.visible)
    predicted = PixelDecoder(
      width=self.decoder_width,
      depth=self.decoder_depth,
      num_heads=self.decoder_heads,
      pixels=pixels,
      pretrain_grid=pretrain_grid,
      remat=self.remat,
      attention=self.attention,
      dtype=self.dtype,
      name='context_refinement',
    )(tokens.x, places, grid_of(clips.shape[1:4], self.tubelet, self.patch))
    return Predictions(predicted, places)


class PixelDecoder(nn.Module):
  """Visible tokens and one mask token for every token to predict -> its pixels."""

  width: int
  depth: int
  num_heads: int
  pixels: int  # numbers of a tubelet
  pretrain_grid: tuple[int, int]
  remat: bool
  attention: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,  # (B, V, D), after the encoder's norm
    places: Places,
    grid: tuple[int, int, int],  # t, h, w
  ) -> Array:  # (B, M, pixels)
    bound = x.shape[-1] ** -0.5
    x = Dense(self.width, use_bias=False, dtype=self.dtype, bound=bound, name='projection')(x)
    mask_token = self.param('mask_token', cut_normal, (self.width,)).astype(self.dtype)
    codes = jnp.asarray(position_table(grid, self.pretrain_grid, self.width), self.dtype)  # (N, C)
    asked = jnp.concatenate([places.spare, places.predicted], axis=1)
    x = jnp.concatenate([x + codes[places.visible], mask_token[None, None] + codes[asked]], axis=1)
    nothing = jnp.zeros((len(x), 0), jnp.int32)  # is pruned here

    def call(block: Block, x: Array) -> Array:
      return block(Tokens(x, nothing, None), train=False).x

    if self.remat:
      call = nn.remat(call, policy=keep_attention)
    for i in range(self.depth):
      block = Block(self.num_heads, attention=self.attention, dtype=self.dtype, name=f'block_{i}')
      x = call(block, x)
    x = x[:, -places.predicted.shape[1] :]
    x = LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(x)
    return Dense(self.pixels, dtype=self.dtype, name='head')(x)
