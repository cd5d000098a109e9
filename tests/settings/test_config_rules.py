"""Impossible values of a configuration: named before data are opened or anything compiles."""

import importlib
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import common
from evad_jax import main
from evad_jax.distributed import sharding
from evad_jax.errors import InputError
from evad_jax.model import start_values
from evad_jax.settings import config_rules, from_config
from evad_jax.training import checks
from tests.micro_evad import micro_config

NAN, INF = float('nan'), float('inf')
WRONG = (
  *(('clip.clip_frames', 0), ('clip.clip_frames', '16'), ('clip.frame_stride', 0)),
  *(('clip.short_side', -5), ('clip.max_boxes', 0), ('clip.max_long', 0), ('clip.canvases', 5)),
  *(('clip.canvases', ((32,),)), ('clip.canvases', ()), ('clip.flip_probability', NAN)),
  *(('clip.reduced_decoding', 1), ('train.batch_size', 0), ('train.batch_size', -4)),
  *(('train.batch_size', True), ('train.epochs', NAN), ('train.epochs', INF)),
  *(('train.epochs', 0.0), ('train.accumulation', 0), ('train.keep_checkpoints', 0)),
  *(('train.checkpoint_every', -1), ('train.eval_every', -1), ('train.log_every', 0)),
  *(('train.ema_decay', 1.0), ('train.consistency', -1.0), ('train.non_finite', 'go on')),
  *(('train.keep_rates', 0.7), ('train.keep_rates', '0.7'), ('train.keep_rates', (0.7, 0.0))),
  *(('optimizer.rate', NAN), ('optimizer.rate', -1.0), ('optimizer.rate_batch_size', 0)),
  *(('optimizer.warmup_epochs', -1.0), ('optimizer.schedule', 'linear')),
  *(('optimizer.layer_decay', 0.0), ('optimizer.clip_norm', -1.0), ('optimizer.b1', 1.0)),
  *(('optimizer.milestones', 5.0), ('optimizer.factors', ('x',)), ('optimizer.eps', '1')),
  *(('model.depth', 0), ('model.num_heads', 0), ('model.num_heads', 3), ('model.width', 15)),
  *(('model.keep_rate', 0.0), ('model.keep_rate', 1.5), ('model.keep_rate', NAN)),
  *(('model.roi_extension', (0.4,)), ('model.roi_extension', (-3.0, 0.2))),
  *(('model.token_restoring', 'x'), ('model.padding', 'x'), ('model.proposal_init', 'x')),
  *(('model.attention', 'x'), ('model.patch', 0), ('model.num_stages', 0), ('model.dtype', 8)),
  *(('model.decoder_depth', 0), ('model.drop_path', 1.0), ('model.pretrain_size', 33)),
  *(('model.num_actions', 10**12), ('model.prune_blocks', 5), ('model.prune_blocks', ('x',))),
  *(('mesh.model', 0), ('mesh.fsdp', 'yes'), ('eval.step', -2), ('eval.batch_size', 0)),
  *(('eval.scoring', 'x'), ('eval.linking', 'x'), ('eval.person_threshold', NAN)),
  *(('data.threads', 0), ('data.directory', None), ('data.synthetic', 'x'), ('profile.steps', 0)),
  *(('hosts.processes', 0), ('hosts.agree_every', 0), ('loss.action_weight', -1.0)),
  *(('seed', -1), ('seed', 0.5), ('matmul_precision', 'x'), ('name', 5), ('init_from', None)),
)  # fmt: skip


@pytest.mark.parametrize(('key', 'value'), WRONG, ids=lambda x: str(x)[:20])
def test_wrong_values_are_named(tmp_path, key, value):
  config = micro_config()
  section, _, name = key.rpartition('.')
  with config.unlocked(), config.ignore_type():
    setattr(config[section] if section else config, name, value)
  with pytest.raises(InputError) as refused:
    main.run(config, tmp_path, 'train')
  assert (
    key in str(refused.value)
    and 'is not one of' in str(refused.value)
    or (f'config.{key}=' in str(refused.value) and 'must' in str(refused.value))
  )
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'feature_blocks': (0, 1)}, 'must be four blocks'),
    ({'prune_blocks': (9,)}, 'must be distinct blocks from 0 to 3'),
    ({'tubelet': 3}, 'does not divide into an even number of tubelets'),
    ({'keep_rate': (0.7,)}, 'has 1 rates for 2 prune_blocks'),
  ],
)
def test_values_that_do_not_fit_each_other(change, message):
  config = micro_config()
  with config.unlocked(), config.ignore_type():
    config.model.update(change)
  with pytest.raises(InputError, match=message):
    model = from_config.make_model(config)
    checks.check(config, model, sharding.make_mesh())
    start_values.abstract_params(model)


def test_every_key_has_a_rule_and_every_configuration_keeps_them():
  config = common.get_config()
  sections = {key for key in config if isinstance(config[key], ConfigDict)}
  assert set(config) - sections == set(config_rules.TOP)
  assert {name: set(config[name]) for name in sections} == {
    name: set(rules) for name, rules in config_rules.SECTIONS.items()
  }
  names = {path.stem for path in Path(common.__file__).parent.glob('*.py')} - {'__init__', 'common'}
  assert {'ava', 'demo'} <= names
  for name in names:
    config_rules.check(importlib.import_module(f'configs.{name}').get_config())


def test_missing_keys_are_named():
  config = micro_config()
  with config.unlocked():
    del config.train['epochs']
  with pytest.raises(InputError, match='config.train has no epochs; configs/common.py lists'):
    config_rules.check(config)
  with pytest.raises(InputError, match='config has no name'):
    config_rules.check(ConfigDict())


def test_a_configuration_read_from_json_makes_the_same_model():
  config = micro_config()
  again = from_config.make_model(ConfigDict(json.loads(json.dumps(config.to_dict()))))
  assert again == from_config.make_model(config)
  assert start_values.abstract_params(again)  # found by the model, so it has to be hashable
