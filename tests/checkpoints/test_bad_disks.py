"""Full, read-only or damaged disks: one clear sentence, and the last complete checkpoint."""

import ctypes
import errno
import os
import shutil
import threading
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from evad_jax import main
from evad_jax.checkpoints import checksums, recovery
from evad_jax.checkpoints.manager import BEST_METRIC, Checkpoints, DamagedError
from evad_jax.data.data_set_directory import alone_in
from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError
from evad_jax.files import storage
from evad_jax.inference.detector import Detector
from evad_jax.video.video_writer import check_name
from tests.checkpoints.tiny_state import abstract, fill_disk, make_state, save
from tests.damage import flip_bit
from tests.tiny_run import make_data, tiny_config


@pytest.fixture
def saved(tmp_path):
  """Checkpoints 1, 2 and 3."""
  with Checkpoints(tmp_path / 'checkpoints', keep_last=3) as checkpoints:
    for step in (1, 2, 3):
      save(checkpoints, step)
  return tmp_path / 'checkpoints'


def newest(directory):
  with Checkpoints(directory, keep_last=3) as checkpoints:
    step, state, position = recovery.restore_newest(checkpoints, abstract(make_state()))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(seed=step))
    assert position == {'next_example': 16 * step}
    return step


def test_a_deleted_newest_checkpoint_is_not_missed(saved):
  shutil.rmtree(saved / '3')
  assert newest(saved) == 2


def damage_data(step):
  flip_bit(max((step / 'state').rglob('d/*'), key=lambda path: path.stat().st_size))


def damage_position(step):
  (step / 'position' / 'metadata').write_text('{"next_example": 4')


def truncate(step):
  path = max((step / 'state').rglob('d/*'), key=lambda path: path.stat().st_size)
  path.write_bytes(path.read_bytes()[:-7])


def remove_state(step):
  shutil.rmtree(step / 'state')


def remove_parts(step):
  for path in (step / 'state').rglob('d/*'):
    path.unlink()


def empty(step):
  for path in step.iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def damage_figures(step):
  (step / 'metrics' / 'metrics').write_text('{"frame_mAP@0.5": 0.')


def damage_seal(step):
  (step / checksums.NAME).write_text('{"state": 1}')


DAMAGES = [damage_data, damage_position, truncate, remove_state, remove_parts, empty]
DAMAGES += [damage_figures, damage_seal]


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_taken(saved, damage, capsys):
  damage(saved / '3')
  assert newest(saved) == 2
  told = capsys.readouterr().out
  assert f'{saved}/3: the checkpoint ' in told and 'Set aside; trying the checkpoint before' in told
  assert (saved / 'damaged-3').is_dir() and not (saved / '3').exists()
  with Checkpoints(saved, keep_last=3) as checkpoints:
    save(checkpoints, 3)  # the run reaches the same step again
  assert newest(saved) == 3


@pytest.mark.parametrize('damage', [remove_state, remove_parts])
def test_damage_shows_without_checksums_too(saved, damage):
  """A run that was killed before it could seal its newest checkpoint."""
  (saved / '3' / checksums.NAME).unlink()
  damage(saved / '3')
  assert newest(saved) == 2


def test_when_all_are_damaged_the_run_does_not_start_anew(saved):
  for step in (1, 2, 3):
    damage_data(saved / str(step))
  for _ in range(2):  # nor when it starts again
    with pytest.raises(InputError, match='none of its checkpoints could be read; .* damaged-'):
      newest(saved)


def test_a_step_that_is_damaged_twice_is_set_aside_twice(saved):
  for _ in range(2):
    truncate(saved / '3')
    assert newest(saved) == 2
    with Checkpoints(saved, keep_last=3) as checkpoints:
      save(checkpoints, 3)
  assert sorted(path.name for path in saved.glob('damaged-*')) == ['damaged-3', 'damaged-3-2']


def test_what_fails_with_good_files_is_no_damage(saved, monkeypatch):
  def fail(*arguments, **keywords):
    raise RuntimeError('RESOURCE_EXHAUSTED')

  with monkeypatch.context() as patch:
    patch.setattr(ocp.StandardCheckpointHandler, 'restore', fail)
    with pytest.raises(RuntimeError, match='RESOURCE_EXHAUSTED'):
      newest(saved)
  assert newest(saved) == 3


def test_evaluation_of_a_damaged_checkpoint_names_the_file_and_the_others(saved):
  damage_data(saved / '3')
  with Checkpoints(saved, read_only=True) as checkpoints:
    with pytest.raises(DamagedError, match=r'bytes of .* are not what was written.*of \[1, 2, 3\]'):
      checkpoints.read_params(3)


def test_figures_that_come_later_are_kept(saved):
  with Checkpoints(saved, keep_last=3) as checkpoints:
    assert checkpoints.best_step() is None
    checkpoints.set_metrics(2, {BEST_METRIC: 0.5})
    assert checkpoints.best_step() == 2
  with Checkpoints(saved, read_only=True) as checkpoints:
    assert checkpoints.best_step() == 2
  assert checksums.damage(saved / '2') is None


def test_steps_do_not_wait_for_the_seal(tmp_path, monkeypatch):
  seal, go_on = checksums.seal, threading.Event()
  monkeypatch.setattr(checksums, 'seal', lambda path: go_on.wait(600) and seal(path))
  with Checkpoints(tmp_path) as checkpoints:
    save(checkpoints, 1)
    while checkpoints._sealing is None:
      checkpoints.check()  # returns although the seal waits
    assert not checksums.is_sealed(tmp_path / '1')
    go_on.set()
    checkpoints.wait()
    assert checksums.is_sealed(tmp_path / '1')


