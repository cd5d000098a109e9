"""SIGKILL at any moment, then the same command: the losses continue as if undisturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.run_results import losses, steps_so_far
from tests.tiny_run import make_data

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12

# A script instead of `-m evad_jax.main`: the tiny configuration exists in the tests only.
SCRIPT = """
import sys
from pathlib import Path
from evad_jax import main
from tests.tiny_run import tiny_config

if __name__ == '__main__':
  config = tiny_config(sys.argv[1])
  config.train.epochs = 2.0
  config.model.drop_path = 0.2
  config.data.workers = int(sys.argv[3])
  main.run(config, Path(sys.argv[2]), 'train')
"""


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
  finish(start(data, folder / 'whole', 0))
  expected = losses(folder / 'whole')
  assert sorted(expected) == list(range(1, STEPS + 1))
  return data, expected, folder


@pytest.mark.parametrize(
  'workers, kills',
  [
    # Without decoding processes less can go wrong.
    pytest.param(0, (5, 9), marks=pytest.mark.slow),
    (2, (3, 8)),
  ],
)
def test_killed_twice_in_the_middle_of_an_epoch(undisturbed, workers, kills):
  data, expected, folder = undisturbed
  workdir = folder / f'killed_{workers}'
  for step in kills:
    kill_after(start(data, workdir, workers), workdir, step)
  finish(start(data, workdir, workers))
  assert losses(workdir) == expected  # to the last bit
