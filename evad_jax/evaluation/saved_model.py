"""A checkpoint opened for evaluation: its parameters with the model, data and mesh to run it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from evad_jax.checkpoints import model_settings, parameter_checks
from evad_jax.checkpoints.manager import Checkpoints, locate
from evad_jax.data.records import RecordIndex
from evad_jax.distributed import sharding
from evad_jax.model.evad import EVAD
from evad_jax.settings import automatic, config_rules, from_config, start_values


class SavedModel(NamedTuple):
  """What `evaluate.make_evaluator` needs."""

  config: ConfigDict  # with the settings that config.eval.settings chose
  model: EVAD
  params: Any
  index: RecordIndex  # of config.data.eval_split
  mesh: Mesh
  where: str  # checkpoint and step, in words


def open_checkpoint(config: ConfigDict, path: Path | str) -> SavedModel:
  """The step that config.eval.step says of the checkpoints at `path`; prints what differs.

  Raises InputError where there is none, or it is of another model, or the data do not suit it, and
  for a config.eval that cannot be.
  """
  config_rules.check(config)
  directory, step = locate(path)
  with Checkpoints(directory, read_only=True) as checkpoints:
    step = checkpoints.choose(config.eval.step if step is None else step)
    settings = checkpoints.settings(step)
    config = model_settings.for_evaluation(config, settings, directory / str(step))
    config = automatic.resolve(config)
    model = from_config.make_model(config)
    index = from_config.open_split(config, config.data.eval_split)
    mesh = sharding.make_mesh(config.mesh.model)
    sharding.check_model_axis(mesh, config.model)
    params = restore_params(config, model, checkpoints, step, mesh)
    parameter_checks.check_finite(params, directory / str(step))
  model_settings.tell_other_classes(settings, index.classes)
  return SavedModel(config, model, params, index, mesh, f'step {step} of {directory}')


def restore_params(
  config: ConfigDict, model: EVAD, checkpoints: Checkpoints, step: int, mesh: Mesh
) -> Any:
  """The parameters to evaluate of a checkpoint."""
  abstract = start_values.abstract_params(config, model)
  specs = sharding.parameter_specs(abstract, mesh, config.mesh.fsdp)
  shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
  return checkpoints.read_params(step, sharding.placed(abstract, shardings))
