"""A preparation that is killed and restarted writes the same bytes as an undisturbed one."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from data_prep import custom
from evad_jax.data import data_set_directory, record_writer
from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError
from evad_jax.formats.problems import Problems
from tests.data_prep.killed import hashes, run
from tests.video.tiny_videos import write_video

SPLITS = ['train', 'train', 'train', 'test', 'train', 'test', 'train', 'test']


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
  """Eight videos of two splits, one of them unreadable, in four shards."""
  root = tmp_path_factory.mktemp('source')
  videos = {}
  for number, split in enumerate(SPLITS):
    name = f'v{number}'
    write_video(root / f'{name}.mp4', 20)
    boxes = [[0.25, 0.25, 0.75, 0.75]] * (19 if number != 3 else 24)  # v3: beyond the end
    tube = {'labels': ['run'], 'start': 1, 'boxes': boxes}
    videos[name] = {'split': split, 'normalised': True, 'tubes': [tube]}
  (root / 'v2.mp4').write_bytes(b'no video')
  (root / 'all.json').write_text(json.dumps({'classes': ['run', 'sit'], 'videos': videos}))
  return root


def command(source: Path, output: Path, *more: str) -> list[str]:
  flags = ['--annotations', str(source / 'all.json'), '--output', str(output)]
  return [*flags, '--shard-frames', '50', *more]


@pytest.fixture(scope='module')
def undisturbed(source, tmp_path_factory) -> dict[str, str]:
  output = tmp_path_factory.mktemp('undisturbed') / 'out'
  custom.main(command(source, output, '--workers', '1'))
  made = hashes(output)
  assert sorted(made) == [
    'custom-test.tfrecord-00000-of-00002',
    'custom-test.tfrecord-00001-of-00002',
    'custom-train.tfrecord-00000-of-00003',
    'custom-train.tfrecord-00001-of-00003',
    'custom-train.tfrecord-00002-of-00003',
    'dataset_info.json',
    'features.json',
    'index-test.npz',
    'index-train.npz',
    'manifest.json',
    'tubes-test.npz',
    'tubes-train.npz',
  ]
  return made


def kill(arguments: list[str], function: str, moment: str, count: int) -> None:
  assert run(function, moment, count, arguments) == -signal.SIGKILL


def parts(output: Path) -> int:
  return len(list(output.glob('.part-*')))


def test_killed_at_many_moments_one_after_the_other(source, undisturbed, tmp_path, capsys):
  """Every run resumes where the previous one was killed."""
  output = tmp_path / 'out'
  mine = command(source, output, '--workers', '1')
  kill(mine, 'rename', 'before', 1)  # the plan is not yet noted
  kill(mine, 'rename', 'after', 1)  # it is
  kill(mine, 'write', 'after', 2)  # in the middle of the first shard
  assert parts(output) == 0
  kill(mine, 'rename', 'after', 1)  # a shard has its name, and its part of the index has none
  assert parts(output) == 0
  kill(mine, 'rename', 'before', 4)  # the second shard is in the same state
  assert parts(output) == 1
  kill(mine, 'write', 'before', 1)
  kill(mine, 'rename', 'after', 7)  # the last four shards but one
  assert parts(output) == 4
  kill(mine, 'rename', 'after', 3)  # the last shard, and the index of a split
  assert parts(output) == 5
  with pytest.raises(InputError, match='did not finish'):
    RecordIndex.open(output, 'train')
  kill(mine, 'rename', 'before', 5)  # indices and tubes are there, but no manifest
  kill(mine, 'rename', 'after', 5)  # the manifest is, and what must go away is too
  assert parts(output) == 5
  RecordIndex.open(output, 'train')
  kill(mine, 'delete', 'after', 2)
  assert parts(output) == 3
  custom.main(mine)
  assert 'is already prepared' in capsys.readouterr().out
  assert hashes(output) == undisturbed


@pytest.mark.parametrize('count', [3, 6, 10])
def test_killed_once_with_two_threads(source, undisturbed, tmp_path, count, capsys):
  output = tmp_path / 'out'
  mine = command(source, output, '--workers', '2')
  kill(mine, 'rename', 'after', count)
  whole = parts(output)
  assert whole >= (count - 2) // 2
  custom.main(mine)
  told = capsys.readouterr().out  # of two threads, which finishes what before the kill is open
  assert (f'resuming: {whole} of 5 shards are complete' in told) == (whole > 0)
  assert hashes(output) == undisturbed


def test_a_complete_directory_is_left_alone(source, undisturbed, tmp_path, capsys):
  output = tmp_path / 'out'
  custom.main(command(source, output, '--workers', '3'))
  times = {path: path.stat().st_mtime_ns for path in output.iterdir()}
  capsys.readouterr()
  custom.main(command(source, output))
  printed = capsys.readouterr().out
  assert 'is already prepared with the same plan; nothing to do' in printed
  assert 'problems: 1 annotation beyond the end, 1 undecodable video' in printed
  assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == times
  (output / 'custom-train.tfrecord-00001-of-00003').unlink()
  with pytest.raises(InputError, match='00001-of-00003: shard is missing.*--overwrite'):
    custom.main(command(source, output))
  custom.main(command(source, output, '--overwrite'))
  assert hashes(output) == undisturbed


def test_another_plan_is_told_by_its_differences(source, undisturbed, tmp_path):
  output = tmp_path / 'out'
  custom.main(command(source, output))
  other = command(source, output, '--jpeg-quality', '90')
  with pytest.raises(InputError, match='another plan .jpeg_quality 95 there, 90 now.; pass --over'):
    custom.main(other)
  os.utime(source / 'v0.mp4')  # neither a name nor a size
  custom.main(command(source, output))
  data = (source / 'v0.mp4').read_bytes()
  (source / 'v0.mp4').write_bytes(data + b'\0')
  try:
    with pytest.raises(InputError, match='another plan .other source files.'):
      custom.main(command(source, output))
  finally:
    (source / 'v0.mp4').write_bytes(data)
  assert hashes(output) == undisturbed


def test_a_part_of_another_plan_is_kept_until_told(source, undisturbed, tmp_path):
  output = tmp_path / 'out'
  # One worker: of several, another may have its rename counted and not done yet.
  first = command(source, output, '--keyframe-stride', '2', '--workers', '1')
  kill(first, 'rename', 'after', 1)
  second = command(source, output, '--workers', '1')
  kill(second, 'rename', 'after', 4)  # there is no shard of the first plan
  assert parts(output) == 1
  with pytest.raises(InputError, match='a part of another plan .other annotations.; use its argum'):
    custom.main(first)
  assert parts(output) == 1
  kill([*first, '--overwrite'], 'rename', 'after', 4)
  custom.main([*second, '--overwrite'])
  assert hashes(output) == undisturbed


def test_strict_stops_at_what_an_earlier_run_has_found(source, tmp_path):
  output = tmp_path / 'out'
  # One worker: of several, another may have its rename counted and not done yet.
  kill(command(source, output, '--workers', '1'), 'rename', 'after', 11)
  assert parts(output) == 5  # all shards are complete
  with pytest.raises(InputError, match='v2: undecodable video'):
    custom.main(command(source, output, '--strict', '--workers', '1'))


def test_one_process_at_a_time(tmp_path):
  with data_set_directory.alone_in(tmp_path, 'tiny'):
    with pytest.raises(
      InputError, match=r'another process is preparing a data set here \(process \d+ on '
    ):
      with data_set_directory.alone_in(tmp_path, 'tiny'):
        pass
  with data_set_directory.alone_in(tmp_path, 'tiny'):
    pass


def test_a_directory_with_other_things_is_not_touched(source, tmp_path):
  (tmp_path / 'thesis.tex').write_text('years of work')
  with pytest.raises(InputError, match='is not empty; pass --overwrite'):
    custom.main(command(source, tmp_path))
  custom.main(command(source, tmp_path, '--overwrite'))
  assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


def test_an_error_in_one_thread_stops_the_others(source, tmp_path, monkeypatch):
  def full(self, record):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(record_writer.ShardWriter, 'write', full)
  with pytest.raises(InputError, match='the disk is full; make room and run the same command'):
    custom.main(command(source, tmp_path / 'out', '--workers', '3'))
  assert not list((tmp_path / 'out').glob('.writing-*'))


def test_problems_of_threads_are_told_once_and_few_of_a_kind(capsys):
  problems = Problems()
  several = [problems.part() for _ in range(4)]

  def report(part: Problems) -> None:
    for number in range(30):
      part.report('missing video', f'v{number:02d}', 'left out')

  threads = [threading.Thread(target=report, args=[part]) for part in several]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  for part in several:
    problems.extend(part.entries)
  assert [entry['name'] for entry in problems.entries] == [f'v{number:02d}' for number in range(30)]
  told = capsys.readouterr().err.splitlines()
  assert len(told) == 21 and "more of the kind 'missing video'" in told[-1]
