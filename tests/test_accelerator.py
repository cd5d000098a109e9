"""What only an accelerator can show: its kernels, its rounding, its order of sums.

  python -m pytest -m accelerator -n 0 tests/test_accelerator.py

Passes on a CPU too, at the same small sizes.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.model import attention
from evad_jax.model.vit import Encoder
from evad_jax.training import setup
from evad_jax.training.train_step import initial_state, train_step
from tests import micro_evad

pytestmark = pytest.mark.accelerator

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / 'tests' / 'golden'
DETERMINISTIC = '--xla_gpu_deterministic_ops=true'
# Tokens of ViT-B's stages on AVA's canvases, odd ones among them: kernels have rules for lengths.
LENGTHS = (2259, 1815, 1271, 890)


def needs(form, dtype):
  """Skips where the device has no such form. Asked in the test: collecting must take no device."""
  try:
    attention.form_for(form, attention.BLOCKED_FROM, dtype)
  except InputError as error:
    pytest.skip(str(error))


def arrays(n, dtype, masked):
  """Query, key, value, a direction for the gradient, and mask and weights of rows."""
  rng = np.random.default_rng(n)
  q, k, v, direction = (
    jnp.asarray(rng.standard_normal((1, 2, n, 64), np.float32), dtype) for _ in range(4)
  )
  mask = jnp.asarray(np.arange(n)[None] % 5 != 2) if masked else None
  weight = jnp.asarray(rng.uniform(0.5, 4, (1, n)), jnp.float32)
  return q, k, v, direction, mask, weight if mask is None else jnp.where(mask, weight, 0)


def outputs_and_gradients(call, q, k, v, direction, mask, weight):
  """out, importance, and the gradients of sum(out * direction), of real queries alone."""

  def loss(q, k, v):
    out, importance = call(q, k, v, key_mask=mask, query_weight=weight)
    real = 1 if mask is None else mask[:, None, :, None].astype(jnp.float32)
    return (out.astype(jnp.float32) * direction.astype(jnp.float32) * real).sum(), (out, importance)

  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
  (_, (out, importance)), gradients = run(q, k, v)
  if mask is not None:
    out = jnp.where(mask[:, None, :, None], out, 0)
    importance = jnp.where(mask, importance, 0)
  return [np.asarray(x, np.float32) for x in (out, importance, *gradients)]


@functools.cache
def plain(n, dtype, masked):
  """The oracle: the same numbers, in float32 and full precision."""
  q, k, v, direction, mask, weight = arrays(n, dtype, masked)
  wide = (x.astype(jnp.float32) for x in (q, k, v, direction))
  with jax.default_matmul_precision('highest'):
    return outputs_and_gradients(attention.attend, *wide, mask, weight)


def distance(found, true):
  """Norm of the difference, as a part of the norm."""
  return np.linalg.norm(found - true) / np.linalg.norm(true)


@pytest.mark.parametrize('masked', [False, True], ids=['whole', 'masked'])
@pytest.mark.parametrize('n', LENGTHS)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16], ids=['float32', 'bfloat16'])
@pytest.mark.parametrize('form', ['blocked', 'fused'])
def test_attention_importance_and_gradients_are_the_plain_ones(form, dtype, n, masked):
  needs(form, dtype)
  true = plain(n, dtype, masked)
  with jax.default_matmul_precision('highest'):
    call = functools.partial(attention.attend_as, form)
    found = outputs_and_gradients(call, *arrays(n, dtype, masked))
  allowed = 1e-5 if dtype == jnp.float32 else 1e-2
  for name, ours, theirs in zip(('out', 'importance', 'q', 'k', 'v'), found, true, strict=True):
    assert np.isfinite(ours).all(), name
    assert distance(ours, theirs) < allowed, name
  largest = np.abs(found[1] / np.where(true[1] == 0, 1, true[1]) - (true[1] != 0)).max()
  assert largest < (1e-4 if dtype == jnp.float32 else 3e-2)  # importance, token by token


def encoder(dtype, remat):
  """Four blocks of which two prune."""
  return Encoder(
    width=192,
    depth=4,
    num_heads=3,
    tubelet=2,
    patch=8,
    pretrain_grid=(8, 8),
    keep_rates=(1.0, 0.7, 0.7, 1.0),
    enhanced_weight=1.0,
    feature_blocks=(0, 1, 2, 3),
    drop_path=0.0,
    remat=remat,
    dtype=dtype,
  )


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16], ids=['float32', 'bfloat16'])
def test_the_backward_pass_chooses_the_tokens_of_the_forward_pass(dtype):
  """Gradients with recomputation are those without it: 448 tokens of noise, start values."""
  rng = np.random.default_rng(0)
  clips = jnp.asarray(rng.standard_normal((2, 8, 64, 112, 3), np.float32), dtype)
  mask = jnp.ones((2, 112), bool)
  start = jax.jit(functools.partial(encoder(dtype, False).init, train=False))
  params = start(jax.random.key(0), clips, mask)
  found = {}
  for remat in (False, True):
    call = functools.partial(encoder(dtype, remat).apply, train=True)

    def loss(params, direction, call=call):
      return (call(params, clips, mask)[0].x.astype(jnp.float32) * direction).sum()

    length = jax.eval_shape(call, params, clips, mask)[0].x.shape
    direction = np.random.default_rng(1).standard_normal(length).astype(np.float32)
    gradients = jax.jit(jax.grad(loss))(params, direction)['params']
    found[remat] = {
      name: np.concatenate([np.ravel(x).astype(np.float32) for x in jax.tree.leaves(part)])
      for name, part in gradients.items()
    }
  for name, true in found[False].items():
    assert distance(found[True][name], true) < 0.01, name


def test_golden_forward():
  """The full model and its choice of tokens against the published implementation's numbers."""
  path = GOLDEN / 't1_ktp.npz'
  if not path.is_file():
    pytest.skip('tests/golden/t1_ktp.npz is not there')
  from tests.golden_check import check, table

  rows = check(path)
  failed = [row for row in rows if not row.passed()]
  assert not failed, '\n' + table(failed)


