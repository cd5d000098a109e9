"""Non-finite losses: nothing changes, all is reported, and the step can be repeated."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from evad_jax import main
from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data import pipeline
from evad_jax.data.records import RecordIndex
from evad_jax.distributed import sharding
from evad_jax.errors import InputError
from evad_jax.settings import from_config
from evad_jax.structures import Batch
from evad_jax.tools import replay_step
from evad_jax.training import losses, non_finite, train_step
from evad_jax.training.feed import Feed
from evad_jax.training.programs import Programs
from evad_jax.training.train_step import StepMetrics
from tests.checkpoints.tiny_state import fill_disk
from tests.tiny_run import make_data, tiny_config

NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('loss, norm, changes', [(1, 1, True), (NAN, 1, False), (1, INF, False)])
def test_a_step_that_is_not_finite_changes_nothing(loss, norm, changes):
  old = {'a': jnp.arange(3.0), 'count': jnp.int32(4)}
  new = {'a': jnp.full(3, NAN), 'count': jnp.int32(5)}
  found = jax.jit(train_step.unless_non_finite)(old, new, jnp.float32(loss), jnp.float32(norm))
  jax.tree.map(np.testing.assert_array_equal, found, new if changes else old)


@pytest.mark.parametrize(
  'change, words',
  [
    ({'person': [1, NAN]}, ['person loss of stage 1 (nan)']),
    ({'box_giou': [INF, 1]}, ['GIoU of the boxes of stage 0 (inf)']),
    (
      {'box_l1': [NAN, 0], 'action': [0, 0, -INF]},
      ['L1 of the boxes of stage 0 (nan)', 'action loss of decoder block 2 (-inf)'],
    ),
    ({'norm': NAN}, ['norm of the gradient (nan), with all losses finite']),
    ({}, []),
  ],
)
def test_the_offending_term_is_named(change, words):
  values = {'person': [1, 1], 'box_l1': [1, 1], 'box_giou': [1, 1], 'action': [1, 1, 1], 'norm': 1}
  values |= change
  norm = values.pop('norm')
  terms = losses.Terms(**{name: np.array(x, np.float32) for name, x in values.items()})
  found = StepMetrics(terms.total(), terms, np.float32(norm), np.float32(0))
  assert non_finite.offenders(found) == words


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """That of tests/tiny_run.py, whose programs are compiled already: four steps of four clips."""
  return tiny_config(make_data(tmp_path_factory.mktemp('data') / 'tiny'))


def quiet(config, **changes):
  """Nothing is logged or saved between the first and the last step."""
  config = config.copy_and_resolve_references()
  config.train.update(log_every=100, checkpoint_every=100, **changes)
  return config


def poisoned(state):
  """One parameter becomes infinite, as from a flipped bit in memory."""
  params = jax.tree.map(jnp.copy, state.params)
  layer = params['person_detector']['stage_0']['class_logits']
  layer['bias'] = layer['bias'].at[0].set(INF)
  return state._replace(params=params)


@pytest.fixture(scope='module')
def stopped(config, tmp_path_factory):
  """A run that was poisoned before step 3: its directory, its error, and its calls."""
  workdir = tmp_path_factory.mktemp('stopped')
  original, done = Programs.run, []

  def call(self, state, *arguments):
    state = poisoned(state) if int(state.step) == 2 else state
    done.append('call')
    return original(self, state, *arguments)

  def recorded(function, name):
    return lambda *arguments: done.append(name) or function(*arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Programs, 'run', call)
    patch.setattr(Feed, 'fetch', recorded(Feed.fetch, 'fetch'))
    patch.setattr(non_finite.Watch, 'look', recorded(non_finite.Watch.look, 'look'))
    with pytest.raises(InputError) as caught:
      main.run(config, workdir, 'train')
  return workdir, str(caught.value), done


def test_a_batch_is_fetched_while_a_step_computes_and_no_step_follows_before_a_look(stopped):
  assert stopped[2] == ['fetch', *['call', 'fetch', 'look'] * 3]


def test_a_run_stops_with_step_terms_and_clips(stopped):
  workdir, told, _ = stopped
  assert 'Step 3 is not finite: ' in told and 'person loss of stage 0 (nan)' in told
  clips = told.partition('clips: ')[2].partition('. Its inputs')[0].split(', ')
  assert len(clips) == 4 and all(clip.startswith('train_') and ' at ' in clip for clip in clips)
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == [1, 2]
  with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.latest_step() == 2


def test_the_dump_is_what_the_step_was_computed_from(config, stopped):
  workdir = stopped[0]
  batch = non_finite.read_batch(workdir / 'non_finite_step_3')
  index = RecordIndex.open(config.data.directory, 'train')
  settings = from_config.clip_settings(config)
  with pipeline.train_batches(
    index, settings, seed=0, batch_size=4, threads=1, prefetch=1, start_step=2
  ) as batches:
    jax.tree.map(np.testing.assert_array_equal, batch, next(batches))
  with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
    before = checkpoints.read_params(2)
  with Checkpoints(workdir / 'non_finite_step_3' / 'checkpoints', read_only=True) as checkpoints:
    found = checkpoints.read_params(2)
  before['person_detector']['stage_0']['class_logits']['bias'][0] = INF
  jax.tree.map(np.testing.assert_array_equal, found, before)


def run_poisoned(config, workdir, before, heal=False):
  """A run that is poisoned before that step: its calls and its error."""
  original, done, healthy = Programs.run, [], []

  def call(self, state, batch, step, progress):
    if step == before:
      healthy.append(jax.tree.map(jnp.copy, state.params))
      state = poisoned(state)
    elif healthy and heal:
      state = state._replace(params=healthy.pop())
    done.append(f'call {step}')
    return original(self, state, batch, step, progress)

  look = non_finite.Watch.look

  def looked(self, step, *arguments):
    done.append(f'look {step}')
    return look(self, step, *arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Programs, 'run', call)
    patch.setattr(non_finite.Watch, 'look', looked)
    try:
      main.run(config, workdir, 'train')
    except InputError as error:
      return done, str(error)
  return done, None


def test_a_step_is_looked_at_when_the_next_is_on_its_way_and_its_dump_is_the_same(
  config, stopped, tmp_path
):
  done, told = run_poisoned(quiet(config), tmp_path, 3)
  assert done == ['call 1', 'look 1', 'call 2', 'call 3', 'look 2', 'call 4', 'look 3']
  assert told == stopped[1].replace(str(stopped[0]), str(tmp_path))
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1]
  assert not list((tmp_path / 'checkpoints').iterdir())
  dumps = [workdir / 'non_finite_step_3' for workdir in (tmp_path, stopped[0])]
  batches = [non_finite.read_batch(dump) for dump in dumps]
  jax.tree.map(np.testing.assert_array_equal, *batches)
  states = []
  for dump in dumps:
    with Checkpoints(dump / 'checkpoints', read_only=True) as checkpoints:
      assert checkpoints.all_steps() == [2]
      states.append(ocp.StandardCheckpointer().restore(dump / 'checkpoints' / '2' / 'state'))
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert int(states[0]['step']) == 2


def test_what_is_skipped_is_counted_before_it_is_saved(config, tmp_path, capsys):
  config = quiet(config, non_finite='skip')
  done, told = run_poisoned(config, tmp_path, 2, heal=True)
  assert told is None
  assert done == [*('call 1', 'look 1', 'call 2', 'call 3', 'look 2', 'call 4', 'look 3', 'look 4')]
  out = capsys.readouterr().out
  assert 'step 2: non-finite loss or gradient; skipped update 1 of this run' in out
  with Checkpoints(tmp_path / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.position(4)['skipped'] == 1


@pytest.mark.slow  # compiles: python -m pytest -m slow tests/training/test_non_finite.py
def test_the_step_can_be_computed_again(stopped):
  told = replay_step.replay(stopped[0] / 'non_finite_step_3')
  assert told[0].startswith('step 3: loss nan')
  assert told[-1].endswith('before the step: person_detector/stage_0/class_logits/bias')


def test_skips_and_counts(config, tmp_path, capsys):
  config = config.copy_and_resolve_references()
  config.train.non_finite = 'skip'
  index = RecordIndex.open(config.data.directory, 'train')
  watch = non_finite.Watch(config, index, tmp_path, skipped=4)  # before an interruption
  batch = Batch(*[None] * 5, jnp.array([2, 0]))
  terms = losses.Terms(*(np.array([1.0]),) * 3, np.array([NAN]))
  watch.look(6, None, batch, StepMetrics(np.float32(1), terms, np.float32(1), np.float32(0)))
  assert watch.skipped == 4 and not capsys.readouterr().out
  watch.look(7, None, batch, StepMetrics(np.float32(NAN), terms, np.float32(1), np.float32(0)))
  assert watch.skipped == 5 and not list(tmp_path.iterdir())
  clips = ', '.join(f'{index.videos[i]} at {index.timestamps[i]}' for i in (2, 0))
  assert capsys.readouterr().out == (
    'step 7: non-finite loss or gradient; skipped update 5 of this run: action loss of decoder '
    f'block 0 (nan); clips: {clips}\n'
  )


def test_a_second_dump_of_a_step_leaves_the_first_alone(config, stopped, monkeypatch):
  workdir, told, _ = stopped
  index = RecordIndex.open(config.data.directory, 'train')
  batch = non_finite.read_batch(workdir / 'non_finite_step_3')
  batch = sharding.put_batch(batch, sharding.make_mesh())
  terms = losses.Terms(*(np.array([NAN]),) * 4)
  state = train_step.initial_state({'a': jnp.ones(2)}, optax.sgd(1.0), ema=False)
  watch = non_finite.Watch(config, index, workdir)
  look = functools.partial(
    watch.look, 3, state, batch, StepMetrics(np.float32(NAN), terms, np.float32(1), np.float32(0))
  )
  with pytest.raises(InputError, match='Its inputs are in .*/non_finite_step_3-2 '):
    look()
  with monkeypatch.context() as patch:
    fill_disk(patch)
    with pytest.raises(InputError, match='Step 3 is not finite: .* could not be kept .*No space'):
      look()


def test_a_dump_that_is_not_whole_is_named(stopped, tmp_path):
  dump = tmp_path / 'dump'
  shutil.copytree(stopped[0] / 'non_finite_step_3', dump)
  batch = dump / 'batch_0_of_1.npz'
  batch.write_bytes(batch.read_bytes()[:-100])
  with pytest.raises(InputError, match='batch_0_of_1.npz: the file is damaged'):
    non_finite.read_batch(dump)
  batch.rename(dump / 'batch_0_of_2.npz')
  with pytest.raises(InputError, match='holds no complete batch'):
    non_finite.read_batch(dump)


def test_a_directory_that_is_no_dump_is_named(tmp_path):
  with pytest.raises(InputError, match='holds no config.json; give a directory non_finite_step_N'):
    replay_step.replay(tmp_path)
