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


ALL = np.ones(4, bool)


@functools.cache
def compiled(**changes):
  """params, 4 clips, mask, count -> ((loss, terms), gradients); with the parameters."""
  model = micro_model(depth=1, decoder_depth=1, **changes)
  terms = functools.partial(
    pretraining_loss.pretraining_loss_terms,
    model=model,
    mask_ratio=RATIO,
    decoder_mask='running_cell',
  )

  def run(params, clips, example_mask=ALL, count=4):
    return terms(params, clips, KEY, example_mask, count=count)

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
  targets = pretraining_loss.pixel_targets(clips, np.array([[0, 5]] * 2), tubelet=2, patch=16)
  assert np.mean(np.square(targets)) == pytest.approx(511 / 512, rel=2e-5)
  run, params = compiled()  # its tubelets have 32 pixels
  (loss, terms), _ = run(jax.tree.map(np.zeros_like, params), grey_clips(4), ALL, 4)
  assert float(loss) == pytest.approx(31 / 32, rel=1e-4)
  assert terms.error == loss == terms.of_zero


def test_the_loss_is_that_of_the_hidden_pixels_and_they_change_the_target_alone():
  run, params = compiled()
  model = micro_model(depth=1, decoder_depth=1)
  places = masking.draw(KEY, 4, GRID, RATIO, 'running_cell')
  predict = jax.jit(lambda clips: model.apply({'params': params}, clips, places).pixels)
  clips = grey_clips(4)
  predicted = predict(pretraining_loss.normalize_by_channel(clips))
  assert predicted.shape == (4, 24, 96)
  losses = []
  for _ in range(2):
    (loss, terms), _ = run(params, clips, ALL, 4)
    targets = pretraining_loss.pixel_targets(clips, places.predicted, tubelet=2, patch=4)
    assert float(loss) == pytest.approx(float(np.mean((predicted - targets) ** 2)), rel=1e-5)
    assert float(terms.of_zero) == pytest.approx(float(np.mean(targets**2)), rel=1e-5)
    losses.append(float(loss))
    t, y, x = np.unravel_index(places.predicted[0, 0], GRID)
    clips[0, 2 * t, 4 * y, 4 * x] ^= 128
  assert abs(losses[1] - losses[0]) > 1e-5


def test_clips_that_do_not_count_change_nothing():
  run, params = compiled()
  clips, two = grey_clips(4), np.array([True, True, False, False])
  wanted, gradients = run(params, clips, two, 2)
  alone = [run(params, clips, np.arange(4) == i, 1)[0][0] for i in range(2)]
  assert float(wanted[0]) == pytest.approx(float(sum(alone)) / 2, rel=1e-6)
  clips[2:] = 7
  found, others = run(params, clips, two, 2)
  jax.tree.map(np.testing.assert_array_equal, (found, others), (wanted, gradients))
  (none, terms), gradients = run(params, clips, ~ALL, 0)
  assert none == terms.of_zero == 0
  assert not any(np.any(x) for x in jax.tree.leaves(gradients))


def test_microbatches_add_up_and_the_count_is_that_of_the_mask():
  run, params = compiled()
  clips = [grey_clips(4), grey_clips(4, seed=9)]
  masks = [np.array([True, False, True, True]), ALL]
  parts = [run(params, *part, 7) for part in zip(clips, masks, strict=True)]
  alone = [run(params, *part, part[1].sum()) for part in zip(clips, masks, strict=True)]
  both = jax.tree.map(lambda a, b: a + b, *parts)
  wanted = jax.tree.map(lambda a, b: (3 * a + 4 * b) / 7, *alone)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), both, wanted)


def test_gradients_are_finite_and_of_every_parameter_and_16_bits_are_near():
  found = []
  for changes in ({}, {'remat': True, 'dtype': jnp.bfloat16}):
    run, params = compiled(**changes)
    for clips in (np.zeros((4, 8, 16, 16, 3), np.uint8), grey_clips(4)):
      (loss, _), gradients = run(params, clips, ALL, 4)
      assert loss.dtype == np.float32
      for gradient in jax.tree.leaves(gradients):
        assert gradient.dtype == np.float32 and np.isfinite(gradient).all() and np.any(gradient)
    found.append([float(loss), float(optax.tree.norm(gradients))])
  np.testing.assert_allclose(found[1], found[0], rtol=0.05)


def test_the_right_pixels_make_the_clip():
  clips = grey_clips(2)
  places = masking.draw(KEY, 2, GRID, RATIO)
  for standardised in (True, False):
    options = dict(tubelet=2, patch=4, standardised=standardised)
    targets = pretraining_loss.pixel_targets(clips, places.predicted, **options)
    found = pretraining_loss.reconstructions(clips, Predictions(targets, places), **options)
    np.testing.assert_allclose(found, clips, atol=1e-3)
    wrong = pretraining_loss.reconstructions(clips, Predictions(0 * targets, places), **options)
    seen = (
      np.abs(np.asarray(wrong) - np.asarray(clips))
      .reshape(2, 4, 2, 4, 4, 4, 4, 3)
      .max(axis=(2, 4, 6, 7))
    )
    same = np.take_along_axis(seen.reshape(2, 64), np.asarray(places.visible), axis=1)
    changed = np.take_along_axis(seen.reshape(2, 64), np.asarray(places.predicted), axis=1)
    assert same.max() == 0 and changed.min() > 1


def test_a_clip_that_does_not_fit_is_an_error():
  model = micro_model()
  with pytest.raises(InputError, match='even number of tubelets'):
    pretraining_loss.pretraining_loss_terms(
      None, jnp.zeros((1, 8, 15, 16, 3), jnp.uint8), KEY, None, model=model, mask_ratio=RATIO
    )
