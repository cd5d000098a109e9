"""A trace of a few steps: which steps, that it is written, and that it never ends a run."""

from types import SimpleNamespace

import jax
import pytest

from evad_jax import main
from evad_jax.distributed.profiling import Profile
from evad_jax.errors import InputError
from tests.tiny_run import make_data, tiny_config


@pytest.fixture
def traced(monkeypatch):
  """The starts and stops of traces, in order."""
  done = []
  monkeypatch.setattr(jax.profiler, 'start_trace', lambda place: done.append(f'start {place}'))
  monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: done.append('stop'))
  return done


def go(done, start, steps, numbers, directory='d'):
  with Profile(SimpleNamespace(start=start, steps=steps), directory) as profile:
    for number in numbers:
      profile.before(number)
      done.append(number)
      profile.after(number)


@pytest.mark.parametrize(
  'start, steps, numbers, wanted',
  [
    (0, 2, range(1, 4), [1, 2, 3]),
    (2, 2, range(1, 6), [1, 'start d', 2, 3, 'stop', 4, 5]),
    (1, 1, range(1, 3), ['start d', 1, 'stop', 2]),
    (2, 5, range(1, 4), [1, 'start d', 2, 3, 'stop']),  # the run ends first
    (2, 3, range(3, 7), ['start d', 3, 4, 'stop', 5, 6]),  # a run that is continued
    (2, 3, range(5, 7), [5, 6]),
  ],
)
def test_these_steps_are_traced(traced, start, steps, numbers, wanted):
  go(traced, start, steps, numbers)
  assert traced == wanted


def test_a_failing_step_still_ends_the_trace(traced):
  with pytest.raises(ZeroDivisionError):
    with Profile(SimpleNamespace(start=1, steps=2), 'd') as profile:
      profile.before(1)
      raise ZeroDivisionError
  assert traced == ['start d', 'stop']


def test_what_goes_wrong_is_told_and_the_run_goes_on(traced, monkeypatch, capsys):
  def refuse(*_):
    raise RuntimeError('No space\nleft')

  monkeypatch.setattr(jax.profiler, 'stop_trace', refuse)
  go(traced, 1, 1, range(1, 3))
  monkeypatch.setattr(jax.profiler, 'start_trace', refuse)
  go(traced, 1, 1, range(1, 3))
  assert traced == ['start d', 1, 2, 1, 2]
  assert capsys.readouterr().out.splitlines() == [
    'Warning: the trace cannot be written: No space left; the run goes on without it.',
    'Warning: the trace cannot be started: No space left; the run goes on without it.',
  ]


def test_a_run_and_an_evaluation_leave_a_trace(tmp_path, capsys):
  config = tiny_config(make_data(tmp_path / 'data'))
  config.profile.update(start=2, steps=2)
  main.run(config, tmp_path / 'run', 'train')
  assert list((tmp_path / 'run/profile').rglob('*.xplane.pb'))
  assert f'The trace is in {tmp_path}/run/profile; view it' in capsys.readouterr().out
  config.checkpoint = str(tmp_path / 'run')
  main.run(config, tmp_path / 'eval', 'eval')
  assert list((tmp_path / 'eval/profile').rglob('*.xplane.pb'))
  same = [(tmp_path / x / 'eval_test.json').read_text() for x in ('run', 'eval')]
  assert same[0] == same[1]
  for key, value in (('start', -1), ('steps', 0)):
    wrong = config.copy_and_resolve_references()
    wrong.profile[key] = value
    for mode in ('train', 'eval'):
      with pytest.raises(InputError, match=f'config.profile.{key}={value} must be at least'):
        main.run(wrong, tmp_path / 'wrong', mode)
