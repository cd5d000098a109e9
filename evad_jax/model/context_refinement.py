"""Token restoring, actor features and the context refinement decoder (paper section 3.4)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax import boxes as box_ops
from evad_jax.errors import InputError
from evad_jax.model.attention import keep_attention
from evad_jax.model.layers import Dense, LayerNorm, at_least_float32
from evad_jax.model.position_embedding import position_table
from evad_jax.model.roi_align import roi_weights, whole_weights
from evad_jax.model.token_pruning import Tokens, entry_at, put
from evad_jax.model.vit import Block, keyframe_first

Array = jax.Array

TOKEN_RESTORINGS = ('scatter', 'released')


def extend_boxes(boxes: Array, extension: tuple[float, float], sizes: Array) -> Array:
  """Widens by ex*(width+1) and ey*(height+1), half on each side, and clips to the image.

  boxes (B, P, 4) xyxy pixels, sizes (B, 2) height and width -> (B, P, 4), without gradient.
  """
  boxes = jax.lax.stop_gradient(boxes)
  extension = jnp.asarray(extension, boxes.dtype)[None, None]
  margin = (boxes[..., 2:] - boxes[..., :2] + 1) * extension / 2
  boxes = jnp.concatenate([boxes[..., :2] - margin, boxes[..., 2:] + margin], axis=-1)
  sizes = sizes.astype(boxes.dtype)
  return box_ops.clip(boxes, sizes[:, None, 0], sizes[:, None, 1])


def restored_places(places: Array, token_restoring: str) -> Array:
  """The grid index that each kept non-keyframe token goes to: (B, K) -> (B, K).

  'scatter': its own. 'released': the published code loses the order of the kept tokens and fills
  their indices in ascending order; weights trained with it need it.
  """
  if token_restoring not in TOKEN_RESTORINGS:
    raise InputError(f'token_restoring={token_restoring!r} is not one of {TOKEN_RESTORINGS}.')
  return places if token_restoring == 'scatter' else jnp.sort(places, axis=1)


def restore_grid(kept: Array, places: Array, fill: Array, grid: tuple[int, int, int]) -> Array:
  """Puts kept tokens back into the time-ordered grid and `fill` everywhere else.

  kept (B, S + K, C) with the keyframe first, places (B, K), fill (C,) -> (B, t, h, w, C).
  """
  t, h, w = grid
  b, _, width = kept.shape
  keyframe, others = kept[:, None, : h * w], kept[:, h * w :]
  length = (t - 1) * h * w
  empty = entry_at(places, length) == places.shape[1]
  full = jnp.where(empty[..., None], fill, put(others, places, length))
  full = full.reshape(b, t - 1, h * w, width)
  full = jnp.concatenate([full[:, : t // 2], keyframe, full[:, t // 2 :]], axis=1)
  return full.reshape(b, t, h, w, width)


def actor_features(grid: Array, boxes: Array, stride: float) -> Array:
  """One vector per box: RoIAlign in every time step, maximum over bins, mean over time steps.

  grid (B, t, h, w, C), boxes (B, P, 4) xyxy pixels -> (B, P, C).
  """
  b, t, h, w, width = grid.shape
  weights = whole_weights(*roi_weights(boxes, stride, h, w)).astype(grid.dtype)  # (B, P, 49, hw)

  def strongest(slot: Array) -> Array:  # (B, hw, C) -> (B, P, C)
    return jnp.einsum('bpis,bsc->bpic', weights, slot).max(axis=2)

  # One time step at a time: the bins of all at once would be the largest tensor of the model.
  slots = jnp.moveaxis(grid.reshape(b, t, h * w, width), 1, 0)  # (t, B, hw, C)
  return jax.lax.map(strongest, slots).mean(axis=0)


class ActionHead(nn.Module):
  """Linear, LayerNorm, ReLU, linear: one classifier per decoder block."""

  num_actions: int
  hidden: int = 2048
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:  # (B, P, C) -> (B, P, A)
    x = Dense(self.hidden, use_bias=False, dtype=self.dtype, name='hidden')(x)
    x = nn.relu(LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm')(x))
    return Dense(self.num_actions, dtype=at_least_float32(self.dtype), name='action_logits')(x)


def uniform_mask_token(key: Array, shape: tuple[int], dtype: jnp.dtype = jnp.float32) -> Array:
  """Xavier uniform of a 1 x 1 x C tensor, whose fans are both C: the published initial value."""
  bound = math.sqrt(3 / shape[-1])
  return jax.random.uniform(key, shape, dtype, -bound, bound)


class ContextRefinement(nn.Module):
  """Kept tokens and boxes -> actions of every decoder block.

  Actor features and kept tokens attend to each other, which restores context that pruning removed.
  """

  width: int
  depth: int
  num_heads: int
  num_actions: int
  action_hidden: int
  pretrain_grid: tuple[int, int]
  patch: int
  roi_extension: tuple[float, float]  # of width and height
  token_restoring: str
  drop_path: float
  remat: bool
  attention: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    tokens: Tokens,  # x (B, S + K, D) after the encoder's norm
    grid: tuple[int, int, int],  # t, h, w
    boxes: Array,  # (B, P, 4) xyxy pixels
    sizes: Array,  # (B, 2) height and width of the unpadded input
    *,
    train: bool,
  ) -> Array:  # (blocks, B, P, A)
    t, h, w = grid
    kept = Dense(self.width, use_bias=False, dtype=self.dtype, name='projection')(tokens.x)
    mask_token = self.param('mask_token', uniform_mask_token, (self.width,)).astype(self.dtype)
    table = position_table(grid, self.pretrain_grid, self.width).reshape(1, t, h, w, -1)
    codes = jnp.asarray(table, self.dtype)

    places = restored_places(tokens.places, self.token_restoring)
    full = restore_grid(kept, places, mask_token, grid) + codes
    rois = extend_boxes(boxes, self.roi_extension, sizes)
    actors = actor_features(full, rois, self.patch)  # (B, P, C)

    codes = keyframe_first(codes.reshape(1, t, h * w, -1))[0]  # (N, C)
    kept_codes = jnp.concatenate(
      [jnp.broadcast_to(codes[: h * w], (kept.shape[0], h * w, self.width)), codes[h * w + places]],
      axis=1,
    )
    x = jnp.concatenate([kept + kept_codes, actors], axis=1)  # (B, S + K + P, C)
    self.sow('intermediates', 'restored_grid', full)
    self.sow('intermediates', 'rois', rois)
    self.sow('intermediates', 'actors', actors)
    self.sow('intermediates', 'decoder_input', x)
    return self._decode(x, tokens.mask, actors.shape[1], train)

  def _decode(self, x: Array, mask: Array | None, num_actors: int, train: bool) -> Array:
    """Joint self-attention of tokens and actors; masked padding tokens stay masked."""
    if mask is not None:
      mask = jnp.concatenate([mask, jnp.ones((x.shape[0], num_actors), bool)], axis=1)
    places = jnp.zeros((x.shape[0], 0), jnp.int32)  # nothing is pruned here

    def call(block: Block, x: Array) -> Array:
      return block(Tokens(x, places, mask), train=train).x

    if self.remat:
      call = nn.remat(call, policy=keep_attention)
    logits = []
    for i in range(self.depth):
      rate = self.drop_path * i / max(1, self.depth - 1)
      block = Block(
        self.num_heads, rate, attention=self.attention, dtype=self.dtype, name=f'block_{i}'
      )
      x = call(block, x)
      head = ActionHead(self.num_actions, self.action_hidden, self.dtype, name=f'action_head_{i}')
      logits.append(head(x[:, -num_actors:]))
    return jnp.stack(logits)
