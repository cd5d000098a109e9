"""A checkpoint's settings meet a configuration: used, compared, or refused by name."""

import json

import pytest

from evad_jax.checkpoints import model_settings
from evad_jax.errors import InputError
from tests import micro_evad


def saved(**changes):
  settings = json.loads(json.dumps(micro_evad.MODEL | changes))  # as a checkpoint has them
  return {'model': settings, 'classes': []}


def test_equal_settings_change_nothing(capsys):
  config = micro_evad.micro_config()
  assert model_settings.for_evaluation(config, saved(), 'x') is config
  assert capsys.readouterr().out == ''


def test_the_checkpoint_decides_on_behaviour_and_that_is_told(capsys):
  config = micro_evad.micro_config(keep_rate=0.9)
  settings = saved(padding='released', token_restoring='released', keep_rate=[0.8, 0.7])
  found = model_settings.for_evaluation(config, settings, 'x').model
  assert (found.padding, found.token_restoring) == ('released', 'released')
  assert found.keep_rate == (0.8, 0.7) and config.model.keep_rate == 0.9
  told = capsys.readouterr().out
  assert 'keep_rate is (0.8, 0.7) in the checkpoint and 0.9 in config.model' in told
  assert (
    'padding is released in the checkpoint and masked' in told
    and 'config.eval.settings=config' in told
  )


def test_or_the_configuration_does(capsys):
  config = micro_evad.micro_config(keep_rate=0.9)
  config.eval.settings = 'config'
  assert model_settings.for_evaluation(config, saved(), 'x').model.keep_rate == 0.9
  assert "the config's settings" in capsys.readouterr().out


@pytest.mark.parametrize(
  'ours, theirs, words',
  [
    ({'width': 64}, {}, ['of another model: width is 32 in the checkpoint and 64 in config.model']),
    ({'num_heads': 4, 'depth': 6}, {}, ['num_heads', 'depth']),
    ({}, {'feature_blocks': [0, 1, 2, 4]}, ['feature_blocks']),
    ({}, {'colour': 'red'}, ['the model settings colour']),
  ],
)
def test_other_models_are_refused_by_the_names_of_the_keys(ours, theirs, words):
  config = micro_evad.micro_config(**ours)
  with pytest.raises(InputError) as error:
    model_settings.for_evaluation(config, saved(**theirs), 'x')
  for word in words:
    assert word in str(error.value)


def test_training_keys_may_differ(capsys):
  config = micro_evad.micro_config(drop_path=0.3, remat=True)
  assert model_settings.for_evaluation(config, saved(), 'x') is config
  assert capsys.readouterr().out == ''


def test_an_encoder_cannot_be_evaluated():
  settings = saved() | {'source': {'kind': 'encoder', 'title': 'VideoMAE encoder, ViT-B'}}
  with pytest.raises(InputError, match='VideoMAE encoder, ViT-B.*--config.init_from=x'):
    model_settings.for_evaluation(micro_evad.micro_config(), settings, 'x')


def test_other_class_names_are_told(capsys):
  model_settings.tell_other_classes({'classes': ['walk', 'run', 'sit']}, ['walk', 'sit', 'run'])
  told = capsys.readouterr().out
  assert '2 of 3 classes' in told and "index 1, 'sit' instead of 'run'" in told
  for known in ({'classes': ['walk', 'run']}, {'classes': []}, {}):
    model_settings.tell_other_classes(known, ['walk', 'run'])
  assert capsys.readouterr().out == ''
