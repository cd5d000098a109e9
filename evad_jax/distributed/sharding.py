"""Sharding of batches, parameters and optimizer state over a ('data', 'model') mesh.

Batches are sharded over 'data' (data parallel). Parameters follow one ordered list of rules: the
blocks of encoder and decoder are sharded over 'model' (tensor parallel: heads and hidden units;
Megatron-LM, arXiv 1909.08053), everything else is replicated. Fully sharded (ZeRO, arXiv
1910.02054), every matrix is sharded over 'data' too, and gathered when its layer is reached.
Optimizer state is sharded like its parameter.

The model does not depend on this: the compiler derives the sharding of activations, and the
communication, from the sharding of parameters and batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evad_jax.distributed import parameter_rules
from evad_jax.errors import InputError

AXES = ('data', 'model')

WHOLE, COLUMNS, ROWS = PartitionSpec(), PartitionSpec(None, 'model'), PartitionSpec('model', None)
SPLIT = PartitionSpec('model')
BLOCK = r'(encoder|context_refinement)/block_\d+'
MODEL_RULES = (
  # The columns are all heads' queries, then keys, then values: an even split would not fall between
  # heads, and any split costs more communication than this small product is worth. It stays
  # replicated. The next rule shards the heads, and the compiler propagates that to queries, keys
  # and values.
  (rf'{BLOCK}/attention/(qkv/kernel|q_bias|v_bias)', WHOLE),
  (rf'{BLOCK}/attention/out/kernel', ROWS),  # a row belongs to one head
  (rf'{BLOCK}/mlp/fc1/kernel', COLUMNS),
  (rf'{BLOCK}/mlp/fc1/bias', SPLIT),
  (rf'{BLOCK}/mlp/fc2/kernel', ROWS),
  (rf'{BLOCK}/(attention/out|mlp/fc2)/bias', WHOLE),
  (rf'{BLOCK}/norm[12]/(scale|bias)', WHOLE),
  (r'encoder/(tubelets|norm)/.*', WHOLE),
  (r'fpn/.*', WHOLE),
  (r'person_detector/.*', WHOLE),
  (r'context_refinement/(mask_token|projection/kernel|action_head_\d+/.*)', WHOLE),
  (r'context_refinement/(norm|head)/.*', WHOLE),  # of pre-training
)


def make_mesh(model_parallel: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """`devices` (None: those of all processes) as (data, model); one device makes a 1 x 1 mesh.

  Devices of a process are adjacent, so its part of a batch is consecutive clips.
  """
  devices = jax.devices() if devices is None else devices
  devices = np.asarray(sorted(devices, key=lambda device: (device.process_index, device.id)))
  if model_parallel < 1 or devices.size % model_parallel:
    raise InputError(
      f'config.mesh.model={model_parallel} must divide the number of devices, {devices.size}.'
    )
  return Mesh(devices.reshape(-1, model_parallel), AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The first axis sharded over 'data'."""
  return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
  """Replicated: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def within(mesh: Mesh, function: Callable) -> Callable:
  """`function`, traced with the mesh in context, for kernels that the compiler cannot shard."""

  @functools.wraps(function)
  def call(*arguments: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*arguments)

  return call


def parameter_specs(params: Any, mesh: Mesh, fully_sharded: bool) -> Any:
  """The PartitionSpec of every parameter; params: shapes are enough.

  Raises InputError naming a parameter that no rule covers.
  """
  specs = parameter_rules.by_rules(params, MODEL_RULES, 'evad_jax/distributed/sharding.py')
  if not fully_sharded:
    return specs
  return jax.tree.map(lambda x, spec: _over_data(x.shape, spec, mesh.shape['data']), params, specs)


def _over_data(shape: tuple[int, ...], spec: PartitionSpec, size: int) -> PartitionSpec:
  """Shards the largest free axis that divides evenly; vectors are too small to be worth it."""
  axes = [*spec, *(None,) * (len(shape) - len(spec))]
  free = [i for i, name in enumerate(axes) if name is None and shape[i] % size == 0]
  if len(shape) < 2 or not free:
    return spec
  axes[max(free, key=lambda i: shape[i])] = 'data'
  return PartitionSpec(*axes)


def state_shardings(
  state: Any, optimizer: optax.GradientTransformation, mesh: Mesh, fully_sharded: bool
) -> Any:
  """The sharding of every array of a TrainState; state: shapes are enough.

  The optimizer state and the moving average of a parameter are sharded like the parameter;
  everything else is replicated. Raises InputError as `parameter_specs`.
  """
  specs = parameter_specs(state.params, mesh, fully_sharded)
  params = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
  opt_state = optax.tree.map_params(
    optimizer,
    lambda _, sharding: sharding,
    state.opt_state,
    params,
    transform_non_params=lambda _: replicated(mesh),
  )
  return state._replace(
    step=replicated(mesh),
    params=params,
    opt_state=opt_state,
    ema_params=None if state.ema_params is None else params,
  )


def placed(shapes: Any, shardings: Any) -> Any:
  """Shapes and dtypes, with the sharding that each array is to have."""
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
  )


def check_model_axis(mesh: Mesh, model: Any) -> None:
  """Raises InputError unless the model axis divides the heads; model: num_heads, decoder_heads."""
  size = mesh.shape['model']
  for key in ('num_heads', 'decoder_heads'):
    if model[key] % size:
      raise InputError(
        f'config.mesh.model={size} shards the heads of every block, so it must divide '
        f'config.model.{key}={model[key]}.'
      )


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
  """Raises InputError unless every device gets the same number of clips."""
  if batch_size % mesh.shape['data']:
    raise InputError(
      f'{key}={batch_size} cannot be shared equally by {mesh.shape["data"]} devices; '
      f'make it a multiple of {mesh.shape["data"]}.'
    )


def part_of_process(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
  """The consecutive part of every batch that a process (None: this one) reads: (index, parts).

  Processes that share rows of the mesh, because its model axis exceeds their devices, read the same
  part. Raises InputError where processes would partly share rows.
  """
  process = jax.process_index() if process is None else process
  owners = [tuple(sorted({device.process_index for device in row})) for row in mesh.devices]
  groups = list(dict.fromkeys(owners))
  if len({owners.count(group) for group in groups}) > 1 or len(
    {owner for group in groups for owner in group}
  ) != sum(map(len, groups)):
    raise InputError(
      f'config.mesh.model={mesh.shape["model"]} must divide the devices of every process, or be '
      'a multiple of their number, and every process must have the same number of devices.'
    )
  return next(i for i, group in enumerate(groups) if process in group), len(groups)


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """This process's part of a global batch (NumPy) -> global arrays sharded over 'data'."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def put(tree: Any, shardings: Any) -> Any:
  """The same host values on every process -> global arrays; each device gets its own part."""

  def place(x: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
      return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

  return jax.tree.map(place, tree, shardings)


def put_replicated(tree: Any, mesh: Mesh) -> Any:
  """The same host values on every process -> arrays replicated on every device."""
  return put(tree, jax.tree.map(lambda _: replicated(mesh), tree))
