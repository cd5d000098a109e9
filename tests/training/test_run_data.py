"""A run resumes on the data it was trained on: what counts as other data, and the message."""

import dataclasses
import json

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.settings import from_config
from evad_jax.synthetic import data_set
from evad_jax.training import run_data
from tests.tiny_run import tiny_config

WHERE = 'runs/some'


def data(directory, train=8, **settings):
  sizes = dict(height=32, width=32, clip_frames=4, frame_stride=1, workers=1)
  data_set.generate(directory, data_set.Settings(train=train, test=4, **sizes, **settings))
  config = tiny_config(directory)
  return config, from_config.open_split(config, 'train')


@pytest.fixture(scope='module')
def own(tmp_path_factory):
  """Configuration and index, and what a checkpoint keeps of them, after a JSON round trip."""
  config, index = data(tmp_path_factory.mktemp('own'))
  return config, index, json.loads(json.dumps({'data': run_data.describe(config, index)}))


def refused(config, index, saved):
  with pytest.raises(InputError) as error:
    run_data.check(config, index, saved, WHERE)
  assert str(error.value).startswith(f'{WHERE}: the run was trained on other data')
  assert '--config.data.if_changed=accept' in str(error.value)
  return str(error.value)


def test_the_same_data_elsewhere_are_the_same(own, tmp_path):
  _, _, saved = own
  config, index = data(tmp_path / 'moved')
  config.optimizer.rate, config.clip.flip_probability = 1.0, 0.0  # not of the data
  run_data.check(config, index, saved, WHERE)


@pytest.mark.parametrize('classes', ['jump walk crouch rise wave stand', 'walk jump crouch x y z'])
def test_classes_in_another_order_or_of_other_names(own, classes):
  config, index, saved = own
  other = dataclasses.replace(index, classes=classes.split())
  sentence = refused(config, other, saved)
  assert 'classes: walk, jump, crouch, rise, wave, stand then' in sentence
  assert f'{", ".join(classes.split())} now' in sentence


def test_other_ids_of_the_same_classes(own):
  config, index, saved = own
  sentence = refused(config, dataclasses.replace(index, class_ids=[1, 2, 3, 4, 5, 7]), saved)
  assert 'ids of classes: None then; 1, 2, 3, 4, 5, 7 now' in sentence


def test_more_examples(own, tmp_path):
  config, index = data(tmp_path, train=9)
  sentence = refused(config, index, own[2])
  assert 'examples: 8 keyframes of 8 videos then; 9 keyframes of 9 videos now' in sentence


def test_as_many_but_other_examples(own):
  config, index, saved = own
  sentence = refused(config, dataclasses.replace(index, keyframes=index.keyframes + 1), saved)
  assert 'the keyframes or their order differ' in sentence


def test_other_pictures_of_the_same_examples(own, tmp_path):
  config, index = data(tmp_path, seed=7)
  np.testing.assert_array_equal(index.record_video, own[1].record_video)
  assert 'the contents of the records differ' in refused(config, index, own[2])


def test_another_split(own):
  config, index, saved = own
  config = config.copy_and_resolve_references()
  config.data.train_split, config.data.eval_split = 'train2', 'test2'
  sentence = refused(config, index, saved)
  assert 'training split: train then; train2 now' in sentence
  assert 'evaluated split: test then; test2 now' in sentence


def test_other_canvases(own):
  config, index, saved = own
  config = config.copy_and_resolve_references()
  config.clip.canvases = ((32, 32), (32, 64))
  assert "sizes of clips: {'canvases'" in refused(config, index, saved)


def test_what_is_meant_is_told(own, capsys):
  config, index, saved = own
  config = config.copy_and_resolve_references()
  config.data.if_changed, index = 'accept', dataclasses.replace(index, name='renamed')
  run_data.check(config, index, saved, WHERE)
  told = 'Warning: resuming on other data than runs/some was trained on'
  assert capsys.readouterr().out == f'{told}: data set: synthetic then; renamed now\n'
  config.data.if_changed = 'perhaps'
  with pytest.raises(InputError, match="if_changed='perhaps' is not one of refuse, accept"):
    run_data.check(config, index, saved, WHERE)


def test_checkpoints_that_know_less_are_compared_as_far_as_they_do(own):
  config, index, _ = own
  old = json.loads(json.dumps({'classes': index.classes, 'clip': config.clip.to_dict()}))
  run_data.check(config, index, old, WHERE)
  run_data.check(config, index, {}, WHERE)
  assert 'classes: a, b then; walk' in refused(config, index, old | {'classes': ['a', 'b']})
  clip = {'clip': old['clip'] | {'short_side': 16}}
  assert "{'short_side': 16} then; {'short_side': 32" in refused(config, index, old | clip)
