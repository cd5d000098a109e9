"""One device and eight give the same training; eight are simulated by one CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from evad_jax import sharding
from evad_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def train(steps, wide):
  """Losses on one device and on eight, as tests/train_on_meshes.py prints them."""
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_ENABLE_X64': str(int(wide)),
    'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
  }
  script = subprocess.run(
    [sys.executable, '-m', 'tests.train_on_meshes', str(steps)],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert script.returncode == 0, script.stderr
  one, eight = json.loads(script.stdout.splitlines()[-1])
  assert (one['devices'], eight['devices']) == (1, 8)
  assert one['compilations'] == eight['compilations'] == 1
  return np.array(one['losses']), np.array(eight['losses'])


def test_first_steps_agree_in_float32():
  one, eight = train(3, wide=False)
  np.testing.assert_allclose(eight, one, rtol=1e-5)
  assert len(set(one)) == 3


def test_twenty_steps_agree_in_float64_and_learn_the_batch():
  one, eight = train(20, wide=True)
  np.testing.assert_allclose(eight, one, rtol=1e-9)
  assert len(one) == 20 and one[-3:].mean() < 0.7 * one[0]


def test_batches_that_cannot_be_shared_are_errors():
  mesh = jax.sharding.AbstractMesh((8, 1), sharding.AXES)
  sharding.check_batch_size(16, mesh, 'config.train.batch_size')
  with pytest.raises(InputError, match='config.train.batch_size=12 .* make it a multiple of 8'):
    sharding.check_batch_size(12, mesh, 'config.train.batch_size')


def test_model_axis_must_divide_the_devices():
  count = len(jax.devices())
  assert dict(sharding.make_mesh().shape) == {'data': count, 'model': 1}
  for size in (0, count + 1):
    with pytest.raises(InputError, match=f'config.mesh.model={size} must divide'):
      sharding.make_mesh(size)
