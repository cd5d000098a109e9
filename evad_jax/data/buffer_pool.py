"""Memory for batches of clips, used again as soon as nobody refers to it any more.

A batch is a hundred megabytes. Taken from the system each time, its pages are cleared and mapped
anew while they are written, which costs a tenth or more of the pipeline's time.
"""

import math
import sys
import threading

import numpy as np


class RecycledMemory:
  """Arrays of uint8 from a few buffers; picklable (empty), safe in threads.

  An array, and whatever is a view of it or keeps it for a device, refers to its buffer; a buffer to
  which nothing but this object refers is free. So memory in use never changes, and there are never
  more buffers than arrays were alive at the same time.
  """

  def __init__(self):
    """Takes no memory yet."""
    self._lock = threading.Lock()
    self._buffers: list[np.ndarray] = []
    # What counting finds for a buffer that only a list refers to; it differs between Pythons.
    self._free_count = self._counts([np.zeros(1, np.uint8)])[0]

  def take(self, shape: tuple[int, ...]) -> np.ndarray:
    """An array of uint8 whose content is anything."""
    size = math.prod(shape)
    with self._lock:
      counts = self._counts(self._buffers)
      free = [i for i, count in enumerate(counts) if count == self._free_count]
      fitting = [i for i in free if self._buffers[i].size >= size]
      if fitting:
        buffer = self._buffers[fitting[0]]
      else:
        # A free buffer that is too small makes place for one that is large enough for both.
        if free:
          del self._buffers[free[0]]
        buffer = np.empty(size, np.uint8)
        self._buffers.append(buffer)
      return buffer[:size].reshape(shape)

  @staticmethod
  def _counts(buffers: list[np.ndarray]) -> list[int]:
    return [sys.getrefcount(buffers[i]) for i in range(len(buffers))]

  def __getstate__(self) -> dict:
    """A copy in another process has memory of its own."""
    return {}

  def __setstate__(self, state: dict) -> None:
    """Empty."""
    self.__init__()
