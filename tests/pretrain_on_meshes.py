"""Loss and gradients of the micro autoencoder on one device and on meshes, printed as JSON.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.pretrain_on_meshes

A separate script, because the number of devices has to be chosen before JAX starts.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from evad_jax.distributed import sharding
from evad_jax.training.pretraining_loss import pretraining_loss_terms
from tests.micro_pretraining import RATIO, grey_clips, micro_model, parameters
from tests.train_on_meshes import MESHES


def loss_and_gradients(name, decoder_mask):
  """The loss of 8 clips, and two numbers of every gradient, in float64."""
  data_size, model_size, fully_sharded = MESHES[name]
  mesh = sharding.make_mesh(model_size, jax.devices()[: data_size * model_size])
  model = micro_model(dtype=jnp.float64, num_heads=4, depth=1, decoder_depth=1)
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), parameters(model))
  specs = sharding.parameter_specs(params, mesh, fully_sharded)
  shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
  loss = functools.partial(
    pretraining_loss_terms, model=model, mask_ratio=RATIO, decoder_mask=decoder_mask
  )
  everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
  step = jax.jit(
    sharding.within(mesh, jax.value_and_grad(loss, has_aux=True)),
    in_shardings=(shardings, split, everywhere, split),
    out_shardings=(everywhere, shardings),
  )
  batch = sharding.put_batch((grey_clips(8), np.arange(8) != 5), mesh)
  key = sharding.put_replicated(jax.random.key(1), mesh)
  (found, _), gradients = step(sharding.put(params, shardings), batch[0], key, batch[1])
  gradients = [np.asarray(x) for x in jax.tree.leaves(gradients)]
  digest = [(np.abs(x).sum(), (x.ravel() * np.cos(np.arange(x.size))).sum()) for x in gradients]
  return [float(found), *map(float, np.ravel(digest))]


if __name__ == '__main__':
  assert len(jax.devices()) == 8
  with jax.enable_x64(True):
    print(
      json.dumps(
        {
          f'{name} {decoder_mask}': loss_and_gradients(name, decoder_mask)
          for decoder_mask in ('none', 'running_cell')
          for name in MESHES
        }
      )
    )
