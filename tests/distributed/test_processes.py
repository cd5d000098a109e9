"""Two processes on one machine: their agreement, and impossible settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.distributed import processes as distributed
from evad_jax.errors import InputError
from tests.free_port import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def together(tmp_path_factory):
  """The results of tests/two_processes.py in both processes, and their output."""
  directory = tmp_path_factory.mktemp('together')
  arguments = [sys.executable, '-m', 'tests.two_processes', f'localhost:{free_port()}']
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  processes = [
    subprocess.Popen(
      [*arguments, str(number), str(directory)],
      cwd=ROOT,
      stdin=subprocess.DEVNULL,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  told = [process.communicate(timeout=600) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], told
  found = [json.loads((directory / f'{number}.json').read_text()) for number in range(2)]
  return directory, found, [out for out, _ in told]


def test_each_reads_its_part_of_a_batch(together):
  _, found, _ = together
  assert [process['part'] for process in found] == [[0, 2], [1, 2]]
  assert [process['batch'] for process in found] == [[0, 0, 1, 1]] * 2


def test_they_agree(together):
  _, found, told = together
  for process in found:
    assert process['any'] == [False, True]
    assert process['gathered'] == ['of 0', 'of 1', 'also of 1']
    assert process['of one'] == [1] and process['same'] == [True, False]
  lines = [[line for line in out.splitlines() if 'Gloo' not in line] for out in told]
  assert lines == [['process 0 speaks'], []]


def test_a_sigterm_to_one_stops_both_at_the_same_question(together):
  _, found, _ = together
  assert found[0]['stopped'] == found[1]['stopped'] == [3, True]


def test_what_two_save_one_reads(together):
  directory, _, _ = together
  with Checkpoints(directory / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.all_steps() == [5, 500]
    assert checkpoints.position(5) == {'next_example': 1}
    state = checkpoints.read_params(5)
  np.testing.assert_array_equal(state['split'], np.arange(6.0).reshape(2, 3))
  assert state['whole'] == 7


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'launch': 'slurm'}, "launch='slurm' is not one of"),
    ({'launch': 'explicit'}, "coordinator='' must be HOST:PORT"),
    ({'launch': 'explicit', 'coordinator': 'host:x'}, "'host:x' must be HOST:PORT"),
    (
      {'launch': 'explicit', 'coordinator': 'host:1', 'processes': 2, 'process': 2},
      'process=2 must be 0 to 1',
    ),
  ],
)
def test_settings_that_cannot_work_are_named(changes, words):
  settings = ConfigDict({**common.get_config().hosts.to_dict(), **changes})
  with pytest.raises(InputError, match=words.replace('(', r'\(')):
    distributed.start(settings)


def test_a_process_that_finds_nobody_ends_with_one_sentence():
  script = f"""
from ml_collections import ConfigDict
from evad_jax.distributed import processes as distributed
distributed._TIMEOUT = 1
settings = dict(launch='explicit', coordinator='localhost:{free_port()}', processes=2, process=1)
distributed.start(ConfigDict(settings))
"""
  result = subprocess.run(
    [sys.executable, '-c', script],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
  assert result.returncode == 2 and len(lines) == 1, result.stderr
  assert 'did not find each other within 1 seconds; start all of them at once' in lines[0]
  assert 'Traceback' not in result.stderr


def test_alone_is_a_program_of_one():
  distributed.start(common.get_config().hosts)
  distributed.wait_for_all('nothing')
  assert distributed.is_first() and distributed.share() == (0, 1)
  assert distributed.any_of(True) and not distributed.any_of(False)
  assert distributed.gather([1, 2]) == [1, 2]
  distributed.stop()
