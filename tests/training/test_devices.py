"""One device and eight train alike, whatever the mesh; one CPU simulates them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# Compiling for eight devices takes minutes: python -m pytest -m slow tests/training/test_devices.py
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def losses():
  """The losses that tests/train_on_meshes.py prints."""
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
  }
  command = [sys.executable, '-m', 'tests.train_on_meshes']
  script = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert script.returncode == 0, script.stderr
  return {name: np.array(run) for name, run in json.loads(script.stdout.splitlines()[-1]).items()}


MESHES = ['data', 'model', 'fsdp', 'model fsdp']


@pytest.mark.parametrize('mesh', MESHES)
def test_twenty_steps_agree_in_float64(losses, mesh):
  assert len(losses['one float64']) == 20
  np.testing.assert_allclose(losses[f'{mesh} float64'], losses['one float64'], rtol=1e-9)


@pytest.mark.parametrize('mesh', MESHES)
def test_first_steps_agree_in_float32(losses, mesh):
  assert len(losses['one float32']) == 3
  np.testing.assert_allclose(losses[f'{mesh} float32'], losses['one float32'], rtol=1e-5)


def test_the_batch_is_learned(losses):
  run = losses['one float64']
  assert len(set(run)) == 20 and run[-3:].mean() < 0.7 * run[0]
