"""Clips that cannot be read are skipped; order and hosts stay the same."""

import dataclasses

import numpy as np
import pytest

from evad_jax.data import unreadable
from evad_jax.data.pipeline import eval_batches, train_batches
from evad_jax.errors import InputError
from tests.damage import flip_bit
from tests.data.toy_records import NUM_EXAMPLES, SETTINGS, make_record, write_toy


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
  """The toy data set with a truncated JPEG in the record of video 1."""
  records = [make_record(video) for video in range(4)]
  records[1].frames[5] = records[1].frames[5][:-20]
  return write_toy(tmp_path_factory.mktemp('damaged'), records)


def bad_examples(index):
  return np.flatnonzero(index.videos == 'video_1').tolist()


def some(index, steps=8, start=0, **options):
  with train_batches(index, SETTINGS, seed=5, batch_size=4, start_step=start, **options) as batches:
    return [next(batches) for _ in range(steps)]


@pytest.mark.parametrize('workers', [0, 1])
def test_only_the_place_of_the_clip_is_empty(index, damaged, workers):
  (bad,) = bad_examples(damaged)
  count = 0
  pairs = zip(some(index), some(damaged, unreadable='skip', workers=workers), strict=True)
  for right, found in pairs:
    masked = right.index == bad
    count += masked.sum()
    assert found.example_mask.tolist() == (~masked).tolist()
    assert found.index.tolist() == np.where(masked, -2 - bad, right.index).tolist()
    assert unreadable.numbers_in(found.index) == [bad] * masked.sum()
    for one, other in zip((*right[:3], *right.targets), (*found[:3], *found.targets), strict=True):
      np.testing.assert_array_equal(np.asarray(one)[~masked], np.asarray(other)[~masked])
    assert not found.clips[masked].any() and not found.targets.box_mask[masked].any()
    assert (found.sizes[masked] == SETTINGS.canvases[0]).all()
  assert count == 3  # of 32 clips in 3 epochs of 11


def test_order_does_not_depend_on_hosts_or_where_a_run_continues(damaged):
  one = [batch.index.tolist() for batch in some(damaged, unreadable='skip')]
  hosts = [
    some(damaged, unreadable='skip', process_index=host, process_count=2) for host in range(2)
  ]
  assert [[*a.index.tolist(), *b.index.tolist()] for a, b in zip(*hosts, strict=True)] == one
  later = some(damaged, steps=3, start=5, unreadable='skip')
  assert [batch.index.tolist() for batch in later] == one[5:]


def test_by_default_it_stops(damaged):
  with pytest.raises(InputError, match="video 'video_1': the JPEG of frame 5 is corrupt"):
    some(damaged)


def test_a_damaged_shard_loses_its_own_clips_alone(tmp_path):
  index = write_toy(tmp_path, [make_record(video) for video in range(4)])
  flip_bit(index.shard_path(0), -40)  # in the last record of the first of two shards
  with eval_batches(index, SETTINGS, batch_size=4, unreadable='skip') as batches:
    found = np.concatenate([batch.index for batch in batches])
  lost = unreadable.numbers_in(found)
  read = [number for number in found.tolist() if number >= 0]
  assert sorted(lost + read) == list(range(NUM_EXAMPLES)) and lost
  assert len({index.videos[number] for number in lost}) == 1


def test_too_many_boxes_are_no_damage(damaged):
  settings = dataclasses.replace(SETTINGS, max_boxes=1)
  with (
    pytest.raises(InputError, match='raise config.clip.max_boxes'),
    eval_batches(damaged, settings, batch_size=4, unreadable='skip') as batches,
  ):
    list(batches)


def test_they_are_counted_and_named(damaged, capsys):
  (bad,) = bad_examples(damaged)
  seen = unreadable.Unreadable(damaged)
  for batch in some(damaged, unreadable='skip'):
    seen.note(batch.index)
  assert list(seen.numbers) == [bad]
  name = f'video_1 at {damaged.timestamps[bad]}'
  assert capsys.readouterr().err == f'unreadable clip skipped: {name}\n'
  assert unreadable.summary(damaged, [bad, bad]) == (
    f'1 of 11 clips of train could not be read and were skipped: {name}; prepare the data again '
    'without them.'
  )
  assert unreadable.summary(damaged, []) == ''


def test_where_most_cannot_be_read_the_run_stops(damaged, monkeypatch):
  seen = unreadable.Unreadable(damaged)
  seen.note(np.arange(3))
  seen.note(np.array([-2, -3, -4, -5, -5, -1]))  # few were met so far
  monkeypatch.setattr(unreadable, 'FEWEST', 8)
  with pytest.raises(InputError, match='6 of 11 clips cannot be read, first video_0 at'):
    seen.note(np.array([-6, -7]))
