"""A checkpoint opened for evaluation: its parameters with the model, data and mesh to run it."""

from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from evad_jax import automatic, from_config, model_settings, run_settings, sharding, train
from evad_jax.checkpoint import Checkpoints, locate
from evad_jax.data.records import RecordIndex
from evad_jax.model.evad import EVAD


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
  run_settings.check_evaluation(config.eval)
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
    params = train.restore_params(config, model, checkpoints, step, mesh)
  model_settings.tell_other_classes(settings, index.classes)
  return SavedModel(config, model, params, index, mesh, f'step {step} of {directory}')
