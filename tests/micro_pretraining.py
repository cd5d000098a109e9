"""A masked autoencoder so small that a test can compile it, with weights of the golden rule."""

import numpy as np

from evad_jax.model.masked_autoencoder import MaskedAutoencoder
from evad_jax.published import architectures, weight_names
from tests import golden_rule

FRAMES, SIDE, GRID, RATIO = 8, 16, (4, 4, 4), 0.75  # 16 visible and 48 masked tokens
CLIP = (FRAMES, SIDE, SIDE)
SETTINGS = {
  'width': 48,
  'depth': 2,
  'num_heads': 3,
  'patch': 4,
  'pretrain_size': 16,
  'decoder_width': 24,
  'decoder_depth': 2,
  'decoder_heads': 2,
}


def micro_model(**changes):
  return MaskedAutoencoder(**(SETTINGS | changes))


def published_tensors(model):
  """VideoMAE's names -> tensors, made by the golden rule from name and shape."""
  settings = {name: getattr(model, name) for name in (*SETTINGS, 'tubelet')}
  shapes = architectures.expected_shapes('pretraining', settings)
  names = {architectures.to_videomae_name(n, 'encoder.'): s for n, s in shapes.items()}
  return {name: golden_rule.make_weight(name, shape) for name, shape in names.items()}


def evad_name(name):
  """EVAD's name of a tensor of VideoMAE."""
  bare = name.removeprefix('encoder.')
  return bare if bare != name else f'det_head.{name}'


def parameters(model):
  """The same in our tree."""
  tensors = published_tensors(model)
  return weight_names.to_parameters({evad_name(name): t for name, t in tensors.items()})


def grey_clips(batch, clip=CLIP, seed=0):
  """uint8 (B, T, H, W, 3): blocks and noise."""
  made = [golden_rule.make_clip(seed + i, *clip).transpose(1, 2, 3, 0) for i in range(batch)]
  return np.clip(np.round(128 + 25 * np.stack(made)), 0, 255).astype(np.uint8)
