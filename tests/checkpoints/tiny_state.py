"""Training states of two small arrays, saved as checkpoints, and a disk without room for more."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from evad_jax.training.train_step import initial_state

SETTINGS = {'width': 4, 'keep_rate': 0.7, 'prune_blocks': [1, 2], 'padding': 'masked'}


def make_state(width=4, ema=False, seed=0):
  rng = np.random.default_rng(seed)
  params = {
    'encoder': {'kernel': rng.normal(size=(3, width)).astype(np.float32)},
    'fpn': {'bias': rng.normal(size=2).astype(np.float32)},
  }
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
  state = initial_state(jax.tree.map(jnp.asarray, params), optimizer, ema)
  return state._replace(step=jnp.int32(seed))


def abstract(state):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def save(checkpoints, step, state=None, metrics=None):
  state = make_state(seed=step) if state is None else state
  checkpoints.save(step, state, SETTINGS, {'next_example': 16 * step}, metrics)


def fill_disk(monkeypatch):
  """From here on every save fails: there is no space left."""

  async def async_save(self, directory, *arguments, **keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(ocp.JsonCheckpointHandler, 'async_save', async_save)
