"""Pre-training's model against transformers' numbers, and what masks must not let through."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.distributed.parameter_rules import by_path
from evad_jax.model import masking, start_values
from evad_jax.model.masked_autoencoder import normalize_by_channel
from evad_jax.model.masking import Places
from tests import micro_evad, videomae_oracle
from tests.micro_pretraining import GRID, RATIO, SETTINGS, grey_clips, micro_model, parameters

GOLDEN = Path(__file__).resolve().parents[1] / 'golden' / 'videomae_micro.npz'


@pytest.mark.parametrize(
  'dtype, tolerance',
  [pytest.param('float32', 1e-5, marks=pytest.mark.slow), ('float64', 1e-12)],
)
def test_equals_transformers(dtype, tolerance):
  golden = np.load(GOLDEN)
  model, _, tensors, clips = videomae_oracle.case('micro')
  visible, predicted = (golden[key].astype(np.int32) for key in ('visible', 'predicted'))
  places = Places(visible, predicted, visible[:, :0])
  found = videomae_oracle.ours(model, tensors, clips, places, dtype)
  for key in ('logits', 'loss'):
    assert found[key].dtype == dtype
    assert videomae_oracle.error(found[key], golden[f'{dtype}/{key}']) < tolerance, key
  digest, wanted = videomae_oracle.digest(found['gradients']), golden[f'{dtype}/gradients']
  assert len(wanted) == len(tensors)
  assert (np.abs(digest - wanted).max(axis=1) < 20 * tolerance * wanted[:, 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize('size', ['micro', 'B'])
def test_equals_transformers_here(size):
  transformers = pytest.importorskip('transformers')
  if not transformers.__version__.startswith('4.'):
    pytest.skip('transformers 5 does not read q_bias and v_bias')
  model, clip, tensors, clips = videomae_oracle.case(size, batch=1)
  places = videomae_oracle.drawn_places(size, batch=1)
  for dtype, tolerance in (('float32', 1e-5), ('float64', 1e-12)):
    wanted = videomae_oracle.theirs(model, clip, tensors, clips, places, dtype)
    errors = videomae_oracle.errors(
      videomae_oracle.ours(model, tensors, clips, places, dtype), wanted
    )
    assert max(errors['logits'], errors['loss']) < tolerance, errors
    assert errors['gradients'] < 20 * tolerance, errors


@functools.cache
def compiled(decoder_mask='none'):
  """Predictions of the micro model, and masks: clips, places -> (B, M, pixels)."""
  model = micro_model(depth=1, decoder_depth=1)
  params = {'params': parameters(model)}
  places = masking.draw(jax.random.key(1), 2, GRID, RATIO, decoder_mask)
  run = jax.jit(
    lambda clips, places: model.apply(params, normalize_by_channel(clips), places).pixels
  )
  return run, places


@pytest.mark.parametrize('decoder_mask', masking.DECODER_MASKS)
def test_only_visible_pixels_matter(decoder_mask):
  run, places = compiled(decoder_mask)
  clips = grey_clips(2).reshape(2, 4, 2, 4, 4, 4, 4, 3)  # t f h p w p c
  seen = np.zeros((2, 64), bool)
  np.put_along_axis(seen, np.asarray(places.visible), True, axis=1)
  seen = seen.reshape(2, 4, 1, 4, 1, 4, 1, 1)
  hidden = np.where(seen, clips, 255 - clips).reshape(2, 8, 16, 16, 3)
  shown = np.where(seen, 255 - clips, clips).reshape(2, 8, 16, 16, 3)
  clips = clips.reshape(2, 8, 16, 16, 3)
  before = run(clips, places)
  np.testing.assert_array_equal(run(hidden, places), before)
  assert np.abs(run(shown, places) - before).max() > 0.1


def test_the_order_of_tokens_does_not_matter():
  run, places = compiled('running_cell')
  clips, rng = grey_clips(2), np.random.default_rng(0)
  before = run(clips, places)
  order = rng.permutation(places.visible.shape[1])
  mixed = places._replace(visible=places.visible[:, order], spare=places.spare[:, ::-1])
  np.testing.assert_allclose(run(clips, mixed), before, atol=1e-5)
  order = rng.permutation(places.predicted.shape[1])
  mixed = places._replace(predicted=places.predicted[:, order])
  np.testing.assert_allclose(run(clips, mixed), before[:, order], atol=1e-5)


def test_running_cells_put_mask_tokens_at_visible_places_too():
  run, places = compiled('running_cell')
  clips = grey_clips(2)
  asked = jnp.concatenate([places.spare, places.predicted], axis=1)
  whole = run(clips, Places(places.visible, asked, places.spare[:, :0]))
  number = places.predicted.shape[1]
  np.testing.assert_allclose(run(clips, places), whole[:, -number:], atol=1e-5)


def test_a_detector_has_the_same_names_and_shapes():
  settings = {name: micro_evad.MODEL[name] for name in SETTINGS}
  ours, theirs = (
    {path: x.shape for path, x in by_path(start_values.abstract_params(model)).items()}
    for model in (micro_model(**settings), micro_evad.micro_model())
  )
  own = {p for p in ours if re.match('context_refinement/(norm|head)/', p)}
  shared = {p for p in theirs if re.match('encoder|context_refinement/(?!action_head)', p)}
  assert len(own) == 4 and set(ours) - own == shared
  assert {path: ours[path] for path in shared} == {path: theirs[path] for path in shared}


def test_start_values_by_the_published_rule():
  model = micro_model(width=96, num_heads=3, depth=1, decoder_depth=1)
  params = by_path(start_values.start_params(model, 0))
  bounds = {
    'encoder/tubelets/projection/kernel': 96**-0.5,
    'encoder/tubelets/projection/bias': 96**-0.5,
    'encoder/block_0/attention/qkv/kernel': (6 / (4 * 96)) ** 0.5,  # of q, k, v together
    'encoder/block_0/mlp/fc1/kernel': (6 / (5 * 96)) ** 0.5,
    'context_refinement/projection/kernel': 96**-0.5,
    'context_refinement/block_0/attention/out/kernel': (6 / (2 * 24)) ** 0.5,
    'context_refinement/head/kernel': (6 / (24 + 96)) ** 0.5,
  }
  for path, bound in bounds.items():
    largest = np.abs(params[path]).max()
    assert 0.9 * bound < largest <= bound * (1 + 1e-6), path
    assert np.std(params[path]) == pytest.approx(bound / 3**0.5, rel=0.2), path
  token = np.asarray(params['context_refinement/mask_token'])
  assert np.abs(token).max() <= 0.02 and 0.006 < token.std() < 0.016
  rest = {p: x for p, x in params.items() if p not in bounds and p.rsplit('/')[-1] != 'kernel'}
  for path, x in rest.items():
    if path != 'context_refinement/mask_token':
      np.testing.assert_array_equal(x, float(path.endswith('scale')), err_msg=path)


def test_clips_are_normalised_by_channel():
  grey = np.array([[[0, 128, 255]]], np.uint8)
  wanted = (np.array([0, 128, 255]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(normalize_by_channel(grey)[0, 0], wanted, atol=1e-6)
  assert normalize_by_channel(grey, jnp.bfloat16).dtype == jnp.bfloat16
