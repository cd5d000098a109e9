"""VideoMAE's pre-training by Hugging Face's transformers, and how far ours is from it.

  python -m tests.videomae_oracle micro --write tests/golden/videomae_micro.npz
  python -m tests.videomae_oracle B

Needs PyTorch and transformers 4: version 5 has dropped the biases of published files. Weights are
those of the golden rule. Error = max |ours - theirs| / max |theirs|.
"""

import argparse
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from evad_jax.model import masking, tubelet_pixels
from evad_jax.model.masked_autoencoder import DEVIATION, MEAN, MaskedAutoencoder
from evad_jax.published import weight_names
from evad_jax.training import pretraining_loss
from tests import micro_pretraining
from tests.micro_pretraining import evad_name, grey_clips, published_tensors

SIZES = {  # model, T H W, mask ratio
  'micro': (micro_pretraining.micro_model(), micro_pretraining.CLIP, micro_pretraining.RATIO),
  'B': (MaskedAutoencoder(), (16, 224, 224), 0.9),
}
# Names of VideoMAE and of transformers.
NAMES = [
  (r'^encoder\.patch_embed\.proj\.', 'videomae.embeddings.patch_embeddings.projection.'),
  (r'^encoder\.blocks\.', 'videomae.encoder.layer.'),
  (r'^encoder\.norm\.', 'videomae.layernorm.'),
  (r'^decoder\.blocks\.', 'decoder.decoder_layers.'),
  (r'\.attn\.([qv]_bias)$', r'.attention.attention.\1'),
  (r'\.attn\.proj\.', '.attention.output.dense.'),
  (r'\.norm1\.', '.layernorm_before.'),
  (r'\.norm2\.', '.layernorm_after.'),
  (r'\.mlp\.fc1\.', '.intermediate.dense.'),
  (r'\.mlp\.fc2\.', '.output.dense.'),
]
PARTS = ('query', 'key', 'value')


def their_names(name):
  """The names of transformers that a tensor of VideoMAE is stored under: three for a qkv."""
  if name.endswith('.attn.qkv.weight'):
    stem = their_names(name.replace('.qkv.weight', '.q_bias'))[0].removesuffix('q_bias')
    return [f'{stem}{part}.weight' for part in PARTS]
  for pattern, other in NAMES:
    name = re.sub(pattern, other, name)
  return [name]


def theirs(model, clip, tensors, clips, places, dtype):
  """Logits, loss and the gradient of every tensor by VideoMAE's name, as NumPy arrays."""
  import torch
  from transformers import VideoMAEConfig, VideoMAEForPreTraining, __version__

  assert __version__.startswith('4.'), 'transformers 5 does not read q_bias and v_bias'
  config = VideoMAEConfig(
    image_size=clip[1],
    patch_size=model.patch,
    num_frames=clip[0],
    tubelet_size=model.tubelet,
    hidden_size=model.width,
    num_hidden_layers=model.depth,
    num_attention_heads=model.num_heads,
    intermediate_size=4 * model.width,
    layer_norm_eps=1e-6,
    use_mean_pooling=False,
    decoder_hidden_size=model.decoder_width,
    decoder_num_hidden_layers=model.decoder_depth,
    decoder_num_attention_heads=model.decoder_heads,
    decoder_intermediate_size=4 * model.decoder_width,
  )
  network = VideoMAEForPreTraining(config)
  network.decoder.norm.eps = 1e-6  # 1e-5 whatever the configuration says
  state = {}
  for name, tensor in tensors.items():
    names = their_names(name)
    for other, part in zip(names, np.split(tensor, len(names)), strict=True):
      state[other] = torch.from_numpy(np.ascontiguousarray(part))
  network.load_state_dict(state, strict=True)
  network = network.to(getattr(torch, dtype)).eval()
  pixels = (clips.astype(dtype) / 255 - np.array(MEAN, dtype)) / np.array(DEVIATION, dtype)
  mask = np.zeros((len(clips), places.visible.shape[1] + places.predicted.shape[1]), bool)
  np.put_along_axis(mask, places.predicted, True, axis=1)
  found = network(
    torch.from_numpy(pixels.astype(dtype).transpose(0, 1, 4, 2, 3).copy()),
    bool_masked_pos=torch.from_numpy(mask),
  )
  found.loss.backward()
  gradients = {name: p.grad.numpy() for name, p in network.named_parameters()}
  return {
    'logits': found.logits.detach().numpy(),
    'loss': found.loss.detach().numpy(),
    'gradients': {n: np.concatenate([gradients[o] for o in their_names(n)]) for n in tensors},
  }


