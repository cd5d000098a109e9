"""The cost of a model against the published numbers, and against the products in its program."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from evad_jax.cost.measured_cost import compilers_count
from evad_jax.errors import InputError
from evad_jax.model import start_values
from evad_jax.model.evad import EVAD
from evad_jax.model.masked_autoencoder import MaskedAutoencoder
from evad_jax.model.masking import Places, count
from evad_jax.model.multiply_adds import (
  count_tokens,
  multiply_adds,
  pretraining_multiply_adds,
  roi_multiply_adds,
)
from tests import micro_pretraining
from tests.micro_evad import micro_model

VIT_L = {
  'width': 1024,
  'depth': 24,
  'num_heads': 16,
  'prune_blocks': (6, 12, 18),
  'feature_blocks': (5, 11, 17, 23),
  'decoder_width': 512,
  'decoder_depth': 12,
  'decoder_heads': 8,
}


def products_of(jaxpr):
  """Multiply-adds of all matrix products and convolutions of a program, loops unrolled."""
  total = 0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    out = [v.aval.shape for v in equation.outvars]
    if name == 'dot_general':
      shape = equation.invars[0].aval.shape
      total += math.prod(out[0]) * math.prod(shape[i] for i in params['dimension_numbers'][0][0])
    elif name == 'conv_general_dilated':
      kernel = equation.invars[1].aval.shape
      outputs = kernel[params['dimension_numbers'].rhs_spec[0]]
      total += math.prod(out[0]) * math.prod(kernel) // outputs
    times = params.get('length', 1) if name == 'scan' else 1
    for inner in jaxprs_in_params(params):
      total += times * products_of(inner)
  return total


def program(model, frames, canvas):
  clips = jax.ShapeDtypeStruct((1, frames, *canvas, 3), jnp.float32)
  sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  params = {'params': start_values.abstract_params(model)}
  return jax.make_jaxpr(functools.partial(model.apply, train=False))(params, clips, sizes).jaxpr


@pytest.mark.parametrize(
  'settings, keep_rate, wanted',
  [({}, 1.0, 424.67), ({}, 0.7, 243.04), ({}, 0.6, 209.17), (VIT_L, 0.7, 737.94)],
)
def test_published_figures(settings, keep_rate, wanted):
  found = multiply_adds(EVAD(keep_rate=keep_rate, **settings), 16, (288, 288))
  assert sum(found.values()) / 1e9 == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(
  'model, frames, canvas',
  [
    (micro_model(keep_rate=1.0), 8, (32, 32)),
    (micro_model(keep_rate=(0.8, 0.6)), 8, (48, 64)),
    (EVAD(keep_rate=0.7), 16, (288, 512)),
    pytest.param(EVAD(keep_rate=0.7, **VIT_L), 16, (288, 288), marks=pytest.mark.slow),
  ],
)
def test_equals_the_products_of_the_program(model, frames, canvas):
  parts = multiply_adds(model.clone(attention='plain'), frames, canvas, published=False)
  importance = 0  # one row times a matrix, in every block that prunes
  tokens = count_tokens(model, frames, canvas)
  for n, rate in zip(tokens.entering, model.block_keep_rates(), strict=True):
    importance += model.num_heads * n**2 * (rate != 1)
  ours = sum(parts.values()) + roi_multiply_adds(model, tokens) + importance
  assert products_of(program(model.clone(attention='plain'), frames, canvas)) == ours


def test_near_what_the_compiler_counts():
  model, canvas = EVAD(keep_rate=0.7), (288, 288)
  ours = sum(multiply_adds(model, 16, canvas, published=False).values())
  roi = roi_multiply_adds(model, count_tokens(model, 16, canvas)) / 8  # its loop is counted once
  assert compilers_count(model, 16, canvas) / (ours + roi) == pytest.approx(1, abs=0.02)


def test_tokens_of_the_published_model():
  tokens = count_tokens(EVAD(keep_rate=0.7), 16, (288, 288))
  assert tokens.stages == (2592, 1815, 1271, 890)
  assert tokens.entering == (2592,) * 4 + (1815,) * 3 + (1271,) * 3 + (890,) * 2


def test_a_canvas_that_does_not_divide_is_an_error():
  with pytest.raises(InputError, match='300x288 .* multiples of 32'):
    count_tokens(EVAD(), 16, (300, 288))


PUBLISHED_CLIP = (16, 224, 224)
SMALL = {'width': 384, 'num_heads': 6, 'decoder_width': 192, 'decoder_heads': 3}
LARGE = {key: VIT_L[key] for key in ('width', 'depth', 'num_heads')}
LARGE |= {key: VIT_L[key] for key in VIT_L if key.startswith('decoder')}


@pytest.mark.parametrize(
  'settings, ratio, decoder_mask, encoder, decoder, total',
  [
    ({}, 0.9, 'none', 14.1, 18.7, 35.4),
    ({}, 0.75, 'none', 36.1, 18.7, 57.4),
    ({}, 0.9, 'running_cell', 14.1, 9.4, 25.8),
    ({'decoder_depth': 6}, 0.9, 'none', 14.1, 28.0, 44.8),
    (SMALL, 0.9, 'none', 3.6, 6.6, 11.5),
    (LARGE, 0.9, 'none', 49.6, 89.4, 142.6),
    (LARGE | {'decoder_depth': 4}, 0.9, 'running_cell', 49.6, 15.5, 68.3),
  ],
)
def test_pre_training_of_published_sizes(settings, ratio, decoder_mask, encoder, decoder, total):
  model = MaskedAutoencoder(**settings)
  found = pretraining_multiply_adds(model, PUBLISHED_CLIP, ratio, decoder_mask)
  assert found['encoder'] / 1e9 == pytest.approx(encoder, abs=0.05)
  assert found['decoder'] / 1e9 == pytest.approx(decoder, abs=0.05)
  assert sum(found.values()) / 1e9 == pytest.approx(total, abs=0.05)


def test_the_unmasked_encoder_costs_thirteen_times_as_much():
  whole = multiply_adds(EVAD(keep_rate=1.0), 16, (224, 224))
  whole = whole['tubelets'] + whole['encoder']
  assert whole / 1e9 == pytest.approx(180.3, abs=0.05)
  ours = pretraining_multiply_adds(MaskedAutoencoder(), PUBLISHED_CLIP, 0.9, published=False)
  assert ours['encoder'] / 1e9 == pytest.approx(14.1, abs=0.05)
  assert whole / (ours['tubelets'] + ours['encoder']) == pytest.approx(12.65, abs=0.01)


@pytest.mark.parametrize(
  'model, clip, ratio, decoder_mask',
  [
    (micro_pretraining.micro_model(), micro_pretraining.CLIP, 0.75, 'none'),
    (micro_pretraining.micro_model(), (8, 24, 16), 0.75, 'running_cell'),
    (MaskedAutoencoder(), PUBLISHED_CLIP, 0.9, 'none'),
    (MaskedAutoencoder(), PUBLISHED_CLIP, 0.9, 'running_cell'),
  ],
)
def test_pre_training_equals_the_products_of_its_program(model, clip, ratio, decoder_mask):
  model = model.clone(attention='plain')
  grid = (clip[0] // model.tubelet, clip[1] // model.patch, clip[2] // model.patch)
  places = (jax.ShapeDtypeStruct((1, n), jnp.int32) for n in count(grid, ratio, decoder_mask))
  params = {'params': start_values.abstract_params(model)}
  clips = jax.ShapeDtypeStruct((1, *clip, 3), jnp.float32)
  program = jax.make_jaxpr(model.apply)(params, clips, Places(*places)).jaxpr
  parts = pretraining_multiply_adds(model, clip, ratio, decoder_mask, published=False)
  assert products_of(program) == sum(parts.values())