def three_steps(device):
  """Losses and parameters of three steps in float32, on one device."""
  config = micro_evad.micro_config()
  model = micro_evad.micro_model()
  optimizer = setup.make_optimizer(config, model, lambda step: 1e-4)
  with jax.default_device(device), jax.default_matmul_precision('highest'):
    state = initial_state(micro_evad.random_parameters(model), optimizer, ema=False)
    batch, key = micro_evad.random_batch(4), jax.random.key(0)
    state, batch, key = jax.device_put((state, batch, key), device)
    step = jax.jit(
      functools.partial(train_step, model=model, optimizer=optimizer, action_weight=12.0)
    )
    losses, norms = [], []
    for _ in range(3):
      state, metrics = step(state, batch, key)
      losses.append(float(metrics.loss))
      norms.append(float(metrics.grad_norm))
  assert {d.platform for d in jax.tree.leaves(state.params)[0].devices()} == {device.platform}
  return np.array([losses, norms])


def test_three_steps_are_those_of_the_cpu():
  """Another process computes them: the implementation depends on the default device."""
  ours = three_steps(jax.devices()[0])
  command = [sys.executable, '-c', 'from tests.test_accelerator import print_steps; print_steps()']
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  script = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert script.returncode == 0, script.stderr[-2000:]
  true = np.array([float(x) for x in script.stdout.split()]).reshape(2, 3)
  assert len(set(true[0])) == 3
  np.testing.assert_allclose(ours, true, rtol=1e-3)


def print_steps():
  print(*(repr(float(x)) for x in three_steps(jax.devices('cpu')[0]).ravel()))


def test_a_restarted_run_gives_the_same_losses(tmp_path):
  """Stopped after a checkpoint and started again; to the last bit."""
  from tests.tiny_run import make_data

  data = make_data(tmp_path / 'data', train=16, test=4)
  flags = os.environ.get('XLA_FLAGS', '')
  if jax.default_backend() == 'gpu':
    flags = f'{flags} {DETERMINISTIC}'
  # Beside this process, which may hold most of the card.
  environment = {**os.environ, 'XLA_FLAGS': flags, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}

  def run(workdir, stop=''):
    command = [sys.executable, '-c', RESTART, str(data), str(tmp_path / workdir), stop]
    script = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert script.returncode == (9 if stop else 0), script.stderr[-2000:]
    lines = (tmp_path / workdir / 'metrics.jsonl').read_text().splitlines()
    return {line['step']: line['loss'] for line in map(json.loads, lines) if 'loss' in line}

  whole = run('whole')
  assert len(whole) == 8
  before = run('stopped', stop='6')
  assert 5 <= max(before) < 8
  assert run('stopped') == whole


RESTART = """
import os
import sys
from pathlib import Path
from evad_jax import main
from evad_jax.training.programs import Programs
from tests.run_tiny import configuration

stop, call = int(sys.argv[3] or 0), Programs.run

def stopping(self, state, batch, step, progress):
  if step == stop:
    os._exit(9)
  return call(self, state, batch, step, progress)

Programs.run = stopping
config = configuration(sys.argv[1])
config.train.update(eval_every=0, checkpoint_every=2)
main.run(config, Path(sys.argv[2]), 'train')
"""
