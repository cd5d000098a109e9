"""Known answers: a digest of the outputs of a converted model on a generated clip.

They are stored once, and show without any data whether another machine, another version or another
setting still computes the same model.
"""

import hashlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evad_jax.distributed.parameter_rules import by_path
from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD, normalize_clips
from evad_jax.model.layers import Dense
from evad_jax.model.token_pruning import Tokens
from evad_jax.model.vit import Block, Encoder

TOLERANCE = 1e-4  # of the largest value of an output; float32 on other devices stays below 2e-5
SLOTS = 8  # time steps of the grid
ENTRIES = 32  # values of an output that are kept, evenly spaced

Answers = dict[str, dict[str, Any]]


def answers(kind: str, settings: dict[str, Any], params: Any) -> Answers:
  """The digest of every output of a detector, or of the parts that a source has of one.

  kind: 'detector', or another of architectures.KINDS. settings: of the model. params: its
  parameters, or only those of the encoder (and decoder). Raises InputError for non-finite outputs.
  """
  patch, tubelet = settings['patch'], settings['tubelet']
  clips, sizes = generated_clip(SLOTS * tubelet, patch)
  with jax.default_matmul_precision('highest'):
    if kind == 'detector':
      model = EVAD(**settings | {'dtype': jnp.float32, 'remat': False})
      run = _run_detector
    else:
      model = PartOfDetector(**settings)
      params = _with_norm(params, settings['width'])
      run = _run_part
    outputs = jax.device_get(jax.jit(run, static_argnums=0)(model, params, clips, sizes))
  wrong = [name for name, x in outputs.items() if not np.isfinite(x).all()]
  if wrong:
    raise InputError(
      f'The model computes non-finite values in {", ".join(wrong)} from a generated '
      'clip: its parameters are not usable; get the file again.'
    )
  return {name: _digest(x) for name, x in outputs.items()}


def parameters_hash(params: Any) -> str:
  """sha256 over paths, shapes and values of all parameters, in hexadecimal digits."""
  digest = hashlib.sha256()
  for path, array in by_path(params).items():
    array = np.ascontiguousarray(array, np.float32)
    digest.update(f'{path} {array.shape}\n'.encode())
    digest.update(array)
  return digest.hexdigest()


def errors(known: Answers, found: Answers) -> dict[str, float]:
  """Per output: the largest difference of its digests, relative to its largest value.

  Infinite where an output is missing, or has another shape or form.
  """
  result = {}
  for name in sorted(known.keys() | found.keys()):
    ours, theirs = found.get(name), known.get(name)
    if not (ours and theirs and _same_form(ours, theirs)) or ours['shape'] != theirs['shape']:
      result[name] = float('inf')
      continue
    ours, theirs = _numbers(ours), _numbers(theirs)
    result[name] = float(np.abs(ours - theirs).max() / (theirs[2] or 1))
  return result


def _same_form(ours: dict, theirs: dict) -> bool:
  return {key: np.shape(x) for key, x in ours.items()} == {
    key: np.shape(x) for key, x in theirs.items()
  }


def generated_clip(frames: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
  """uint8 (1, T, 4*patch, 6*patch, 3) with a smaller picture in it, and its size (1, 2).

  NumPy's legacy generator is used because its numbers are guaranteed never to change.
  """
  random = np.random.RandomState(0)
  coarse = random.randint(0, 256, (frames // 4 + 1, 4, 6, 3)).repeat(4, 0)[:frames]
  fine = random.randint(-40, 41, (frames, 4 * patch, 6 * patch, 3))
  clip = coarse.repeat(patch, 1).repeat(patch, 2) + fine
  size = np.array([[4 * patch - patch // 2, 5 * patch]], np.int32)
  return np.clip(clip, 0, 255).astype(np.uint8)[None], size


class PartOfDetector(nn.Module):
  """The encoder, and the blocks of the decoder on its tokens if there are any."""

  width: int
  depth: int
  num_heads: int
  patch: int
  tubelet: int
  pretrain_size: int
  decoder_width: int = 0
  decoder_depth: int = 0
  decoder_heads: int = 1

  @nn.compact
  def __call__(self, clips: jax.Array) -> dict[str, jax.Array]:
    """(B, T, H, W, 3), normalised -> tokens (B, N, D), after the norm and after the decoder."""
    grid = self.pretrain_size // self.patch
    tokens, maps = Encoder(
      width=self.width,
      depth=self.depth,
      num_heads=self.num_heads,
      tubelet=self.tubelet,
      patch=self.patch,
      pretrain_grid=(grid, grid),
      keep_rates=(1.0,) * self.depth,
      enhanced_weight=1.0,
      feature_blocks=(self.depth - 1,),
      drop_path=0.0,
      remat=False,
      name='encoder',
    )(clips, None, train=False)
    outputs = {'last_block': maps[0], 'encoder': tokens.x}
    if self.decoder_depth:
      outputs['decoder'] = _Decoder(
        self.decoder_width, self.decoder_depth, self.decoder_heads, name='context_refinement'
      )(tokens)
    return outputs


class _Decoder(nn.Module):
  width: int
  depth: int
  num_heads: int

  @nn.compact
  def __call__(self, tokens: Tokens) -> jax.Array:
    x = Dense(self.width, use_bias=False, name='projection')(tokens.x)
    x += self.param('mask_token', nn.initializers.zeros, (self.width,))[None, None]
    tokens = tokens._replace(x=x)
    for i in range(self.depth):
      tokens = Block(self.num_heads, name=f'block_{i}')(tokens, train=False)
    return tokens.x


def _run_detector(
  model: EVAD, params: Any, clips: jax.Array, sizes: jax.Array
) -> dict[str, jax.Array]:
  outputs = model.apply({'params': params}, normalize_clips(clips, sizes), sizes, train=False)
  return outputs._asdict()


def _run_part(
  model: PartOfDetector, params: Any, clips: jax.Array, sizes: jax.Array
) -> dict[str, jax.Array]:
  return model.apply({'params': params}, normalize_clips(clips, sizes))


def _with_norm(params: Any, width: int) -> Any:
  """Adds a norm that only normalises where there is none, as in fine-tuned encoders."""
  norm = {'scale': np.ones(width, np.float32), 'bias': np.zeros(width, np.float32)}
  return params | {'encoder': {'norm': norm} | params['encoder']}


def _digest(x: np.ndarray) -> dict[str, Any]:
  flat = x.astype(np.float64).ravel()
  places = np.linspace(0, flat.size - 1, ENTRIES).round().astype(int)
  return {
    'shape': list(x.shape),
    'mean': float(flat.mean()),
    'std': float(flat.std()),
    'max': float(np.abs(flat).max()),
    'entries': flat[places].tolist(),
  }


def _numbers(digest: dict[str, Any]) -> np.ndarray:
  return np.array([digest['mean'], digest['std'], digest['max'], *digest['entries']])
