"""What command lines share; for the compilation cache, the user's choice comes first."""

import re
from pathlib import Path

import jax
import pytest

from evad_jax import command_line


@pytest.fixture
def unset(monkeypatch):
  """No cache directory is set; that of the test run is restored afterwards."""
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


def parsed(*words):
  """What a command with two flags of its own receives: --mesh, the epochs, and --mode."""
  parser = command_line.Parser('somewhere', 'A command.')
  parser.add_argument('--mesh', type=command_line.positive, default=1)
  parser.add_argument('--mode', choices=('train', 'eval'), default='train')
  args, config = parser.parse_with_config(words)
  return args.mesh, config.train.epochs, args.mode


@pytest.mark.parametrize(
  'words',
  [
    '--config=configs/demo.py --config.train.epochs=3 --mesh=2 --mode=eval',
    '--mode eval --mesh 2 --config configs/demo.py --config.train.epochs 3',
    '--config.train.epochs=3 --mesh=2 --config=configs/demo.py --mode=eval',
    '--config=configs/demo.py --config.train.epochs=9 --mesh=2 --config.train.epochs=3 --mode=eval',
  ],
)
def test_flags_and_keys_of_the_configuration_in_any_order(words):
  assert parsed(*words.split()) == (2, 3, 'eval')
  assert parsed('--config=configs/demo.py')[::2] == (1, 'train')  # nothing stays of an earlier call


@pytest.mark.parametrize(
  'words, sentence',
  [
    ('--mesh=0', 'argument --mesh: 0 is not above 0'),
    ('--mesh=x', "argument --mesh: .*'x'"),
    ('--mehs=2', r"'--mehs' is not a flag; did you mean --mesh\?"),
    ('--mes=2', r"'--mes' is not a flag; did you mean --mesh\?"),
    ('more', "'more' is not a flag"),
    ('--config=no.py:L', '--config=no.py:L: there is no file no.py; configs/demo.py is one'),
    ('--config.trian.epochs=2', "there is no key 'trian'; .*train"),  # codespell:ignore
    ('--config.train.epochs=many', "epochs.*'many'"),
  ],
)
def test_what_cannot_be_used_is_one_sentence(words, sentence, capsys):
  with pytest.raises(SystemExit) as stop:
    parsed('--config=configs/demo.py', *words.split())
  line, end = capsys.readouterr().err.split('\n')
  assert stop.value.code == 2 and re.search(f'^error: .*{sentence}', line) and end == ''


def test_a_configuration_that_fails_is_told_as_it_fails(tmp_path, capsys):
  path = tmp_path / 'mine.py'
  for text, told in (
    ('def get_config(): return open("/gone.txt")', "No such file or directory: '/gone.txt'"),
    ('def get_config(): raise ValueError("no size")', 'error: no size; '),
    ('def get_config(): return {}["x"]', 'there is no key x'),
  ):
    path.write_text(text)
    with pytest.raises(SystemExit):
      parsed(f'--config={path}')
    line = capsys.readouterr().err
    assert told in line and line.count('\n') == 1


def test_columns_are_as_wide_as_their_widest_cell():
  rows = [('split', 'size'), ('train', 12345), ('a longer one', 7)]
  lines = ['split          size', 'train         12345', 'a longer one      7']
  assert command_line.aligned(rows) == lines
