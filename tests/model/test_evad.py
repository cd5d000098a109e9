"""The complete detector: padding, dtypes, recomputation, settings that do not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.distributed.parameter_rules import path_of
from evad_jax.errors import InputError
from evad_jax.model.evad import normalize_clips, pixel_mask
from evad_jax.model.vit import Encoder, keyframe_first
from tests.micro_evad import FRAMES, SIDE, micro_model, random_batch, random_parameters

MODEL = micro_model()
FULL = np.full((2, 2), SIDE, np.int32)
SMALLER = np.array([[32, 32], [20, 24]], np.int32)  # rows 24 to 31 of tokens are padding


class Forward:
  """The compiled model; counts how often it is traced."""

  def __init__(self, model):
    self.traces = 0

    @jax.jit
    def call(params, clips, sizes):
      self.traces += 1
      return model.apply({'params': params}, clips, sizes, train=False)

    self.call = call

  def __call__(self, *arguments):
    return jax.device_get(self.call(*arguments))


@pytest.fixture(scope='module')
def params():
  return random_parameters(MODEL)


@pytest.fixture(scope='module')
def forward():
  return Forward(MODEL)


@pytest.fixture(scope='module')
def clips():
  return np.random.default_rng(0).normal(size=(2, FRAMES, SIDE, SIDE, 3)).astype(np.float32)


def close(a, b, **tolerance):
  jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), a, b)


def test_noise_in_the_padding_never_changes_a_result(forward, params, clips):
  real = np.asarray(pixel_mask(SMALLER, SIDE, SIDE))[:, None, :, :, None]
  assert real[1].sum() == 20 * 24 and real[0].all()
  clean = forward(params, np.where(real, clips, 0), SMALLER)
  noisy = forward(params, np.where(real, clips, 1e3 * clips), SMALLER)
  close(clean, noisy, rtol=0, atol=0)
  # The last real pixel does matter, and only to its own clip.
  other = clips.copy()
  other[1, :, 19, 23] += 5
  changed = forward(params, other, SMALLER)
  assert np.abs(changed.action_logits[:, 1] - clean.action_logits[:, 1]).max() > 1e-4
  np.testing.assert_array_equal(changed.action_logits[:, 0], clean.action_logits[:, 0])


def test_one_compilation_for_all_clips_of_a_shape(forward, params, clips):
  for sizes in (FULL, SMALLER, FULL[::-1]):
    forward(params, clips * 0.5, sizes)
  assert forward.traces == 1


def test_masked_equals_released_on_a_full_canvas(forward, params, clips):
  released = Forward(micro_model(padding='released'))
  close(forward(params, clips, FULL), released(params, clips, FULL), rtol=1e-4, atol=1e-4)
  masked, not_masked = (f(params, clips, SMALLER) for f in (forward, released))
  assert np.abs(masked.action_logits[:, 1] - not_masked.action_logits[:, 1]).max() > 1e-3


def test_bfloat16_computation_keeps_parameters_logits_and_boxes_float32(forward, params, clips):
  model = micro_model(dtype=jnp.bfloat16)
  found = Forward(model)(params, clips, SMALLER)
  exact = forward(params, clips, SMALLER)
  initial = jax.eval_shape(
    lambda: model.init(jax.random.key(0), clips, jnp.asarray(FULL), train=False)
  )
  assert {x.dtype for x in jax.tree.leaves(initial)} == {jnp.float32.dtype}
  for ours, wanted in zip(found, exact, strict=True):
    assert ours.dtype == np.float32
    rounded = np.asarray(ours.astype(jnp.bfloat16).astype(np.float32))
    assert (rounded != ours).mean() > 0.5, 'was rounded to bfloat16 on the way'
    error = np.abs(ours - wanted).mean() / np.abs(wanted - wanted.mean()).mean()
    assert error < 0.25, error


def small_encoder(**changes):
  settings = {
    'width': 16,
    'depth': 2,
    'num_heads': 2,
    'tubelet': 2,
    'patch': 4,
    'pretrain_grid': (3, 3),
    'keep_rates': (0.6, 1.0),
    'enhanced_weight': 4.0,
    'feature_blocks': (0, 1),
    'drop_path': 0.0,
    'remat': False,
  }
  return Encoder(**(settings | changes))


@pytest.fixture(scope='module')
def encoder_case():
  """Clips of 3 x 3 tokens whose right column is padding, and weights for small_encoder."""
  rng = np.random.default_rng(0)
  clips = rng.normal(size=(1, FRAMES, 12, 12, 3)).astype(np.float32)
  mask = np.ones((1, 3, 3), bool)
  mask[:, :, 2] = False
  shapes = jax.eval_shape(
    lambda: small_encoder().init(jax.random.key(0), clips, mask.reshape(1, 9), train=False)
  )
  variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32) / 4, shapes)
  return variables, clips, mask


def test_encoder_gives_padding_tokens_no_attention_and_no_place(encoder_case):
  """Masked tokens do not affect the others, through attention or through pruning."""
  variables, clips, mask = encoder_case
  noisy = clips.copy()
  noisy[:, :, :, 8:] = 10 * np.random.default_rng(1).normal(size=noisy[:, :, :, 8:].shape)
  run = jax.jit(functools.partial(small_encoder().apply, train=False))
  (one, maps), (other, noisy_maps) = (run(variables, x, mask.reshape(1, 9)) for x in (clips, noisy))
  # ceil(0.6 * 36) - 9 = 13 of the 18 real others stay; no padding but the keyframe's three.
  assert one.x.shape[1] == 9 + 13
  np.testing.assert_array_equal(one.mask[0], [*mask.reshape(9), *[True] * 13])
  np.testing.assert_array_equal(one.places, other.places)
  real = np.asarray(one.mask)[0]
  np.testing.assert_array_equal(one.x[:, real], other.x[:, real])
  assert np.abs(one.x[:, ~real] - other.x[:, ~real]).max() > 0.1
  for ours, noisy_map in zip(maps, noisy_maps, strict=True):
    np.testing.assert_array_equal(ours[mask], noisy_map[mask])


def test_with_jit_as_without(encoder_case):
  variables, clips, mask = encoder_case
  call = functools.partial(small_encoder().apply, train=False)
  close(
    call(variables, clips, mask.reshape(1, 9)),
    jax.jit(call)(variables, clips, mask.reshape(1, 9)),
    rtol=1e-5,
    atol=1e-5,
  )


def test_recomputing_activations_changes_nothing(encoder_case):
  variables, clips, mask = encoder_case

  def run(remat):
    encoder = small_encoder(remat=remat, drop_path=0.4)

    def loss(variables):
      rngs = {'drop_path': jax.random.key(3)}
      tokens, maps = encoder.apply(variables, clips, mask.reshape(1, 9), train=True, rngs=rngs)
      return (tokens.x**3).mean() + sum((x**2).mean() for x in maps), tokens

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)

  (loss, tokens), gradient = run(remat=False)
  (again, tokens_again), gradient_again = run(remat=True)
  np.testing.assert_allclose(again, loss, rtol=1e-6)
  close(tokens_again, tokens, rtol=1e-5, atol=1e-6)
  close(gradient_again, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('remat, count', [(False, 0), (True, 5)])
def test_every_block_of_both_transformers_is_recomputed(params, clips, remat, count):
  model = micro_model(remat=remat)
  jaxpr = jax.make_jaxpr(lambda p: model.apply(p, clips, FULL, train=True))({'params': params})
  assert sum(e.primitive.name in ('checkpoint', 'remat2') for e in jaxpr.eqns) == count


def test_keyframe_stands_first():
  x = np.arange(2 * 4 * 3).reshape(2, 4, 3)  # (B, t, S); the keyframe is slot 2
  wanted = [6, 7, 8, 0, 1, 2, 3, 4, 5, 9, 10, 11]
  np.testing.assert_array_equal(keyframe_first(jnp.asarray(x)), [wanted, np.add(wanted, 12)])


def test_clips_are_normalised_and_zero_outside_the_picture():
  batch = random_batch(2)
  found = np.asarray(normalize_clips(batch.clips, batch.sizes))
  height, width = batch.sizes[0]
  assert (height, width) == (24, 20)
  inside = (batch.clips[0, :, :height, :width].astype(float) / 255 - 0.45) / 0.225
  np.testing.assert_allclose(found[0, :, :height, :width], inside, atol=1e-6)
  assert not found[0, :, height:].any() and not found[0, :, :, width:].any()


def build(**changes):
  clips, sizes = jnp.zeros((1, FRAMES, SIDE, SIDE, 3)), jnp.full((1, 2), SIDE)
  model = micro_model(**changes)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), clips, sizes, train=False))


@pytest.mark.parametrize('init', ['image', 'grid'])
def test_every_start_of_the_proposals_builds_the_same_parameters(init, params):
  ours = jax.tree_util.tree_leaves_with_path(build(proposal_init=init)['params'])
  wanted = jax.tree_util.tree_leaves_with_path(params)
  assert {path_of(p): x.shape for p, x in ours} == {path_of(p): x.shape for p, x in wanted}


@pytest.mark.parametrize(
  'changes, sentence',
  [
    ({'keep_rate': 0.2}, 'keep rate of 0.2 at block 1 .* smallest rate there is 0.25'),
    ({'keep_rate': (0.5, 0.4)}, 'keep rate of 0.4 at block 2 .* smallest rate there is 0.5'),
    ({'keep_rate': 1.5}, 'keep rate of block 1 is 1.5'),
    ({'keep_rate': (0.7,)}, 'has 1 rates for 2 prune_blocks'),
    ({'prune_blocks': (1, 4)}, r'prune_blocks=\(1, 4\) must be distinct blocks from 0 to 3'),
    ({'prune_blocks': (2, 1)}, r'prune_blocks=\(2, 1\) .* in ascending order'),
    ({'feature_blocks': (0, 1, 3, 3)}, r'feature_blocks=\(0, 1, 3, 3\) must be distinct blocks'),
    ({'feature_blocks': (0, 1, 2)}, r'feature_blocks=\(0, 1, 2\) must be four blocks'),
    ({'padding': 'none'}, "padding='none' is not one of"),
    ({'token_restoring': 'x'}, "token_restoring='x' is not one of"),
    ({'proposal_init': 'x'}, r"proposal_init='x' is not one of \['grid', 'image'\]"),
    ({'patch': 12}, 'A clip of 8 x 32 x 32 .* does not divide into'),
    ({'tubelet': 3}, 'does not divide into an even number of tubelets of 3 x 8 x 8'),
    ({'num_heads': 3}, 'num_heads=3 must divide the width, 32'),
  ],
)
def test_settings_that_do_not_fit_are_one_sentence(changes, sentence):
  with pytest.raises(InputError, match=sentence):
    build(**changes)
