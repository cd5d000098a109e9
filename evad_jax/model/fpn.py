"""Feature pyramid (arXiv 1612.03144) on keyframe maps of four encoder blocks (section 3.3)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evad_jax.model.layers import Dense, xavier

Array = jax.Array


def nearest_upsample(x: Array, factor: int) -> Array:
  """(B, h, w, C) -> (B, factor*h, factor*w, C)."""
  return x.repeat(factor, axis=1).repeat(factor, axis=2)


class FeaturePyramid(nn.Module):
  """Four equally large maps -> a pyramid at strides patch/4, patch/2, patch, 2*patch.

  The published order resizes the maps first and then applies the 1x1 lateral convolutions. A 1x1
  convolution commutes with nearest resizing, so ours go first, on up to 16 times fewer pixels.
  """

  width: int = 256
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, maps: list[Array]) -> list[Array]:  # 4 x (B, h, w, D) -> fine to coarse
    lateral = [
      Dense(self.width, dtype=self.dtype, name=f'lateral_{i}')(x) for i, x in enumerate(maps)
    ]
    lateral = [
      nearest_upsample(lateral[0], 4),
      nearest_upsample(lateral[1], 2),
      lateral[2],
      lateral[3][:, ::2, ::2],
    ]
    top_down = [lateral[3]]
    for x in reversed(lateral[:3]):
      coarse = nearest_upsample(top_down[0], 2)[:, : x.shape[1], : x.shape[2]]
      top_down.insert(0, x + coarse)
    return [
      nn.Conv(self.width, (3, 3), kernel_init=xavier, dtype=self.dtype, name=f'output_{i}')(x)
      for i, x in enumerate(top_down)
    ]
