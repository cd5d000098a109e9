"""Checkpoints: exact round trips, which ones are kept, and unusable ones."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax.checkpoints.manager import BEST_METRIC, Checkpoints
from evad_jax.errors import InputError
from evad_jax.training.train_step import TrainState
from tests.checkpoints.tiny_state import abstract, make_state, save


def steps_on_disk(directory):
  return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


@pytest.mark.parametrize('ema', [False, True])
def test_round_trip_is_exact(tmp_path, ema):
  state = make_state(ema=ema, seed=7)
  with Checkpoints(tmp_path) as checkpoints:
    save(checkpoints, 7, state)
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.latest_step() == 7
    found = checkpoints.restore(7, abstract(state))
    assert checkpoints.position(7) == {'next_example': 112}
  assert isinstance(found, TrainState) and (found.ema_params is None) == (not ema)
  assert jax.tree.structure(found) == jax.tree.structure(state)
  for ours, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
    assert ours.dtype == wanted.dtype
    np.testing.assert_array_equal(ours, wanted)


def test_state_may_be_overwritten_while_it_is_saved(tmp_path):
  state = make_state(seed=3)
  wanted = jax.device_get(state)
  with Checkpoints(tmp_path) as checkpoints:
    save(checkpoints, 3, state)
    like = abstract(state)
    jax.tree.map(lambda x: x.delete(), state)  # as a step does with a donated state
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(3, like), wanted)


def test_newest_and_best_stay(tmp_path):
  figures = {1: 0.2, 2: 0.9, 3: 0.1, 4: None, 5: 0.3, 6: float('nan'), 7: None}
  with Checkpoints(tmp_path, keep_last=2) as checkpoints:
    assert checkpoints.latest_step() is None and checkpoints.best_step() is None
    for step, figure in figures.items():
      save(checkpoints, step, metrics=None if figure is None else {BEST_METRIC: figure})
  assert steps_on_disk(tmp_path) == [2, 6, 7]
  with Checkpoints(tmp_path, keep_last=2) as checkpoints:  # as a later run sees it
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (7, 2)
    assert int(checkpoints.restore(2, abstract(make_state())).step) == 2
    save(checkpoints, 8, metrics={BEST_METRIC: 0.95})
    save(checkpoints, 9)
    save(checkpoints, 10)
  assert steps_on_disk(tmp_path) == [8, 9, 10]


def test_without_evaluations_the_newest_stay(tmp_path):
  with Checkpoints(tmp_path, keep_last=1) as checkpoints:
    for step in (1, 2, 3):
      save(checkpoints, step)
  assert steps_on_disk(tmp_path) == [3]
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.best_step() is None


def test_half_written_checkpoint_is_ignored(tmp_path):
  """A kill during saving leaves a directory with a temporary name."""
  with Checkpoints(tmp_path) as checkpoints:
    save(checkpoints, 1)
  left = tmp_path / '2.orbax-checkpoint-tmp'
  shutil.copytree(tmp_path / '1', left)
  shutil.rmtree(left / 'state')
  (left / 'state.orbax-checkpoint-tmp').mkdir()
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.latest_step() == 1
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step() == 1
    save(checkpoints, 2)  # the resumed run reaches the same step
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.latest_step() == 2
    assert int(checkpoints.restore(2, abstract(make_state())).step) == 2


def test_other_model_is_an_error_that_names_the_first_array(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    save(checkpoints, 1)
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    wider = abstract(make_state(width=5))
    with pytest.raises(InputError) as caught:
      checkpoints.restore(1, wider)
    message = str(caught.value)
    assert 'encoder/kernel is (3, 4) in the checkpoint and (3, 5) in the configuration' in message
    assert str(tmp_path / '1') in message
    more = abstract(make_state())
    more.params['head'] = {'bias': jax.ShapeDtypeStruct((2,), jnp.float32)}
    with pytest.raises(
      InputError, match=r'params/head/bias is missing in the checkpoint and \(2,\) in the config'
    ):
      checkpoints.restore(1, more)
    with pytest.raises(InputError, match='ema_params/.* is missing in the checkpoint'):
      checkpoints.restore(1, abstract(make_state(ema=True)))


def test_missing_directory_is_an_error_that_says_what_to_do(tmp_path):
  with pytest.raises(InputError, match='there is no such checkpoint directory; train first'):
    Checkpoints(tmp_path / 'nothing', read_only=True)
  assert not (tmp_path / 'nothing').exists()
