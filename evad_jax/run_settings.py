"""What the settings of a training run must satisfy, and what it says of them at its start."""

from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evad_jax import from_config, keep_rates, nan_watch, sharding
from evad_jax.checkpoint import Checkpoints
from evad_jax.distributed import tell
from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD


def check(config: ConfigDict, model: EVAD, mesh: Mesh) -> None:
  """Raises InputError for settings that would fail only after the first compilation, or never."""
  train = config.train
  sharding.check_model_axis(mesh, config.model)
  sharding.check_batch_size(train.batch_size, mesh, 'config.train.batch_size')
  if train.accumulation < 1 or train.batch_size % (train.accumulation * mesh.shape['data']):
    raise InputError(
      f'config.train.accumulation={train.accumulation} must divide the clips of each device, '
      f'{train.batch_size // mesh.shape["data"]}.'
    )
  keep_rates.check(config, model)
  if train.non_finite not in nan_watch.POLICIES:
    raise InputError(
      f'config.train.non_finite={train.non_finite!r} is not one of {nan_watch.POLICIES}.'
    )
  for key in ('log_every', 'checkpoint_every', 'keep_checkpoints'):
    if train[key] < 1:
      raise InputError(f'config.train.{key}={train[key]} must be at least 1.')
  if config.hosts.agree_every < 1:
    raise InputError(f'config.hosts.agree_every={config.hosts.agree_every} must be at least 1.')
  check_profile(config.profile)
  from_config.pipeline_settings(config)
  if train.epochs <= 0:
    raise InputError(f'config.train.epochs={train.epochs} must be above 0.')


def check_profile(settings: ConfigDict) -> None:
  """Raises InputError for a config.profile that asks for what there cannot be."""
  for key, least in (('start', 0), ('steps', 1)):
    if settings[key] < least:
      raise InputError(f'config.profile.{key}={settings[key]} must be at least {least}.')


def tell_scale(config: ConfigDict, mesh: Mesh) -> None:
  """Prints how the work is shared, and the rule by which the learning rate follows the batch."""
  train, settings = config.train, config.optimizer
  rate = settings.rate * train.batch_size / settings.rate_batch_size
  tell(
    f'{mesh.size} devices in {jax.process_count()} processes: {mesh.shape["data"]} parts of every '
    f'batch x {mesh.shape["model"]} parts of every block'
    f'{", parameters split over the former" if config.mesh.fsdp else ""}\n'
    f'Learning rate {rate:.3g} = config.optimizer.rate {settings.rate:g} x batch '
    f'{train.batch_size} / {settings.rate_batch_size}: it grows linearly with the batch'
  )


def data_position(config: ConfigDict, step: int) -> dict[str, int]:
  """Where the order of clips stands after a step: its seed, and the next place in it."""
  return {'seed': config.seed, 'next_example': step * config.train.batch_size}


def check_position(
  config: ConfigDict, checkpoints: Checkpoints, step: int, position: dict[str, Any]
) -> None:
  """Raises InputError where the run would not go on with the clip after the last one."""
  ours = data_position(config, step)
  saved = {key: position.get(key) for key in ours}
  if saved != ours:
    raise InputError(
      f'{checkpoints.directory}: step {step} was saved at data position {saved}, but config.seed '
      f'and config.train.batch_size of this run give {ours}; use the values it was started with, '
      'or another --workdir.'
    )
