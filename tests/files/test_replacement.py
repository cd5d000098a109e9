"""Earlier files stay until their replacements are complete."""

import pytest

from evad_jax.errors import InputError
from evad_jax.files.replacement import Replacement


def names(directory):
  return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.fixture
def files(tmp_path):
  return [tmp_path / 'a.csv', tmp_path / 'a.mp4']


def write(outputs, files, text):
  for path in files:
    outputs.place(path).write_text(text)


def test_new_files_grow_under_their_own_names(tmp_path, files):
  outputs = Replacement(files, overwrite=False)
  write(outputs, files[:1], 'new')
  assert names(tmp_path) == {'a.csv': 'new'}
  assert outputs.leave() == outputs.finish() == files[:1]
  outputs.discard()
  assert names(tmp_path) == {'a.csv': 'new'}


def test_what_is_there_is_refused(tmp_path, files):
  files[1].write_text('old')
  with pytest.raises(InputError, match='a.mp4 already exists; give another --output, or --over'):
    Replacement(files, overwrite=False)
  assert names(tmp_path) == {'a.mp4': 'old'}


def test_a_directory_is_no_file_to_replace(files):
  files[0].mkdir()
  with pytest.raises(InputError, match='a.csv is a directory'):
    Replacement(files, overwrite=True)


def test_earlier_files_stay_until_the_end(tmp_path, files):
  files[0].write_text('old')
  outputs = Replacement(files, overwrite=True)
  write(outputs, files, 'new')
  assert files[0].read_text() == 'old' and not files[1].exists()
  assert outputs.finish() == files
  assert names(tmp_path) == {'a.csv': 'new', 'a.mp4': 'new'}


def test_earlier_files_stay_after_a_failure(tmp_path, files):
  files[0].write_text('old')
  outputs = Replacement(files, overwrite=True)
  write(outputs, files, 'half')
  assert [path.name for path in outputs.leave()] == ['unfinished-a.csv', 'unfinished-a.mp4']
  assert names(tmp_path) == {
    'a.csv': 'old',
    'unfinished-a.csv': 'half',
    'unfinished-a.mp4': 'half',
  }


def test_what_is_worth_nothing_goes(tmp_path, files):
  files[0].write_text('old')
  outputs = Replacement(files, overwrite=True)
  write(outputs, files, '')
  outputs.discard()
  assert names(tmp_path) == {'a.csv': 'old'}
