"""--overwrite deletes the old data set once the new one is complete, and not before."""

import hashlib
import json
from pathlib import Path

import pytest

from data_prep import custom
from evad_jax.data import data_set_directory, record_writer
from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError
from evad_jax.files import directory_lock
from evad_jax.synthetic import data_set
from evad_jax.synthetic.clips import Settings
from tests.data_prep.killed import hashes, run
from tests.video.tiny_videos import write_video

SMALL = Settings(height=32, width=32, train=2, test=1, clip_frames=4, workers=1)


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
  """Four videos; old.json cuts them into a shard each, new.json has half of the keyframes."""
  root = tmp_path_factory.mktemp('source')
  for number in range(4):
    write_video(root / f'v{number}.mp4', 12)
  for name, length in (('old', 10), ('new', 5)):
    tube = {'labels': ['run'], 'start': 1, 'boxes': [[0.25, 0.25, 0.75, 0.75]] * length}
    split = ['train', 'train', 'train', 'test'] if name == 'old' else ['train'] * 2 + ['test'] * 2
    videos = {
      f'v{number}': {'split': split[number], 'normalised': True, 'tubes': [tube]}
      for number in range(4)
    }
    (root / f'{name}.json').write_text(json.dumps({'classes': ['run'], 'videos': videos}))
  return root


def command(source: Path, name: str, output: Path, *more: str) -> list[str]:
  flags = ['--annotations', str(source / f'{name}.json'), '--output', str(output)]
  return [*flags, '--shard-frames', '10', '--workers', '1', *more]


@pytest.fixture(scope='module')
def made(source, tmp_path_factory) -> dict[str, dict[str, str]]:
  """The results of the two plans in new directories."""
  found = {}
  for name in ('old', 'new'):
    output = tmp_path_factory.mktemp(name) / 'out'
    custom.main(command(source, name, output))
    found[name] = hashes(output)
  assert set(found['old']) - set(found['new'])  # there are files to delete
  return found


@pytest.fixture
def output(source, tmp_path) -> Path:
  custom.main(command(source, 'old', tmp_path / 'out'))
  return tmp_path / 'out'


def files(directory: Path) -> dict[str, str]:
  """The files of the data set itself, without those in progress."""
  under_way = (data_set_directory.STAGING, directory_lock.NAME)
  there = [path for path in directory.iterdir() if path.name not in under_way]
  return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}


def test_a_replacement_leaves_what_it_would_have_made_alone(source, made, output):
  custom.main(command(source, 'new', output, '--overwrite'))
  assert hashes(output) == made['new']


def test_a_preparation_that_fails_leaves_the_old_one(source, made, output, monkeypatch):
  def full(self, record):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(record_writer.ShardWriter, 'write', full)
    with pytest.raises(InputError, match=f'{output}: the disk is full; make room and run the sam'):
      custom.main(command(source, 'new', output, '--overwrite'))
  assert files(output) == made['old']
  RecordIndex.open(output, 'train')
  custom.main(command(source, 'old', output))  # as if nothing had happened
  custom.main(command(source, 'new', output, '--overwrite'))
  assert hashes(output) == made['new']


def test_videos_that_do_not_decode_delete_nothing(source, made, output, tmp_path):
  bad = tmp_path / 'bad'
  bad.mkdir()
  for number in range(4):
    (bad / f'v{number}.mp4').write_bytes(b'no video')
  with pytest.raises(InputError, match="split 'train': none of its videos can be prepared"):
    more = ['--overwrite', '--videos', str(bad)]
    custom.main(command(source, 'new', output, *more))
  assert files(output) == made['old']


@pytest.mark.parametrize(('function', 'moment'), [('rename', 'after'), ('delete', 'before')])
def test_killed_at_any_moment_there_is_the_old_or_the_new(source, made, output, function, moment):
  """Kills the same command again and again, each time one step later, until it has finished.

  The old data set is intact until the new one is complete. After that neither may be in the
  directory, until the same command has moved the new one there.
  """
  mine = command(source, 'new', output, '--overwrite')
  half_way = False
  for count in range(1, 60, 2):
    if run(function, moment, count, mine) == 0:
      break
    staged = (output / data_set_directory.STAGING / 'manifest.json').exists()
    half_way |= staged and not (output / 'manifest.json').exists()
    assert staged or files(output) in (made['old'], made['new'])
  assert half_way or function == 'delete'
  assert count > 5 and hashes(output) == made['new']


def test_the_same_command_finishes_what_was_all_but_done(source, made, output, capsys, monkeypatch):
  mine = command(source, 'new', output, '--overwrite')
  with monkeypatch.context() as patch:  # it stops just before
    patch.setattr(data_set_directory, 'replace', lambda directory, name: None)
    custom.main(mine)
  assert files(output) == made['old']
  capsys.readouterr()
  custom.main(mine)
  assert 'is already prepared with the same plan' in capsys.readouterr().out
  assert hashes(output) == made['new']


@pytest.mark.parametrize('more', [[], ['--overwrite']])
def test_another_data_set_is_not_touched(source, tmp_path, more):
  output = tmp_path / 'out'
  data_set.generate(output, SMALL)
  before = hashes(output)
  words = "holds the data set 'synthetic', which 'custom' does not replace; choose another outp"
  with pytest.raises(InputError, match=words):
    custom.main(command(source, 'old', output, *more))
  assert hashes(output) == before


def test_nor_is_one_without_a_manifest(source, tmp_path):
  """A directory as a killed preparation of another data set, or TensorFlow Datasets, leaves it."""
  for name in ('ucf24-train.tfrecord-00000-of-00002', 'dataset_info.json', 'index-train.npz'):
    (tmp_path / name).write_text('theirs')
  before = hashes(tmp_path)
  with pytest.raises(InputError, match="holds the data set 'ucf24'"):
    custom.main(command(source, 'old', tmp_path, '--overwrite'))
  assert hashes(tmp_path) == before


@pytest.mark.parametrize('name', ['manifest.json', 'index-a.npz', 'features.json', 'tubes-b.npz'])
def test_files_of_the_same_names_are_not_deleted(source, tmp_path, name):
  (tmp_path / name).write_text('{"short_name": "my web page"}')
  for overwrite in ([], ['--overwrite']):
    with pytest.raises(
      InputError, match=f'{name}: does not belong to the data set .custom., which'
    ):
      custom.main(command(source, 'old', tmp_path, *overwrite))
  with pytest.raises(InputError, match=name):
    data_set.generate(tmp_path, SMALL, overwrite=True)
  assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_damaged_manifest_of_its_own_is_replaced(source, made, output):
  (output / 'manifest.json').write_bytes(b'')
  custom.main(command(source, 'new', output, '--overwrite'))
  assert hashes(output) == made['new']


def test_generated_clips_are_replaced_when_others_are_whole(tmp_path, monkeypatch):
  output = tmp_path / 'out'
  data_set.generate(output, SMALL)
  before = hashes(output)
  make, left = data_set.make_record, [1]

  def failing(*arguments, **more):
    if not left:
      raise KeyboardInterrupt
    left.pop()
    return make(*arguments, **more)

  monkeypatch.setattr(data_set, 'make_record', failing)
  with pytest.raises(KeyboardInterrupt):
    data_set.generate(output, SMALL, overwrite=True)
  assert files(output) == before
  monkeypatch.setattr(data_set, 'make_record', make)
  data_set.generate(output, SMALL, overwrite=True)
  assert hashes(output) == before
