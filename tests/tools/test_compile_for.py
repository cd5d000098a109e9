"""Programs for absent accelerators: what is kept, refused, and, under a marker, compiled."""

import json
import re
from pathlib import Path

import pytest

from evad_jax.cost import compile_targets
from evad_jax.errors import InputError
from evad_jax.tools import compile_for

FIGURES = {
  'compiled': True,
  'seconds': 1.0,
  'tflop': 2.0,
  'gb': 3.0,
  'launches': 4,
  'temporary_gb': 5.0,
  'ms': 10.0,
  'ideal_ms': 4.0,
}
COMMITTED = Path(__file__).parents[2] / 'benchmarks' / 'compiled.json'


@pytest.fixture
def jobs(monkeypatch):
  """The combinations to compile, one of which fails."""
  asked = []

  def compiled(job, limit):
    asked.append(job)
    failed = {'compiled': False, 'error': 'XlaError: too large'}
    return failed if job['program'] == 'step' and job['target'] == 'v5e' else FIGURES

  monkeypatch.setattr(compile_for, 'in_its_own_process', compiled)
  monkeypatch.setattr(compile_targets, 'check_compiler', lambda target: None)
  monkeypatch.setattr(compile_for, 'commit', lambda: 'abc')
  return asked


def test_what_is_kept_is_not_compiled_again(tmp_path, jobs, capsys):
  arguments = ['h100', '--json', str(tmp_path / 'new' / 'c.json')]
  assert compile_for.main([*arguments, '--programs', 'predict']) == 0
  assert compile_for.main(arguments) == 0
  assert [(job['target'], job['program']) for job in jobs] == [
    ('h100', 'predict'),
    ('h100', 'step'),
  ]
  assert compile_for.main([*arguments, '--keep-rate', '1.0']) == 0
  assert len(jobs) == 4
  assert len(json.loads((tmp_path / 'new' / 'c.json').read_text())) == 4
  printed = capsys.readouterr().out
  assert printed.count('(kept)') == 1
  assert re.search(
    r'h100 +predict +B +288x512 +bfloat16 +16 +0.7 +2.00 +3.0 +4 +5.00 +10.0 +40 %', printed
  )


def test_every_combination_of_lists(jobs):
  arguments = ['--keep-rate', '1.0', '0.7', '--canvas', '64x64', '64x96', '--dtype', 'float32']
  compile_for.main(['h100', 'v5e', *arguments, '--programs', 'predict'])
  assert [(job['target'], job['keep_rate'], job['canvas']) for job in jobs] == [
    (target, rate, canvas)
    for target in ('h100', 'v5e')
    for rate in (1.0, 0.7)
    for canvas in ('64x64', '64x96')
  ]
  assert {job['dtype'] for job in jobs} == {'float32'}


def test_a_failure_is_told_and_the_others_go_on(tmp_path, jobs, capsys):
  assert compile_for.main(['v5e', 'h100', '--json', str(tmp_path / 'c.json')]) == 1
  assert len(jobs) == 4
  assert 'XlaError: too large' in capsys.readouterr().out


def test_another_version_is_compiled_again(tmp_path, jobs, monkeypatch):
  arguments = ['h100', '--json', str(tmp_path / 'c.json'), '--programs', 'predict']
  compile_for.main(arguments)
  monkeypatch.setattr(compile_for, 'versions', lambda: {'jax': '99'})
  compile_for.main(arguments)
  assert len(jobs) == 2
  assert len(json.loads((tmp_path / 'c.json').read_text())) == 1


@pytest.mark.parametrize('commits', [('abc', 'abd'), ('abc-dirty', 'abc-dirty')])
def test_other_code_is_compiled_again(tmp_path, jobs, monkeypatch, commits):
  for commit in commits:
    monkeypatch.setattr(compile_for, 'commit', lambda commit=commit: commit)
    compile_for.main(['h100', '--json', str(tmp_path / 'c.json'), '--programs', 'predict'])
  assert len(jobs) == 2
  assert json.loads((tmp_path / 'c.json').read_text())[0]['commit'] == commits[1]


@pytest.mark.parametrize('text', ['{', '[1]', '[{"job": 1}]', '3'])
def test_another_file_is_refused(tmp_path, jobs, text):
  path = tmp_path / 'c.json'
  path.write_text(text)
  with pytest.raises(InputError, match='was not written by compile_for'):
    compile_for.main(['h100', '--json', str(path)])
  assert path.read_text() == text


def test_a_missing_compiler_is_told(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(InputError, match='pip install -r requirements-compilers.txt'):
    compile_for.main(['v5e'])


@pytest.mark.parametrize('arguments', [[], ['h200']])
def test_targets_are_named(arguments, capsys):
  with pytest.raises(SystemExit) as stopped:
    compile_for.main(arguments)
  assert stopped.value.code == 2
  assert 'there are h100, h100:8' in capsys.readouterr().err


@pytest.mark.compiled
@pytest.mark.parametrize('row', json.loads(COMMITTED.read_text()), ids=lambda row: str(row['job']))
def test_programs_still_compile_and_cost_no_more(row):
  """The committed programs, compiled by the same versions of the compilers."""
  if not row['figures'].get('compiled'):
    pytest.fail('benchmarks/compiled.json holds a program that did not compile')
  found = compile_for.in_its_own_process(row['job'], 3600)
  assert found['compiled'], found
  for key in ('gb', 'launches', 'temporary_gb', 'ms'):
    assert found[key] <= 1.1 * row['figures'][key] + 0.01, key
