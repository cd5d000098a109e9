"""Atomic writes: a file is complete, or as it was before."""

import json

import numpy as np
import pytest

from evad_jax.files import atomic_files


def names(directory):
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_file_appears_when_the_block_ends(tmp_path):
  with atomic_files.writing(tmp_path / 'a.csv') as file:
    file.write('é\r\n')
    file.flush()
    assert list(names(tmp_path)) == ['.writing-a.csv']
  with atomic_files.writing(tmp_path / 'b', 'wb') as file:
    file.write(b'\xff')
  assert names(tmp_path) == {'a.csv': b'\xc3\xa9\r\n', 'b': b'\xff'}


@pytest.mark.parametrize('error', [OSError(28, 'full'), KeyboardInterrupt(), ValueError()])
def test_an_exception_leaves_what_was_there(tmp_path, error):
  (tmp_path / 'a').write_text('earlier')
  with pytest.raises(type(error)):
    with atomic_files.writing(tmp_path / 'a') as file:
      file.write('half')
      raise error
  with pytest.raises(TypeError):
    atomic_files.write_json(tmp_path / 'a', {'no JSON': object()})
  with pytest.raises(ValueError):
    atomic_files.write_json(tmp_path / 'a', np.nan, allow_nan=False)
  assert names(tmp_path) == {'a': b'earlier'}


def test_json_and_arrays(tmp_path):
  atomic_files.write_json(tmp_path / 'a.json', {'é': [1]})
  assert json.loads((tmp_path / 'a.json').read_bytes()) == {'é': [1]}
  atomic_files.write_arrays(tmp_path / 'a.npz', {'x': np.arange(3)})
  with np.load(tmp_path / 'a.npz') as file:
    assert file['x'].tolist() == [0, 1, 2]
