"""The values that each configuration key allows, without rules across keys or for devices."""

from collections.abc import Iterable, Mapping
from typing import Any

from evad_jax import value_rules
from evad_jax.data import unreadable
from evad_jax.errors import InputError
from evad_jax.metrics.frame_map import SCORINGS
from evad_jax.model import model_rules
from evad_jax.model.layers import GRADIENT_DTYPES
from evad_jax.tubes.rules import RULES
from evad_jax.value_rules import Rule, either, number, one_of, rows, text, truth, whole

_MANY = 10**9  # steps, clips, devices
_rate = number(0, 1, above=True)
TOP: dict[str, Rule] = {
  'name': text,
  'seed': whole(0, 2**31 - 2),
  'matmul_precision': one_of(
    'default', 'high', 'highest', 'bfloat16', 'tensorfloat32', 'float32'
  ),
  'init_from': text,
  'checkpoint': text,
}  # fmt: skip
SECTIONS: dict[str, dict[str, Rule]] = {
  'data': {
    'directory': text,
    'prepare_command': text,
    'synthetic': one_of('', 'easy', 'hard'),
    'train_split': text,
    'eval_split': text,
    'if_changed': one_of('refuse', 'accept'),
    'workers': whole(0, 1000),
    'threads': whole(1, 1000),
    'prefetch': whole(1, 10**6),
    'unreadable': one_of(*unreadable.POLICIES),
  },
  'clip': model_rules.CLIP,
  'pretrain_data': {
    'scales': rows(_rate, 1, 16),
    'copies': whole(1, 1000),
    'piece_frames': whole(0, _MANY),
  },
  'model': model_rules.MODEL,
  'loss': {'action_weight': number(0)},
  'optimizer': {
    'rate': number(0, above=True),
    'rate_batch_size': whole(1, _MANY),
    'head_multiplier': number(0),
    'schedule': one_of('step', 'cosine'),
    'warmup_epochs': number(0),
    'warmup_start': number(0),
    'milestones': rows(number(0)),
    'factors': rows(number(0)),
    'b1': number(0, 1, below=True),
    'b2': number(0, 1, below=True),
    'eps': number(0),
    'weight_decay': number(0),
    'clip_norm': number(0),
    'layer_decay': _rate,
  },
  'train': {
    'batch_size': whole(1, _MANY),
    'epochs': number(0, 10**9, above=True),
    'accumulation': whole(1, _MANY),
    'ema_decay': number(0, 1, below=True),
    'keep_rates': rows(either(_rate, rows(_rate))),
    'consistency': number(0),
    'non_finite': one_of('stop', 'skip'),
    'log_every': whole(1, _MANY),
    'eval_every': whole(0, _MANY),
    'checkpoint_every': whole(1, _MANY),
    'keep_checkpoints': whole(1, _MANY),
  },
  'eval': {
    'batch_size': whole(1, _MANY),
    'step': whole(-1, _MANY),
    'settings': one_of('checkpoint', 'config'),
    'scoring': one_of(*SCORINGS),
    'person_threshold': number(0, 1),
    'max_per_frame': whole(0, _MANY),
    'linking': one_of(*RULES),
    'keyframe_only': truth,
    'sheet_clips': whole(0, 10**4),
  },
  'profile': {'start': whole(0, _MANY), 'steps': whole(1, _MANY)},
  'hosts': {
    'launch': text,
    'coordinator': text,
    'processes': whole(1, _MANY),
    'process': whole(0, _MANY),
    'agree_every': whole(1, _MANY),
  },
  'mesh': {
    'model': whole(1, _MANY),
    'fsdp': truth,
    'gradient_dtype': one_of(*GRADIENT_DTYPES),
  },
}


def check(config: Any) -> None:
  """Raises InputError for the first key of a configuration that is missing or invalid."""
  content = config.to_dict()
  _require(content, (*TOP, *SECTIONS), 'config')
  value_rules.check(content, TOP, 'config.')
  for name in SECTIONS:
    check_section(content[name], name)


def check_section(section: Mapping, name: str) -> None:
  """The same for one section."""
  where = f'config.{name}.'
  value_rules.check(section, SECTIONS[name], where)
  _require(section, SECTIONS[name], f'config.{name}')
  if name == 'model':
    model_rules.check_model(section, where)


def _require(section: Mapping, keys: Iterable[str], name: str) -> None:
  missing = [key for key in keys if key not in section]
  if missing:
    raise InputError(f'{name} has no {missing[0]}; configs/common.py lists every key.')
