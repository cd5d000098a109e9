"""Targets against a loop, and the loss: what counts, what adds up, what stays finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evad_jax.errors import InputError
from evad_jax.model import masking
from evad_jax.model.masked_autoencoder import Predictions
from evad_jax.training import pretraining_loss
from tests.micro_pretraining import GRID, RATIO, grey_clips, micro_model, parameters

KEY = jax.random.key(5)


@functools.cache
def compiled(decoder_mask='none', **changes):
  """params, clips, key, mask, count -> ((loss, terms), gradients)."""
  model = micro_model(**changes)
  terms = functools.partial(
    pretraining_loss.pretraining_loss_terms,
    model=model,
    mask_ratio=RATIO,
    decoder_mask=decoder_mask,
  )

  def run(params, clips, key, example_mask, count=None):
    return terms(params, clips, key, example_mask, count=count)

  return jax.jit(jax.value_and_grad(run, has_aux=True)), parameters(model)


@pytest.mark.parametrize('standardised', [True, False])
def test_targets_against_a_loop(standardised):
  clips = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 9, 3), np.uint8)
  places = np.array([[11, 0, 4], [3, 7, 8]])
  found = pretraining_loss.pixel_targets(
    clips, places, tubelet=2, patch=3, standardised=standardised
  )
  assert found.shape == (2, 3, 54) and found.dtype == np.float32
  for clip, m in np.ndindex(2, 3):
    t, y, x = np.unravel_index(places[clip, m], (2, 2, 3))
    tubelet = clips[clip, 2 * t : 2 * t + 2, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3] / 255
    if standardised:
      pixels = tubelet.reshape(-1, 3)
      spread = np.sqrt(((pixels - pixels.mean(0)) ** 2).sum(0) / (len(pixels) - 1))
      tubelet = (tubelet - pixels.mean(0)) / (spread + 1e-6)
    np.testing.assert_allclose(found[clip, m], tubelet.ravel(), atol=2e-6)


def test_the_loss_of_predicting_zero_is_511_of_512():
  clips = np.random.default_rng(1).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
  model = micro_model(patch=16, pretrain_size=32, depth=1, decoder_depth=1)
  params = jax.tree.map(jnp.zeros_like, parameters(model))
  loss, terms = pretraining_loss.pretraining_loss_terms(
    params, clips, KEY, None, model=model, mask_ratio=0.75
  )
  assert loss == pytest.approx(511 / 512, rel=2e-5)
  assert terms.error == loss and terms.of_zero == pytest.approx(511 / 512, rel=2e-5)


@pytest.mark.parametrize('decoder_mask', masking.DECODER_MASKS)
def test_the_loss_is_the_mean_over_what_is_predicted(decoder_mask):
  run, params = compiled(decoder_mask)
  clips = grey_clips(3)
  (loss, terms), _ = run(params, clips, KEY, None)
  places = masking.draw(KEY, 3, GRID, RATIO, decoder_mask)
  assert places.predicted.shape == (3, 48 if decoder_mask == 'none' else 24)
  model = micro_model()
  normal = pretraining_loss.normalize_by_channel(clips)
  predicted = model.apply({'params': params}, normal, places).pixels
  targets = pretraining_loss.pixel_targets(clips, places.predicted, tubelet=2, patch=4)
  assert loss == pytest.approx(np.mean((predicted - targets) ** 2), rel=1e-5)
  assert terms.of_zero == pytest.approx(np.mean(targets**2), rel=1e-5)


def test_a_hidden_pixel_changes_the_target_alone():
  run, params = compiled()
  clips = grey_clips(1)
  (before, _), _ = run(params, clips, KEY, None)
  place = int(masking.draw(KEY, 1, GRID, RATIO).predicted[0, 0])
  t, y, x = np.unravel_index(place, GRID)
  clips[0, 2 * t, 4 * y, 4 * x] ^= 128
  (after, _), _ = run(params, clips, KEY, None)
  model = micro_model()
  places = masking.draw(KEY, 1, GRID, RATIO)
  normal = pretraining_loss.normalize_by_channel(clips)
  predicted = model.apply({'params': params}, normal, places).pixels
  targets = [
    pretraining_loss.pixel_targets(c, places.predicted, tubelet=2, patch=4)
    for c in (grey_clips(1), clips)
  ]
  old, new = (np.mean((predicted - target) ** 2) for target in targets)
  assert after - before == pytest.approx(new - old, abs=2e-6) and abs(new - old) > 1e-5


def test_clips_that_do_not_count_change_nothing():
  run, params = compiled()
  clips = grey_clips(4)
  mask = jnp.array([True, True, False, False])
  wanted, gradients = run(params, clips, KEY, mask)
  clips[2:] = 7
  found, others = run(params, clips, KEY, mask)
  jax.tree.map(np.testing.assert_array_equal, (found, gradients), (wanted, others))
  (alone, _), _ = run(params, clips[:2], KEY, None)
  assert found[0] == pytest.approx(float(alone), rel=1e-6)
  (none, terms), gradients = run(params, clips, KEY, jnp.zeros(4, bool))
  assert none == terms.of_zero == 0
  assert not any(np.any(x) for x in jax.tree.leaves(gradients))


def test_microbatches_add_up():
  run, params = compiled()
  clips, mask = grey_clips(4), jnp.array([True, False, True, True])
  keys = jax.random.split(KEY, 2)
  parts = [run(params, clips[i : i + 2], keys[i // 2], mask[i : i + 2], 3) for i in (0, 2)]
  alone = [run(params, clips[i : i + 2], keys[i // 2], mask[i : i + 2]) for i in (0, 2)]
  both = jax.tree.map(lambda a, b: a + b, *parts)
  wanted = jax.tree.map(lambda a, b: (a + 2 * b) / 3, *alone)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), both, wanted)


@pytest.mark.parametrize('changes', [{}, {'remat': True, 'dtype': jnp.bfloat16}])
def test_gradients_are_finite_and_of_every_parameter(changes):
  run, params = compiled('running_cell', **changes)
  for clips in (grey_clips(2), np.zeros((2, 8, 16, 16, 3), np.uint8)):
    (loss, _), gradients = run(params, clips, KEY, None)
    assert loss.dtype == np.float32
    for gradient in jax.tree.leaves(gradients):
      assert gradient.dtype == np.float32 and np.isfinite(gradient).all() and np.any(gradient)


def test_recomputation_and_16_bits_stay_near():
  (wanted, _), gradients = compiled('running_cell')[0](
    parameters(micro_model()), grey_clips(2), KEY, None
  )
  run, params = compiled('running_cell', remat=True, dtype=jnp.bfloat16)
  (found, _), others = run(params, grey_clips(2), KEY, None)
  assert found == pytest.approx(float(wanted), rel=0.02)
  assert optax.tree.norm(others) == pytest.approx(float(optax.tree.norm(gradients)), rel=0.05)


def test_the_right_pixels_make_the_clip():
  clips = grey_clips(2)
  places = masking.draw(KEY, 2, GRID, RATIO)
  for standardised in (True, False):
    options = dict(tubelet=2, patch=4, standardised=standardised)
    targets = pretraining_loss.pixel_targets(clips, places.predicted, **options)
    found = pretraining_loss.reconstructions(clips, Predictions(targets, places), **options)
    np.testing.assert_allclose(found, clips, atol=1e-3)
    wrong = pretraining_loss.reconstructions(clips, Predictions(0 * targets, places), **options)
    seen = np.abs(wrong - clips).reshape(2, 4, 2, 4, 4, 4, 4, 3).max(axis=(2, 4, 6, 7))
    same = np.take_along_axis(seen.reshape(2, 64), np.asarray(places.visible), axis=1)
    changed = np.take_along_axis(seen.reshape(2, 64), np.asarray(places.predicted), axis=1)
    assert same.max() == 0 and changed.min() > 1


def test_a_clip_that_does_not_fit_is_an_error():
  model = micro_model()
  with pytest.raises(InputError, match='even number of tubelets'):
    pretraining_loss.pretraining_loss_terms(
      None, jnp.zeros((1, 8, 15, 16, 3), jnp.uint8), KEY, None, model=model, mask_ratio=RATIO
    )