def test_a_seal_that_cannot_be_written_is_told(tmp_path, monkeypatch):
  def fail(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(checksums, 'seal', fail)
  with pytest.raises(InputError, match='No space left on device'):
    with Checkpoints(tmp_path) as checkpoints:
      save(checkpoints, 1)
      checkpoints.wait()


def test_seal_shares_its_work(saved):
  damage_data(saved / '2')
  found = [checksums.damage(saved / '2', part, 3) for part in range(3)]
  assert sum(words is not None for words in found) == 1


@pytest.fixture
def small_disk(tmp_path):
  """A mounted file system of one megabyte; skips where mounting is not allowed."""
  place = tmp_path / 'small'
  place.mkdir()
  libc = ctypes.CDLL(None, use_errno=True)
  if libc.mount(b'tmpfs', str(place).encode(), b'tmpfs', 0, b'size=1m'):
    pytest.skip('mounting is not allowed here')
  yield place
  libc.umount2(str(place).encode(), 2)  # MNT_DETACH


def test_a_full_disk_is_told_and_the_last_good_checkpoint_stays(tmp_path, monkeypatch):
  directory = tmp_path / 'checkpoints'
  with pytest.raises(InputError) as caught:
    with Checkpoints(directory, keep_last=1) as checkpoints:
      save(checkpoints, 1)
      checkpoints.wait()
      fill_disk(monkeypatch)
      save(checkpoints, 2)
      checkpoints.wait()
  assert 'No space left on device; the last complete checkpoint is of step 1' in str(caught.value)
  assert newest(directory) == 1


def test_a_full_file_system(small_disk, capfd):
  directory = small_disk / 'checkpoints'
  width = 100_000  # 1.2 MB of parameters
  with pytest.raises(InputError, match='No space left on device; the last complete .* of step 1'):
    with Checkpoints(directory, keep_last=2) as checkpoints:
      save(checkpoints, 1)
      save(checkpoints, 2, make_state(width=width))
  assert 'Traceback' not in capfd.readouterr().err
  assert newest(directory) == 1
  assert sorted(path.name for path in directory.iterdir()) == ['1']  # nothing incomplete


def test_a_read_only_working_directory_is_told_at_the_start(tmp_path, monkeypatch):
  config = tiny_config(make_data(tmp_path / 'data'))

  def refuse(path, *arguments, **keywords):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

  with monkeypatch.context() as patch:
    patch.setattr('pathlib.Path.mkdir', refuse)
    with pytest.raises(InputError, match='run: cannot be written: Read-only file system'):
      main.run(config, tmp_path / 'run', 'train')


@pytest.mark.parametrize('error', [ZeroDivisionError('x'), ConnectionResetError(104, 'reset')])
def test_other_errors_stay_what_they_are(tmp_path, error):
  with pytest.raises(type(error)):
    with storage.told(tmp_path):
      raise error


def test_what_may_have_been_reading_is_not_called_writing(tmp_path):
  for number, words in ((errno.ENOSPC, 'be written: No space'), (errno.EIO, 'be read or written')):
    with pytest.raises(InputError, match=f'clips/a: cannot {words}'), storage.told(tmp_path):
      raise OSError(number, os.strerror(number), 'clips/a')


# With one slash: what pathlib leaves of it.
@pytest.mark.parametrize(
  'address', ['gs://bucket/run', 's3://bucket/run', 'gs:/bucket/run', 's3:/bucket/run']
)
def test_an_address_is_no_path(address, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = tiny_config(tmp_path / 'data')
  given = [
    ('--workdir', lambda: main.run(config, Path(address), 'train')),
    ('A directory of checkpoints', lambda: Detector.from_checkpoint(address)),
    ('A directory of checkpoints', lambda: Checkpoints(Path(address))),
    ('The directory of a data set', lambda: RecordIndex.open(address, 'train')),
    ('The directory of a data set', lambda: alone_in(address, 'tiny').__enter__()),
    ('A video to write', lambda: check_name(Path(address) / 'a.mp4')),
  ]
  for key in ('checkpoint', 'init_from', 'data.directory'):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({key: address})
    given.append((f'config.{key}', lambda changed=changed: main.run(changed, tmp_path, 'train')))
  for name, call in given:
    kind = address[:2]
    with pytest.raises(InputError, match=f'^{name} is {kind}://bucket/run.*, .*; mount .*gcsfuse'):
      call()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'path', 'runs/a /mnt/gs:/b C:/runs a:b/c ./gs:/b 12:30/run run:1 /a/cam:/run cam:/run'.split()
)
def test_what_only_looks_like_an_address_is_a_path(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path('cam:').mkdir()
  storage.refuse_address(path, '--workdir')


@pytest.mark.parametrize('name', [b'caf\xe9', b'\xff'])
def test_checkpoints_in_a_directory_whose_name_is_no_text(tmp_path, name):
  place = tmp_path / os.fsdecode(name) / 'run'
  for read_only in (False, True):
    with pytest.raises(InputError, match=r'\\x.*/run/checkpoints: the name has bytes that are no'):
      Checkpoints(place / 'checkpoints', read_only=read_only)
  assert not place.exists()


@pytest.mark.parametrize('name', ['a:b', 'ü 画', 'x?y#z%20', 'two\nlines'])
def test_checkpoints_in_a_directory_of_any_name(tmp_path, name):
  directory = tmp_path / name / 'checkpoints'
  with Checkpoints(directory) as checkpoints:
    save(checkpoints, 1)
  assert newest(directory) == 1
