"""Files in published layouts, with weights of the micro model or of the golden rule."""

import re
from pathlib import Path

import numpy as np
import pytest

from evad_jax.published import weight_names
from tests import golden_rule, micro_evad

NO_SAFETENSORS = 'safetensors is not installed: python -m pip install -r requirements-test.txt'
NO_TORCH = 'PyTorch is not installed: python -m pip install -r requirements-torch.txt'
KEPT = {'keep_rate': 0.7, 'enhanced_weight': 1.0, 'roi_extension': (0.4, 0.2)}
# Settings that the shapes of the micro model do not determine.
UNTOLD = {
  key: micro_evad.MODEL[key]
  for key in ('num_heads', 'prune_blocks', 'feature_blocks', 'detector_heads', 'decoder_heads')
} | {'pretrain_size': 32}
ENCODER = r'(patch_embed|blocks|norm)\..*'


def flags(settings):
  """Settings -> flags of the converter."""
  return [part for key, value in settings.items() for part in ('--setting', f'{key}={value}')]


def detector(seed=0, **changes):
  """Published names -> tensors of a micro detector."""
  params = micro_evad.random_parameters(micro_evad.micro_model(**changes), seed)
  tensors = weight_names.to_published(params, patch=8)
  tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
  return tensors | weight_names.NOT_PARAMETERS


def golden(size):
  """The same of a golden model: 'tiny', 'B' or 'L'."""
  shapes = golden_rule.published_shapes(size)
  return {name: golden_rule.make_weight(name, shape) for name, shape in shapes.items()}


def encoder(prefix='', seed=0, **changes):
  """A VideoMAE encoder with its norm."""
  return {prefix + n: t for n, t in detector(seed, **changes).items() if re.fullmatch(ENCODER, n)}


def pretraining(prefix='encoder.', seed=0, **changes):
  """A VideoMAE encoder with the decoder of pre-training."""
  found = detector(seed, **changes)
  held = r'det_head\.(mask_token|encoder_to_decoder\..*|decoder\.blocks\.\d+\.(norm|attn|mlp).*)'
  decoder = {n.removeprefix('det_head.'): t for n, t in found.items() if re.fullmatch(held, n)}
  width = decoder['mask_token'].shape[-1]
  rest = {
    'decoder.norm.weight': np.ones(width, np.float32),
    'decoder.norm.bias': np.zeros(width, np.float32),
    'decoder.head.weight': np.ones((384, width), np.float32),  # 2 * 8 * 8 * 3
    'decoder.head.bias': np.zeros(384, np.float32),
  }
  return encoder(prefix, seed, **changes) | decoder | rest


def classifier(prefix='', seed=0):
  """A VideoMAE encoder as fine-tuned on classes: another norm, and a head."""
  found = encoder(prefix, seed)
  for leaf in ('weight', 'bias'):
    found[f'{prefix}fc_norm.{leaf}'] = found.pop(f'{prefix}norm.{leaf}')
  return found | {
    f'{prefix}head.weight': np.ones((7, 32), np.float32),
    f'{prefix}head.bias': np.zeros(7, np.float32),
  }


def write(path: Path, tensors, cfg='', container='model_state', more=None):
  """Writes .safetensors, or .pth with torch; skips the test where the package is missing."""
  if path.suffix == '.safetensors':
    package = pytest.importorskip('safetensors.numpy', reason=NO_SAFETENSORS)
    package.save_file(tensors, path, metadata={'cfg': cfg} if cfg else None)
    return path
  torch = pytest.importorskip('torch', reason=NO_TORCH)
  content = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
  content = {container: content, 'epoch': 3} if container else content
  torch.save(content | ({'cfg': cfg} if cfg else {}) | (more or {}), path)
  return path
