"""SIGKILL at any moment, then the same command: the losses continue as if undisturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evad_jax import main
from tests.run_results import losses, steps_so_far
from tests.tiny_run import make_data, tiny_config

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12

# A script instead of `-m evad_jax.main`: the tiny configuration exists in the tests only.
SCRIPT = """
import sys
from tests.training.test_resume import train

if __name__ == '__main__':
  train(*sys.argv[1:])
"""


def train(data, workdir, workers):
  config = tiny_config(data)
  config.train.epochs = 2.0
  config.data.workers = int(workers)
  main.run(config, Path(workdir), 'train')


def start(data, workdir, workers):
  return subprocess.Popen(
    [sys.executable, '-c', SCRIPT, str(data), str(workdir), str(workers)]
    if workers == 0
    else [sys.executable, str(script_file(workdir)), str(data), str(workdir), str(workers)],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
    start_new_session=True,
  )


def script_file(workdir):
  """Worker processes import the main module again, so it has to be a file."""
  path = workdir.with_suffix('.py')
  path.write_text(SCRIPT)
  return path


def finish(process):
  _, errors = process.communicate(timeout=600)
  assert process.returncode == 0, errors.decode()


def kill_after(process, workdir, step):
  """Sends SIGKILL to the process group as soon as the step is in the log."""
  deadline = time.time() + 600
  while step not in steps_so_far(workdir):
    assert process.poll() is None, process.stderr.read().decode()
    assert time.time() < deadline
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  folder = tmp_path_factory.mktemp('resume')
  data = make_data(folder / 'data', train=24, test=4)
  train(data, folder / 'whole', 0)
  expected = losses(folder / 'whole')
  assert sorted(expected) == list(range(1, STEPS + 1))
  return data, expected, folder


@pytest.mark.parametrize(
  'workers, kills',
  [
    pytest.param(0, (5, 9), marks=pytest.mark.slow),
    pytest.param(2, (3, 8), marks=pytest.mark.slow),
    (2, (5,)),  # with processes that decode, in the middle of the first epoch
  ],
)
def test_killed_in_the_middle_of_an_epoch(undisturbed, workers, kills):
  data, expected, folder = undisturbed
  workdir = folder / f'killed_{workers}_{len(kills)}'
  for step in kills:
    kill_after(start(data, workdir, workers), workdir, step)
  finish(start(data, workdir, workers))
  assert losses(workdir) == expected  # to the last bit