def ours(model, tensors, clips, places, dtype):
  """The same of our model."""
  with jax.enable_x64(dtype == 'float64'), jax.default_matmul_precision('highest'):
    model = model.clone(dtype=jnp.dtype(dtype))
    params = weight_names.to_parameters({evad_name(n): t for n, t in tensors.items()})
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)

    @jax.jit
    def run(params, clips, places):
      normal = pretraining_loss.normalize_by_channel(clips, model.dtype)
      logits = model.apply({'params': params}, normal, places).pixels
      gradient = jax.value_and_grad(pretraining_loss.terms_at, has_aux=True)
      (loss, _), gradients = gradient(params, clips, places, None, model=model)
      return logits, loss, gradients

    logits, loss, gradients = jax.device_get(run(params, jnp.asarray(clips), places))
  named = weight_names.to_published(gradients, model.patch)
  return {
    'logits': logits,
    'loss': loss,
    'gradients': {name: named[evad_name(name)] for name in tensors},
  }


def digest(gradients):
  """Two numbers of every gradient: its length, and its product with a random direction."""
  rows = []
  for name, gradient in gradients.items():
    direction = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(gradient.shape)
    rows.append((np.sqrt((gradient**2).sum()), (gradient * direction).sum()))
  return np.array(rows)


def error(found, wanted):
  """The largest difference, relative to the largest value."""
  return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def errors(found, wanted):
  """Those of logits and loss, and the largest among the gradients."""
  gradients = (error(found['gradients'][n], g) for n, g in wanted['gradients'].items())
  both = {key: error(found[key], wanted[key]) for key in ('logits', 'loss')}
  return both | {'gradients': max(gradients)}


def case(size, batch=2):
  """Model, T H W, tensors and clips of a case."""
  model, clip, _ = SIZES[size]
  return model, clip, published_tensors(model), grey_clips(batch, clip)


def drawn_places(size, batch=2):
  """Masks of a case, as NumPy arrays."""
  model, clip, ratio = SIZES[size]
  grid = tubelet_pixels.grid_of(clip, model.tubelet, model.patch)
  return jax.device_get(masking.draw(jax.random.key(0), batch, grid, ratio))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('size', choices=SIZES)
  parser.add_argument('--batch', type=int, default=2)
  parser.add_argument('--write', help='file for the numbers of transformers')
  args = parser.parse_args()
  model, clip, tensors, clips = case(args.size, args.batch)
  places = drawn_places(args.size, args.batch)
  kept = {
    'visible': places.visible.astype(np.int16),
    'predicted': places.predicted.astype(np.int16),
  }
  for dtype in ('float32', 'float64'):
    wanted = theirs(model, clip, tensors, clips, places, dtype)
    found = ours(model, tensors, clips, places, dtype)
    print(args.size, dtype, found['logits'].shape, float(wanted['loss']), errors(found, wanted))
    kept[f'{dtype}/logits'], kept[f'{dtype}/loss'] = wanted['logits'], wanted['loss']
    kept[f'{dtype}/gradients'] = digest(wanted['gradients'])
  if args.write:
    np.savez_compressed(args.write, **kept)


if __name__ == '__main__':
  main()
