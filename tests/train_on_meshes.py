"""Trains the micro model on one fixed batch, on one device and on meshes, and prints the losses.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.train_on_meshes

A separate script, because the number of devices has to be chosen before JAX starts.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

from evad_jax.distributed import sharding
from evad_jax.settings import from_config
from evad_jax.training import setup
from evad_jax.training.train_step import initial_state
from tests import flax_types
from tests.micro_evad import micro_config, random_batch, random_parameters

# Devices (data, model), and whether parameters are split over the data axis too.
MESHES = {
  'one': (1, 1, False),
  'data': (8, 1, False),
  'model': (4, 2, False),
  'fsdp': (8, 1, True),
  'model fsdp': (4, 2, True),
}
STEPS = {'float32': 3, 'float64': 20}


def prepare(name, dtype):
  """The compiled step and its arguments. It refuses arguments of any other type."""
  data_size, model_size, fully_sharded = MESHES[name]
  with jax.enable_x64(dtype == 'float64'):
    config = micro_config(dtype=dtype, drop_path=0.1, decoder_drop_path=0.1)
    config.mesh.update(model=model_size, fsdp=fully_sharded)
    model = from_config.make_model(config)
    optimizer = setup.make_optimizer(config, model, lambda step: 3e-3)
    mesh = sharding.make_mesh(model_size, jax.devices()[: data_size * model_size])
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), random_parameters(model))
    state = initial_state(params, optimizer, ema=False)
    state = sharding.put(state, sharding.state_shardings(state, optimizer, mesh, config.mesh.fsdp))
    batch = sharding.put_batch(random_batch(8), mesh)
    key = sharding.put_replicated(jax.random.key(1), mesh)
    step = setup.compile_step(config, model, optimizer, mesh)
    return step.lower(state, batch, key).compile(), state, batch, key


def losses(step, state, batch, key, count):
  """The loss before each of `count` steps."""
  found = []
  for _ in range(count):
    state, metrics = step(state, batch, key)
    found.append(float(metrics.loss))
  return found


if __name__ == '__main__':
  assert len(jax.devices()) == 8
  flax_types.promote()
  # Compilation takes nearly all of the time.
  runs = [(name, dtype) for dtype in STEPS for name in MESHES]
  with ThreadPoolExecutor(2) as threads:
    prepared = list(threads.map(lambda run: prepare(*run), runs))
  results = {}
  for (name, dtype), arguments in zip(runs, prepared, strict=True):
    with jax.enable_x64(dtype == 'float64'):
      results[f'{name} {dtype}'] = losses(*arguments, STEPS[dtype])
  print(json.dumps(results))
