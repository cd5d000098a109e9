"""SIGTERM: a run saves its state, ends, and resumes as if undisturbed. And a full disk."""

import os
import signal

import jax
import pytest

from evad_jax import main
from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data.pipeline import BatchIterator
from evad_jax.distributed.preemption import Preemption
from evad_jax.errors import InputError
from evad_jax.evaluation import evaluate
from evad_jax.training.programs import Programs
from tests.checkpoints.tiny_state import fill_disk
from tests.run_results import assert_same, metrics, saved
from tests.tiny_run import make_data, tiny_config


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """That of tests/tiny_run.py, whose programs are compiled already: four steps."""
  config = tiny_config(make_data(tmp_path_factory.mktemp('data') / 'tiny'))
  config.train.update(checkpoint_every=100, eval_every=2)
  return config


@pytest.fixture(scope='module')
def undisturbed(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  main.run(config, workdir, 'train')
  return metrics(workdir), saved(workdir)


def send_at(monkeypatch, module, name, call):
  """SIGTERM just before the `call`-th call of a function."""
  function, calls = getattr(module, name), []

  def counted(*arguments, **keywords):
    calls.append(name)
    if len(calls) == call:
      os.kill(os.getpid(), signal.SIGTERM)
    return function(*arguments, **keywords)

  monkeypatch.setattr(module, name, counted)


def test_stopped_three_times(config, undisturbed, tmp_path, monkeypatch, capsys):
  """In training, in the evaluation after step 2, and in the one after the last, step 4."""
  places = [(Programs, 'run', 1, 1), (evaluate.frame_map, 'update', 1, 2)]
  places += [(evaluate.frame_map, 'update', 3, 4)]  # two calls are the late evaluation of step 2
  start = 0
  for module, name, call, step in places:
    with monkeypatch.context() as patch:
      send_at(patch, module, name, call)
      main.run(config, tmp_path, 'train')
    told = capsys.readouterr().out
    assert f'Stopped by SIGTERM in step {step} of 4; everything computed is saved' in told
    assert (f'Continuing from step {start} of 4' in told) == bool(start)
    with Checkpoints(tmp_path / 'checkpoints', read_only=True) as checkpoints:
      assert checkpoints.latest_step() == step and not checkpoints.was_evaluated(step)
    assert not (tmp_path / 'eval_test.json').exists()
    start = step
  main.run(config, tmp_path, 'train')
  assert metrics(tmp_path) == undisturbed[0]
  assert_same(saved(tmp_path), undisturbed[1])


def test_a_sigterm_to_those_that_make_batches_too(config, tmp_path, monkeypatch, capsys):
  """Worker processes end too, so that there is no third batch: two steps are saved."""
  following = BatchIterator.__next__
  batches = []

  def next_batch(self):
    batches.append(following(self))
    if len(batches) == 3:
      os.kill(os.getpid(), signal.SIGTERM)
      raise RuntimeError('a worker process was terminated')
    return batches[-1]

  config = config.copy_and_resolve_references()
  config.train.eval_every = 0
  monkeypatch.setattr(BatchIterator, '__next__', next_batch)
  main.run(config, tmp_path, 'train')
  assert 'Stopped by SIGTERM in step 2 of 4' in capsys.readouterr().out
  with Checkpoints(tmp_path / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.all_steps() == [2]


def test_a_full_disk_ends_a_run_with_one_sentence(config, tmp_path, monkeypatch):
  config = config.copy_and_resolve_references()
  config.train.update(checkpoint_every=1, eval_every=0)
  fill_disk(monkeypatch)
  with pytest.raises(InputError, match='No space left on device; there is none yet'):
    main.run(config, tmp_path, 'train')
  assert metrics(tmp_path)[-1]['step'] < 4  # it does not train on for long without saving


def test_what_sigterm_did_before_is_restored():
  before = signal.getsignal(signal.SIGTERM)
  with Preemption() as preemption:
    assert not preemption.requested()
    os.kill(os.getpid(), signal.SIGTERM)
    assert preemption.requested() and preemption.requested()
  assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize('processes, asked', [(1, [1, 2, 3, 4, 5, 6, 7]), (2, [3, 5, 6])])
def test_several_processes_ask_each_other_at_the_same_few_steps(monkeypatch, processes, asked):
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  questions = []
  monkeypatch.setattr(Preemption, 'requested', lambda self: bool(questions.append(step)))
  preemption = Preemption(agree_every=3)
  for step in range(1, 8):
    assert not preemption.asked(step, always=step == 5)
  assert questions == asked
