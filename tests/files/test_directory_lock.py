"""Who holds a directory, and that it is free once the holder is gone, however it ended."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configs import demo
from evad_jax import main
from evad_jax.errors import InputError
from evad_jax.files import directory_lock
from tests.free_port import free_port

ROOT = Path(__file__).resolve().parents[2]
# Holds a directory until its input ends, with a child that may outlive it, like a worker process.
HOLDER = """
import subprocess, sys
from pathlib import Path
from evad_jax.errors import exit_on_input_error
from evad_jax.files import directory_lock
none = subprocess.DEVNULL
with exit_on_input_error(), directory_lock.held(Path(sys.argv[1]), 'training', 'another --workdir'):
  child = subprocess.Popen(['sleep', '600'], stdin=none, stdout=none, stderr=none)
  print(child.pid, flush=True)
  sys.stdin.read()
  child.kill()
"""


def held(directory):
  return directory_lock.held(directory, 'training', 'another --workdir')


def start(directory):
  """A process that wants the directory."""
  return subprocess.Popen(
    [sys.executable, '-c', HOLDER, str(directory)],
    cwd=ROOT,
    text=True,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def test_the_second_is_refused_until_the_first_is_gone(tmp_path):
  run = tmp_path / 'runs' / 'a'
  first = start(run)
  assert first.stdout.readline()
  second = start(run)
  told = second.communicate()[1]
  assert second.returncode == 2 and told.count('\n') == 1
  assert told.startswith(f'error: {run}: another process is training here (process {first.pid} on ')
  assert told.endswith('); wait for it, stop it, or give another --workdir.\n')
  first.communicate()  # its input ends
  assert first.returncode == 0
  third = start(run)
  assert third.stdout.readline()
  third.communicate()
  assert not run.exists()  # nothing was written there


def test_a_killed_holder_holds_nothing_even_while_its_children_live(tmp_path):
  first = start(tmp_path)
  child = int(first.stdout.readline())
  try:
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (tmp_path / directory_lock.NAME).exists()  # the file it left does not matter
    with held(tmp_path):
      assert str(os.getpid()) in (tmp_path / directory_lock.NAME).read_text()
      os.kill(child, 0)  # it is still there
  finally:
    os.kill(child, signal.SIGKILL)
  assert list(tmp_path.iterdir()) == []


def test_one_process_may_not_hold_it_twice(tmp_path):
  with held(tmp_path):
    (tmp_path / 'result').write_text('1')
    with pytest.raises(InputError, match='another process is training here'):
      with held(tmp_path):
        pass
  with held(tmp_path):
    pass
  assert [path.name for path in tmp_path.iterdir()] == ['result']


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path, monkeypatch):
  """Between opening and locking, the holder ends and another process takes the lock."""
  flock, others = fcntl.flock, []

  def late(descriptor, operation):
    if not others:
      (tmp_path / directory_lock.NAME).unlink()
      others.append(os.open(tmp_path / directory_lock.NAME, os.O_RDWR | os.O_CREAT))
      flock(others[0], fcntl.LOCK_EX)
    flock(descriptor, operation)

  monkeypatch.setattr(fcntl, 'flock', late)
  with pytest.raises(InputError, match=r'another process .*\(it has just started\)'):
    with held(tmp_path):
      pass
  os.close(others[0])


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys, number):
  def none(descriptor, operation):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, 'flock', none)
  with held(tmp_path):
    assert 'its file system has no locks' in capsys.readouterr().out


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='another --workdir'):
    with held(tmp_path / 'file' / 'run'):
      pass


def test_a_run_that_trains_holds_its_directory_and_an_evaluation_does_not(tmp_path, monkeypatch):
  reached = []
  monkeypatch.setattr(main, '_run', lambda config, workdir, mode: reached.append(mode))
  with main.alone_in(tmp_path):
    with pytest.raises(InputError, match='another process is training here'):
      main.run(demo.get_config(), tmp_path, 'train')
    main.run(demo.get_config(), tmp_path, 'eval')
  main.run(demo.get_config(), tmp_path, 'train')
  assert reached == ['eval', 'train']


# A run of two processes, up to the point where it has its directory.
RUN = """
import sys
from pathlib import Path
from ml_collections import ConfigDict
from evad_jax import main
from evad_jax.distributed import processes as distributed
from evad_jax.errors import exit_on_input_error
with exit_on_input_error():
  distributed.start(ConfigDict(dict(
    launch='explicit', coordinator=sys.argv[1], processes=2, process=int(sys.argv[2]))))
  with main.alone_in(Path(sys.argv[3])):
    print('has it', flush=True)
    distributed.wait_for_all('end')
  distributed.stop()
"""


def run_of_two(directory):
  """For both processes: status, whether it got the directory, and stderr."""
  coordinator = f'localhost:{free_port()}'
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', RUN, coordinator, str(number), str(directory)],
      cwd=ROOT,
      text=True,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )
    for number in range(2)
  ]
  told = [process.communicate(timeout=600) for process in processes]
  codes = [process.returncode for process in processes]
  return [(code, 'has it' in out, err) for code, (out, err) in zip(codes, told, strict=True)]


def test_all_processes_of_one_run_have_it_and_of_another_none(tmp_path):
  assert [(code, has) for code, has, _ in run_of_two(tmp_path)] == [(0, True)] * 2
  with held(tmp_path):
    found = run_of_two(tmp_path)
  assert [(code, has) for code, has, _ in found] == [(2, False)] * 2
  sentences = [[x for x in err.splitlines() if x.startswith('error: ')] for *_, err in found]
  assert f'another process is training here (process {os.getpid()} on ' in sentences[0][0]
  assert 'process 0 of this run says why' in sentences[1][0]
  assert all('Traceback' not in err for *_, err in found)
