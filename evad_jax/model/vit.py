"""The encoder: a plain ViT on tubelets whose blocks can prune tokens (paper sections 3.1, 3.2)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax.model.attention import SelfAttention, keep_attention
from evad_jax.model.layers import Affine, DropPath, LayerNorm, Mlp
from evad_jax.model.position_embedding import position_table
from evad_jax.model.token_pruning import Tokens, num_kept, prune
from evad_jax.model.tubelet_pixels import cut, grid_of, pixels_at

Array = jax.Array


class Block(nn.Module):
  """Pre-norm transformer block; below a keep rate of 1 it prunes between attention and MLP."""

  num_heads: int
  drop_path: float = 0.0  # probability
  keep_rate: float = 1.0  # of all tokens that enter
  enhanced_weight: float = 1.0  # of the keyframe's queries in the importance
  index: int = 0  # for error messages
  attention: str = 'auto'  # implementation, one of attention.FORMS
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens: Tokens, *, train: bool) -> Tokens:
    x = tokens.x  # (B, n, D)
    n, width = x.shape[1:]
    n_keyframe = n - tokens.places.shape[1]
    query_weight = None
    if self.keep_rate != 1:
      is_keyframe = jnp.arange(n) < n_keyframe
      query_weight = jnp.where(is_keyframe, self.enhanced_weight, 1.0)[None]  # (1, n)
      query_weight = jnp.broadcast_to(query_weight, x.shape[:2])
      if tokens.mask is not None:
        query_weight = jnp.where(tokens.mask, query_weight, 0)

    attention = SelfAttention(self.num_heads, self.attention, self.dtype, name='attention')
    residual, importance = attention(
      LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm1')(x),
      key_mask=tokens.mask,
      query_weight=query_weight,
    )
    tokens = tokens._replace(x=x + DropPath(self.drop_path)(residual, train=train))
    if self.keep_rate != 1:
      kept = num_kept(n, n_keyframe, self.keep_rate, self.index)
      tokens = prune(tokens, importance, kept)  # (B, S + K, D)
      self.sow('intermediates', 'importance', importance)  # (B, n), of those that entered
      self.sow('intermediates', 'kept_places', tokens.places)  # (B, K)

    x = tokens.x
    residual = Mlp(4 * width, dtype=self.dtype, name='mlp')(
      LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm2')(x)
    )
    return tokens._replace(x=x + DropPath(self.drop_path)(residual, train=train))


class TubeletEmbedding(nn.Module):
  """A 3-D convolution whose kernel is its stride, as one product on flattened tubelets."""

  width: int
  tubelet: int  # frames
  patch: int  # pixels
  dtype: jnp.dtype = jnp.float32
  bound: float | None = None  # kernel and bias start uniform in [-bound, bound]; None: as Dense

  @nn.compact
  def __call__(self, clips: Array, places: Array | None = None) -> Array:
    """(B, T, H, W, 3) -> (B, N, D), in time order; or (B, V, D), those at places (B, V) alone."""
    b, _, _, width, channels = clips.shape
    f, p = self.tubelet, self.patch
    t, h, w = grid_of(clips.shape[1:4], f, p)
    size = f * p * p * channels
    kernel, bias = Affine(size, self.width, self.dtype, self.bound, name='projection')()
    if places is not None:
      x = pixels_at(clips, places, f, p).reshape(-1, size) @ kernel
    elif jax.default_backend() == 'tpu':
      # Moves the pixels of a row to lanes at once, then convolves along the row: a third of the
      # cycles of the full transpose.
      x = clips.reshape(b, t, f, h, p, width, channels)
      x = x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, width, f * p * channels)
      kernel = kernel.reshape(f, p, p, channels, -1).transpose(2, 0, 1, 3, 4)
      kernel = kernel.reshape(p, f * p * channels, -1)
      axes = ('NWC', 'WIO', 'NWC')
      x = jax.lax.conv_general_dilated(x, kernel, (p,), 'VALID', dimension_numbers=axes)
    else:
      x = cut(clips, f, p).reshape(-1, size) @ kernel
    return x.reshape(b, -1, self.width) + bias[None, None]


def keyframe_first(x: Array) -> Array:
  """(B, t, S, ...) in time order -> (B, t*S, ...), time step t/2 first, the others in order."""
  middle = x.shape[1] // 2
  x = jnp.concatenate([x[:, middle : middle + 1], x[:, :middle], x[:, middle + 1 :]], axis=1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])


class Encoder(nn.Module):
  """Clip -> kept tokens and the keyframe's feature maps."""

  width: int
  depth: int
  num_heads: int
  tubelet: int
  patch: int
  pretrain_grid: tuple[int, int]  # rows and columns of the position table
  keep_rates: tuple[float, ...]  # one per block
  enhanced_weight: float
  feature_blocks: tuple[int, ...]  # blocks whose keyframe tokens become feature maps
  drop_path: float  # of the last block; rises linearly from 0
  remat: bool
  attention: str = 'auto'  # implementation, one of attention.FORMS
  dtype: jnp.dtype = jnp.float32
  tubelet_bound: float | None = None  # of the start values of the tubelets' projection

  @nn.compact
  def __call__(
    self,
    clips: Array,  # (B, T, H, W, 3), normalised
    token_mask: Array | None,  # (B, S) bool, True where a token of a time step has a real pixel
    *,
    train: bool,
    visible: Array | None = None,  # (B, V), indices in time order of the only tokens that enter
  ) -> tuple[Tokens, list[Array]]:  # final norm applied to x; maps (B, h, w, D)
    """With `visible`, the others cost nothing, and there is no keyframe: no pruning, no maps."""
    b, (t, h, w) = len(clips), grid_of(clips.shape[1:4], self.tubelet, self.patch)
    x = TubeletEmbedding(
      self.width, self.tubelet, self.patch, self.dtype, self.tubelet_bound, name='tubelets'
    )(clips, visible)
    table = position_table((t, h, w), self.pretrain_grid, self.width)
    if visible is None:
      x = x.reshape(b, t, h * w, -1) + jnp.asarray(table, x.dtype).reshape(1, t, h * w, -1)
      mask = None if token_mask is None else jnp.tile(token_mask, (1, t))  # (B, N)
      others = (t - 1) * h * w
      places = jnp.broadcast_to(jnp.arange(others, dtype=jnp.int32), (b, others))
      tokens = Tokens(keyframe_first(x), places, mask)
    else:
      x += jnp.asarray(table, x.dtype)[visible]
      tokens = Tokens(x, jnp.zeros((b, 0), jnp.int32), None)

    def call(block: Block, tokens: Tokens) -> Tokens:
      return block(tokens, train=train)

    if self.remat:
      call = nn.remat(call, policy=keep_attention)
    maps = []
    for i in range(self.depth):
      block = Block(
        num_heads=self.num_heads,
        drop_path=self.drop_path * i / max(1, self.depth - 1),
        keep_rate=self.keep_rates[i],
        enhanced_weight=self.enhanced_weight,
        index=i,
        attention=self.attention,
        dtype=self.dtype,
        name=f'block_{i}',
      )
      tokens = call(block, tokens)
      if i in self.feature_blocks:
        maps.append(tokens.x[:, : h * w].reshape(b, h, w, -1))
    x = LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(tokens.x)
    return tokens._replace(x=x), maps
