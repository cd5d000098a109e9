"""Where arrays live: a ('data', 'model') mesh, batches split over 'data', parameters replicated."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evad_jax.errors import InputError

AXES = ('data', 'model')


def make_mesh(model_parallel: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """`devices`, or all of all processes, as (data, model); one device makes a 1 x 1 mesh."""
  devices = np.asarray(jax.devices() if devices is None else devices)
  if model_parallel < 1 or devices.size % model_parallel:
    raise InputError(
      f'config.mesh.model={model_parallel} must divide the number of devices, {devices.size}.'
    )
  return Mesh(devices.reshape(-1, model_parallel), AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The first axis over 'data'."""
  return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
  """A copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
  """Raises InputError unless every device gets the same number of clips."""
  if batch_size % mesh.shape['data']:
    raise InputError(
      f'{key}={batch_size} cannot be shared equally by {mesh.shape["data"]} devices; '
      f'make it a multiple of {mesh.shape["data"]}.'
    )


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """This process's part of a global batch (NumPy) -> global arrays split over 'data'."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def put_replicated(tree: Any, mesh: Mesh) -> Any:
  """The same host values on every process -> arrays on every device."""
  return jax.device_put(tree, replicated(mesh))
