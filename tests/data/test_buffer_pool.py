"""Memory is reused if and only if nothing refers to it."""

import pickle
import threading

import jax
import numpy as np

from evad_jax.data.buffer_pool import RecycledMemory


def address(array):
  return array.__array_interface__['data'][0]


def test_memory_is_used_again_once_it_is_free():
  memory = RecycledMemory()
  first, second = memory.take((4, 5)), memory.take((4, 5))
  places = {address(first), address(second)}
  assert len(places) == 2
  del first, second
  again = [memory.take((5, 4)), memory.take((2, 3))]
  assert {address(array) for array in again} == places
  assert address(memory.take((4, 5))) not in places  # a third while two are in use


def test_views_and_device_arrays_keep_their_memory():
  memory = RecycledMemory()
  whole = memory.take((64, 1024))
  whole[:] = 7
  row, device = whole[3], jax.device_put(whole[:32])
  del whole
  for _ in range(5):
    memory.take((64, 1024))[:] = 9
  assert (row == 7).all() and (np.asarray(device) == 7).all()


def test_larger_arrays_replace_free_smaller_buffers():
  memory = RecycledMemory()
  memory.take((10,))
  large = memory.take((100,))
  assert large.shape == (100,) and len(memory._buffers) == 1
  del large
  small = memory.take((10,))
  assert small.base.size == 100 and len(memory._buffers) == 1


def test_threads_never_share_memory():
  memory, faults = RecycledMemory(), []

  def work(value):
    for _ in range(300):
      array = memory.take((1000,))
      array[:] = value
      if (array != value).any():
        faults.append(value)

  threads = [threading.Thread(target=work, args=(value,)) for value in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  # A thread holds one array while it takes the next.
  assert not faults and len(memory._buffers) <= 2 * 8


def test_a_copy_starts_empty():
  memory = RecycledMemory()
  kept = memory.take((10,))
  copy = pickle.loads(pickle.dumps(memory))
  assert address(copy.take((10,))) != address(kept)
