"""A buffer pool for batches of clips: memory is reused once nothing refers to it.

A batch has about a hundred megabytes. Fresh memory from the system has to be cleared and mapped
while it is written, which costs a tenth or more of the pipeline's time.
"""

import math
import sys
import threading

import numpy as np


class RecycledMemory:
  """Provides uint8 arrays from a few buffers; picklable (as an empty pool), thread-safe.

  An array refers to its buffer, and so does every view of it and every device that reads it. A
  buffer that only this object refers to is free. So memory in use is never overwritten, and there
  are never more buffers than arrays alive at the same time.
  """

  def __init__(self):
    """Allocates nothing yet."""
    self._lock = threading.Lock()
    self._buffers: list[np.ndarray] = []
    # The reference count of a buffer that only a list refers to; it depends on the Python version.
    self._free_count = self._counts([np.zeros(1, np.uint8)])[0]

  def take(self, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a uint8 array with arbitrary content."""
    size = math.prod(shape)
    with self._lock:
      counts = self._counts(self._buffers)
      free = [i for i, count in enumerate(counts) if count == self._free_count]
      fitting = [i for i in free if self._buffers[i].size >= size]
      if fitting:
        buffer = self._buffers[fitting[0]]
      else:
        # A larger buffer replaces a free one that is too small.
        if free:
          del self._buffers[free[0]]
        buffer = np.empty(size, np.uint8)
        self._buffers.append(buffer)
      return buffer[:size].reshape(shape)

  @staticmethod
  def _counts(buffers: list[np.ndarray]) -> list[int]:
    return [sys.getrefcount(buffers[i]) for i in range(len(buffers))]

  def __getstate__(self) -> dict:
    """Pickles nothing: a copy in another process has its own memory."""
    return {}

  def __setstate__(self, state: dict) -> None:
    """Starts as an empty pool."""
    self.__init__()
