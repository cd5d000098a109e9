"""Training on two processes, killed or stopped, resumes on one process, and vice versa."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.free_port import free_port
from tests.run_results import losses, steps_so_far
from tests.tiny_run import make_data

# Compiles for every number of devices.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12


def start(data, workdir, cache, processes=1, devices=1, settings=()):
  """A run of so many processes with so many devices each."""
  launch = [f'localhost:{free_port()}', str(processes)]
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  command = [sys.executable, '-m', 'tests.run_tiny', str(data), str(workdir)]
  return [
    subprocess.Popen(
      [*command, *[*launch, str(number)] * (processes > 1), *settings],
      cwd=ROOT,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=environment,
    )
    for number in range(processes)
  ]


def finish(processes):
  told = [process.communicate(timeout=600) for process in processes]
  assert all(process.returncode == 0 for process in processes), told
  return [out for out, _ in told]


def stop_after(processes, workdir, step, number, *whom):
  """The signal to some of the processes when the step is in the log; past 4, when 4 is saved."""
  deadline = time.time() + 600
  saved = workdir / 'checkpoints' / '4'
  while step not in steps_so_far(workdir) or (step > 4 and not saved.exists()):
    assert all(p.poll() is None for p in processes), [p.communicate() for p in processes]
    assert time.time() < deadline
    time.sleep(0.01)
  for place in whom:
    processes[place].send_signal(number)


def kill_after(processes, workdir, step):
  stop_after(processes, workdir, step, signal.SIGKILL, *range(len(processes)))
  for process in processes:
    process.communicate()


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  folder = tmp_path_factory.mktemp('processes')
  data = make_data(folder / 'data', train=24, test=6)
  finish(start(data, folder / 'alone', folder / 'cache'))
  expected = losses(folder / 'alone')
  assert sorted(expected) == list(range(1, STEPS + 1))
  return data, folder, expected


def same_as_alone(workdir, folder, expected):
  found = losses(workdir)
  assert sorted(found) == sorted(expected)
  order = sorted(expected)
  np.testing.assert_allclose(
    [found[step] for step in order], [expected[step] for step in order], rtol=1e-4
  )
  ours, theirs = (
    json.loads((path / 'eval_test.json').read_text()) for path in (workdir, folder / 'alone')
  )
  assert ours['counts'] == theirs['counts']
  assert (workdir / 'eval_test_sheet.png').exists()


SETTINGS = {
  'data': (),
  'model': ('--config.mesh.model=2',),  # both processes read the same clips then
  'fsdp': ('--config.mesh.fsdp=True',),
}


@pytest.mark.parametrize('mesh', SETTINGS)
def test_two_processes_then_one_with_two_devices(alone, mesh):
  data, folder, expected = alone
  workdir = folder / f'two_then_one_{mesh}'
  kill_after(start(data, workdir, folder / 'cache', 2, 1, SETTINGS[mesh]), workdir, 6)
  told = finish(start(data, workdir, folder / 'cache', 1, 2))  # whatever the mesh was before
  assert re.search('Continuing from step [4-8] of 12', told[0])
  assert '2 devices in 1 processes, mesh: data=2, model=1' in told[0]
  same_as_alone(workdir, folder, expected)


def test_one_with_two_devices_then_two_processes(alone):
  data, folder, expected = alone
  workdir = folder / 'one_then_two'
  kill_after(start(data, workdir, folder / 'cache', 1, 2), workdir, 6)
  told = finish(start(data, workdir, folder / 'cache', 2))
  assert re.search('Continuing from step [4-8] of 12', told[0])
  assert '2 devices in 2 processes, mesh: data=2, model=1' in told[0]
  same_as_alone(workdir, folder, expected)


def test_sigterm_to_one_of_two_stops_both_and_one_goes_on(alone):
  data, folder, expected = alone
  workdir = folder / 'stopped'
  processes = start(data, workdir, folder / 'cache', 2)
  stop_after(processes, workdir, 2, signal.SIGTERM, 1)
  told = finish(processes)
  assert 'Stopped by SIGTERM in step ' in told[0]
  finish(start(data, workdir, folder / 'cache'))
  same_as_alone(workdir, folder, expected)


def test_two_processes_evaluate_as_one_does(alone):
  """Six clips in batches of four: the last batch has none for the second process."""
  data, folder, _ = alone
  workdir = folder / 'evaluated_by_two'
  shutil.copytree(folder / 'alone', workdir)
  for name in ('eval_test.json', 'eval_test_detections.csv', 'eval_test_sheet.png'):
    (workdir / name).unlink()
  finish(start(data, workdir, folder / 'cache', 2))  # it is trained already
  assert losses(workdir) == losses(folder / 'alone')
  ours, theirs = (
    json.loads((path / 'eval_test.json').read_text()) for path in (workdir, folder / 'alone')
  )
  assert ours['counts'] == theirs['counts']
  for figure in ('frame_mAP@0.5', 'person_AP@0.5'):
    assert ours[figure] == pytest.approx(theirs[figure], abs=1e-6)
  tables = [
    np.array([[float(x) for x in row.split(',')[1:]] for row in text.splitlines()])
    for text in (
      (path / 'eval_test_detections.csv').read_text() for path in (workdir, folder / 'alone')
    )
  ]
  np.testing.assert_allclose(*tables, atol=2e-6)
  sheets = [cv2.imread(str(path / 'eval_test_sheet.png')) for path in (workdir, folder / 'alone')]
  # The same clips, but those of process 0 first.
  assert sheets[0].shape == sheets[1].shape and abs(sheets[0].mean() - sheets[1].mean()) < 0.5
