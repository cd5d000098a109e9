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

# Compiling for eight devices takes minutes: python -m pytest -m slow tests/test_devices.py
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def losses():
  """What tests/train_on_meshes.py prints."""
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
  }
  command = [sys.executable, '-m', 'tests.train_on_meshes']
  script = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert script.returncode == 0, script.stderr
  return {name: np.array(run) for name, run in json.loads(script.stdout.splitlines()[-1]).items()}


def test_twenty_steps_agree_in_float64(losses):
  assert len(losses['one float64']) == 20
  np.testing.assert_allclose(losses['all float64'], losses['one float64'], rtol=1e-9)


def test_first_steps_agree_in_float32(losses):
  assert len(losses['one float32']) == 3
  np.testing.assert_allclose(losses['all float32'], losses['one float32'], rtol=1e-5)


def test_the_batch_is_learned(losses):
  run = losses['one float64']
  assert len(set(run)) == 20 and run[-3:].mean() < 0.7 * run[0]


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
