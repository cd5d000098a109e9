"""Checks the settings of a training run before its first step, and reports its scale."""

from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data import pipeline, split_check, tube_index
from evad_jax.data.records import RecordIndex
from evad_jax.distributed import processes, sharding
from evad_jax.distributed.processes import tell
from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD
from evad_jax.settings import config_rules, from_config
from evad_jax.training import keep_rates


def check(config: ConfigDict, model: EVAD, mesh: Mesh) -> None:
  """Raises InputError for settings that would fail only after the first compilation, or never."""
  config_rules.check(config)
  train = config.train
  sharding.check_model_axis(mesh, config.model)
  sharding.check_batch_size(train.batch_size, mesh, 'config.train.batch_size')
  if train.batch_size % (train.accumulation * mesh.shape['data']):
    raise InputError(
      f'config.train.accumulation={train.accumulation} must divide the clips of each device, '
      f'{train.batch_size // mesh.shape["data"]}.'
    )
  keep_rates.check(config, model)
  milestones, factors = config.optimizer.milestones, config.optimizer.factors
  if len(milestones) != len(factors):
    raise InputError(
      f'config.optimizer.milestones={tuple(milestones)} and factors={tuple(factors)} must have the '
      'same length: one factor for each milestone.'
    )


def check_split(config: ConfigDict, index: RecordIndex) -> None:
  """Reads all records of the evaluated split, shared among the processes, and its tubes.

  Raises InputError, in every process, for anything that would end the first evaluation.
  """
  settings = from_config.clip_settings(config)
  pipeline.buckets(index, settings)
  tube_index.read_tubes(index)
  part, parts = processes.share()
  found = split_check.first_fault(
    index, settings, part, parts, threads=config.data.threads, show=processes.is_first()
  )
  if processes.any_of(found is not None):
    raise found or InputError(
      f'{index.directory}: another process found a damaged record of {index.split}.'
    )


def tell_scale(config: ConfigDict, mesh: Mesh) -> None:
  """Prints the mesh, and how the learning rate scales with the batch size."""
  train, settings = config.train, config.optimizer
  rate = settings.rate * train.batch_size / settings.rate_batch_size
  tell(
    f'{mesh.size} devices in {jax.process_count()} processes, mesh: data={mesh.shape["data"]}, '
    f'model={mesh.shape["model"]} (data parallel x tensor parallel)'
    f'{", parameters sharded over data" if config.mesh.fsdp else ""}\n'
    f'Learning rate {rate:.3g} = config.optimizer.rate {settings.rate:g} x batch '
    f'{train.batch_size} / {settings.rate_batch_size}: it scales linearly with the batch size'
  )


def data_position(config: ConfigDict, step: int) -> dict[str, int]:
  """Position in the order of clips after a step: the seed, and the index of the next clip."""
  return {'seed': config.seed, 'next_example': step * config.train.batch_size}


def check_position(
  config: ConfigDict, checkpoints: Checkpoints, step: int, position: dict[str, Any]
) -> None:
  """Raises InputError where the run would not resume with the clip after the last one."""
  ours = data_position(config, step)
  saved = {key: position.get(key) for key in ours}
  if saved != ours:
    raise InputError(
      f'{checkpoints.directory}: step {step} was saved at data position {saved}, but config.seed '
      f'and config.train.batch_size of this run give {ours}; use the values it was started with, '
      'or another --workdir.'
    )
