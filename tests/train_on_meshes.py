"""Trains the micro model on one fixed batch, on one device and on all, and prints the losses.

  python -m tests.train_on_meshes STEPS

With JAX_ENABLE_X64=1 everything is float64. A script of its own, because the number of devices has
to be chosen before JAX starts.
"""

import json
import sys

import jax
import jax.numpy as jnp

from evad_jax import from_config, sharding, train
from evad_jax.train_step import initial_state
from tests.micro_evad import micro_config, random_batch, random_parameters


def losses_on(devices, steps):
  """The loss before each step, and how often the step was compiled."""
  wide = jax.config.jax_enable_x64
  config = micro_config(
    dtype='float64' if wide else 'float32', drop_path=0.1, decoder_drop_path=0.1
  )
  model = from_config.make_model(config)
  optimizer = train.make_optimizer(config, model, lambda step: 3e-3)
  mesh = sharding.make_mesh(devices=devices)
  step = train.compile_step(config, model, optimizer, mesh)
  params = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.float64 if wide else jnp.float32), random_parameters(model)
  )
  state = sharding.put_replicated(initial_state(params, optimizer, ema=False), mesh)
  batch, key = sharding.put_batch(random_batch(8), mesh), jax.random.key(1)
  found = []
  for _ in range(steps):
    state, metrics = step(state, batch, key)
    found.append(float(metrics.loss))
  return {'losses': found, 'compilations': step._cache_size(), 'devices': len(devices)}


if __name__ == '__main__':
  meshes = (jax.devices()[:1], jax.devices())
  print(json.dumps([losses_on(devices, int(sys.argv[1])) for devices in meshes]))
