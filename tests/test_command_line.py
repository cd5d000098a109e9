"""What command lines share; of the cache of programs: the user's word comes first."""

from pathlib import Path

import jax
import pytest

from evad_jax import command_line


@pytest.fixture
def unset(monkeypatch):
  """No directory chosen; what the test run has chosen comes back afterwards."""
  before = jax.config.jax_compilation_cache_dir
  monkeypatch.delenv(command_line.CACHE_VARIABLE, raising=False)
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  jax.config.update('jax_compilation_cache_dir', None)
  yield monkeypatch
  jax.config.update('jax_compilation_cache_dir', before)


def chosen():
  command_line.keep_programs()
  return jax.config.jax_compilation_cache_dir


def test_a_directory_of_the_user(unset):
  unset.setenv('HOME', '/somewhere')
  assert chosen() == '/somewhere/.cache/evad_jax'


def test_the_directory_for_caches_comes_before_home(unset):
  unset.setenv('XDG_CACHE_HOME', '/elsewhere')
  assert chosen() == '/elsewhere/evad_jax'


def test_what_was_chosen_already_stays(unset):
  jax.config.update('jax_compilation_cache_dir', '/mine')
  assert chosen() == '/mine'


def test_an_empty_variable_turns_it_off(unset):
  unset.setenv(command_line.CACHE_VARIABLE, '')
  assert chosen() is None


def test_without_a_home_there_is_none(unset):
  def homeless():
    raise RuntimeError('Could not determine home directory.')

  unset.setattr(Path, 'home', homeless)
  assert chosen() is None
