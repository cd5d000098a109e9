"""One device and eight pre-train alike, whatever the mesh; one CPU simulates them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evad_jax.model.masking import DECODER_MASKS

# Compiles for eight devices: python -m pytest -m slow tests/training/test_pretraining_devices.py
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def found():
  """What tests/pretrain_on_meshes.py prints."""
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0',
  }
  command = [sys.executable, '-m', 'tests.pretrain_on_meshes']
  script = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert script.returncode == 0, script.stderr
  return json.loads(script.stdout.splitlines()[-1])


@pytest.mark.parametrize('decoder_mask', DECODER_MASKS)
@pytest.mark.parametrize('mesh', ['data', 'model', 'fsdp', 'model fsdp'])
def test_loss_and_gradients_agree_in_float64(found, mesh, decoder_mask):
  one, many = found[f'one {decoder_mask}'], found[f'{mesh} {decoder_mask}']
  np.testing.assert_allclose(many, one, rtol=1e-9, atol=1e-9)
