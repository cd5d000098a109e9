"""Trains the micro model on one fixed batch, on one device and on all, and prints the losses.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.train_on_meshes

A script of its own, because the number of devices has to be chosen before JAX starts.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

from evad_jax import from_config, sharding, train
from evad_jax.train_step import initial_state
from tests.micro_evad import micro_config, random_batch, random_parameters

# Name: devices (None: all), float64 or float32, steps.
RUNS = {
  'one float64': (1, True, 20),
  'all float64': (None, True, 20),
  'one float32': (1, False, 3),
  'all float32': (None, False, 3),
}


def prepare(count, wide):
  """The compiled step, and what it is called with. It refuses arguments of any other type."""
  with jax.enable_x64(wide):
    dtype = 'float64' if wide else 'float32'
    config = micro_config(dtype=dtype, drop_path=0.1, decoder_drop_path=0.1)
    model = from_config.make_model(config)
    optimizer = train.make_optimizer(config, model, lambda step: 3e-3)
    mesh = sharding.make_mesh(devices=jax.devices()[:count])
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), random_parameters(model))
    state = sharding.put_replicated(initial_state(params, optimizer, ema=False), mesh)
    batch = sharding.put_batch(random_batch(8), mesh)
    key = sharding.put_replicated(jax.random.key(1), mesh)
    step = train.compile_step(config, model, optimizer, mesh)
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
  # Compilation takes nearly all of the time.
  with ThreadPoolExecutor(2) as threads:
    prepared = list(threads.map(lambda run: prepare(*run[:2]), RUNS.values()))
  results = {}
  for (name, (_, wide, count)), arguments in zip(RUNS.items(), prepared, strict=True):
    with jax.enable_x64(wide):
      results[name] = losses(*arguments, count)
  print(json.dumps(results))
