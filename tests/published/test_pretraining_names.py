"""The tensors of VideoMAE's pre-training, complete, both ways."""

import math

import numpy as np
import pytest

from evad_jax.distributed.parameter_rules import by_path
from evad_jax.errors import InputError
from evad_jax.model import sizes, start_values
from evad_jax.model.masked_autoencoder import MaskedAutoencoder
from evad_jax.published import architectures, weight_files, weight_names
from evad_jax.published.weight_files import Source
from tests import published_sources
from tests.micro_pretraining import SETTINGS, micro_model, parameters, published_tensors


def block(width):
  """Names and shapes of a published block, without its prefix."""
  hidden = 4 * width
  return {
    'norm1.weight': (width,),
    'norm1.bias': (width,),
    'attn.q_bias': (width,),
    'attn.v_bias': (width,),
    'attn.qkv.weight': (3 * width, width),
    'attn.proj.weight': (width, width),
    'attn.proj.bias': (width,),
    'norm2.weight': (width,),
    'norm2.bias': (width,),
    'mlp.fc1.weight': (hidden, width),
    'mlp.fc1.bias': (hidden,),
    'mlp.fc2.weight': (width, hidden),
    'mlp.fc2.bias': (width,),
  }


def published(width, depth, narrow, decoder_depth):
  """Names and shapes of a whole file."""
  found = {
    'mask_token': (1, 1, narrow),
    'encoder.patch_embed.proj.weight': (width, 3, 2, 16, 16),
    'encoder.patch_embed.proj.bias': (width,),
    'encoder.norm.weight': (width,),
    'encoder.norm.bias': (width,),
    'encoder_to_decoder.weight': (narrow, width),
    'decoder.norm.weight': (narrow,),
    'decoder.norm.bias': (narrow,),
    'decoder.head.weight': (1536, narrow),
    'decoder.head.bias': (1536,),
  }
  for part, count, size in (('encoder', depth, width), ('decoder', decoder_depth, narrow)):
    for i in range(count):
      found |= {f'{part}.blocks.{i}.{name}': shape for name, shape in block(size).items()}
  return found


@pytest.mark.parametrize(
  'size, decoder_depth, arrays, millions',
  [
    (sizes.VIT_B, 4, 218, 94.2),
    pytest.param(sizes.VIT_L, 12, 478, 343.0, marks=pytest.mark.slow),
  ],
)
def test_names_and_shapes_of_published_sizes(size, decoder_depth, arrays, millions):
  keys = ('width', 'depth', 'num_heads', 'decoder_width', 'decoder_heads')
  model = MaskedAutoencoder(**{key: size[key] for key in keys}, decoder_depth=decoder_depth)
  params = start_values.abstract_params(model)
  hollow = {p: np.broadcast_to(np.float32(0), x.shape) for p, x in by_path(params).items()}
  tensors = weight_names.to_published(hollow, 16)
  found = {architectures.to_videomae_name(name, 'encoder.'): x.shape for name, x in tensors.items()}
  assert found == published(size['width'], size['depth'], size['decoder_width'], decoder_depth)
  assert len(found) == arrays
  assert sum(map(math.prod, found.values())) / 1e6 == pytest.approx(millions, abs=0.05)


def source(tensors):
  return Source('x', tensors, 'model', '', '')


GIVEN = {'num_heads': 3, 'decoder_heads': 2, 'pretrain_size': 16}


def test_a_file_comes_back_bit_for_bit():
  tensors = published_tensors(micro_model())
  assert architectures.recognise(source(tensors)) == 'pretraining'
  found = architectures.understand(source(tensors), 'pretraining', GIVEN)
  assert found.settings == SETTINGS | {'tubelet': 2} and not found.left_over
  ours = by_path(start_values.abstract_params(micro_model()))
  assert {path: x.shape for path, x in by_path(found.params).items()} == {
    path: x.shape for path, x in ours.items()
  }
  for path, x in by_path(parameters(micro_model())).items():
    np.testing.assert_array_equal(by_path(found.params)[path], x)
  back = architectures.tensors_of('x', 'pretraining', found.settings, found.params)
  back = {architectures.to_videomae_name(n, found.prefix): t for n, t in back.items()}
  assert set(back) == set(tensors)
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_the_pixel_head_is_there_or_not_but_whole():
  tensors = published_tensors(micro_model())
  head = [n for n in tensors if n.startswith(('decoder.norm', 'decoder.head'))]
  without = {n: t for n, t in tensors.items() if n not in head}
  found = architectures.understand(source(without), 'pretraining', GIVEN)
  assert sorted(found.params['context_refinement']) == [
    'block_0', 'block_1', 'mask_token', 'projection',
  ]  # fmt: skip
  part = {n: t for n, t in tensors.items() if n != 'decoder.head.bias'}
  with pytest.raises(InputError, match='1 missing: det_head.decoder.head.bias'):
    architectures.understand(source(part), 'pretraining', GIVEN)


def test_other_decoders_of_pixels_are_errors():
  tensors = published_tensors(micro_model())
  tensors['decoder.head.weight'] = np.zeros((1536, 24), np.float32)
  tensors['decoder.extra.weight'] = np.zeros(3, np.float32)
  with pytest.raises(InputError) as error:
    architectures.understand(source(tensors), 'pretraining', GIVEN)
  assert '1 left over: decoder.extra.weight' in str(error.value)
  assert 'decoder.head.weight is (1536, 24) instead of (96, 24)' in str(error.value)


def test_names_of_compiled_models_lose_their_prefix(tmp_path):
  tensors = published_tensors(micro_model())
  compiled = {f'_orig_mod.{name}': tensor for name, tensor in tensors.items()}
  read = weight_files.read(published_sources.write(tmp_path / 'x.safetensors', compiled))
  assert set(read.tensors) == set(tensors)
