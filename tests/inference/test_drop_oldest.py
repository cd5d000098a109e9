"""Only a late reader loses items, the oldest first, counted; errors and the end arrive."""

import itertools
import threading

import pytest

from evad_jax.inference.drop_oldest import DropOldest
from tests.inference.stepped_source import SOON, Source


def test_whoever_keeps_up_gets_everything():
  source = Source()
  reader = DropOldest(source, 1)
  found, items = [], iter(reader)
  for number in range(200):
    source.give(number)
    found.append(next(items))
  source.end()
  assert found == list(range(200)) and reader.dropped == 0
  assert list(items) == []


@pytest.mark.parametrize('size', [1, 2, 5])
def test_the_oldest_are_dropped_and_counted(size):
  source = Source()
  reader = DropOldest(source, size)
  items = iter(reader)
  source.give(*range(10))
  assert reader.dropped == 10 - size
  assert next(items) == 10 - size  # the oldest of those that wait
  source.give(10)  # has room
  assert reader.dropped == 10 - size
  source.give(11, 12)
  assert reader.dropped == 12 - size
  source.end()
  assert list(items) == list(range(13 - size, 13))
  assert reader.dropped == 12 - size  # all others came out: 13 = 1 + size + dropped


def test_reading_begins_before_anybody_waits_and_goes_on_beside(monkeypatch):
  source = Source()
  reader = DropOldest(source, 3)
  source.give('a', 'b')  # nobody iterates yet
  items = iter(reader)
  assert next(items) == 'a'
  waits, wait = threading.Event(), reader._changed.wait
  monkeypatch.setattr(reader._changed, 'wait', lambda *seconds: waits.set() or wait(*seconds))
  later = threading.Thread(target=lambda: waits.wait(SOON) and source.give('c'))
  later.start()
  assert [next(items), next(items)] == ['b', 'c']  # the last one is waited for
  later.join()
  source.end()
  assert list(items) == []


def test_an_error_comes_after_what_came_before_it():
  source = Source(ValueError('the camera is gone'))
  reader = DropOldest(source, 2)
  items = iter(reader)
  source.give(1, 2, 3)
  source.end()
  assert [next(items), next(items)] == [2, 3]
  with pytest.raises(ValueError, match='the camera is gone'):
    next(items)


def test_an_error_at_once():
  source = Source(OSError('no camera'))
  source.end()
  with pytest.raises(OSError, match='no camera'):
    list(DropOldest(source, 1))


def test_an_empty_source():
  assert list(DropOldest([], 1)) == []


def test_stopping_ends_an_endless_source():
  taken = []

  def numbers():
    for number in itertools.count():
      taken.append(number)
      yield number

  reader = DropOldest(numbers(), 1)
  items = iter(reader)
  assert next(items) >= 0
  assert reader._thread.is_alive()
  reader.stop()
  assert not reader._thread.is_alive()
  # One came out, one may wait, one may have been read when it was stopped; the rest were dropped.
  assert 0 <= len(taken) - 1 - reader.dropped <= 2
