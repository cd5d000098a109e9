"""A queue between a source that does not wait and a reader that may lag: drops the oldest items."""

import collections
import threading
from collections.abc import Iterable, Iterator
from typing import Any


class DropOldest:
  """Reads an iterable in its own thread; buffers the newest `size` items at most.

  A reader that keeps up gets every item. When it lags, the oldest waiting items are dropped and
  counted, so that no item it gets is more than `size` items old. An exception of the source is
  raised after the items that came before it.
  """

  def __init__(self, source: Iterable[Any], size: int):
    """Starts reading at once."""
    self.dropped = 0
    self._items: collections.deque[Any] = collections.deque()
    self._size = size
    self._ended, self._stopped = False, False
    self._error: BaseException | None = None
    self._changed = threading.Condition()
    self._thread = threading.Thread(target=self._read, args=(source,), daemon=True)
    self._thread.start()

  def _read(self, source: Iterable[Any]) -> None:
    try:
      for item in source:
        with self._changed:
          if self._stopped:
            break
          if len(self._items) == self._size:
            self._items.popleft()
            self.dropped += 1
          self._items.append(item)
          self._changed.notify()
    except BaseException as error:  # raised again in the reader
      self._error = error
    finally:
      with self._changed:
        self._ended = True
        self._changed.notify()

  def __iter__(self) -> Iterator[Any]:
    """Yields the items, waiting for each."""
    while True:
      with self._changed:
        # A timeout, so that Ctrl-C works while nothing arrives.
        while not (self._items or self._ended):
          self._changed.wait(0.2)
        if not self._items:
          break
        item = self._items.popleft()
      yield item
    if self._error is not None:
      raise self._error

  def stop(self) -> None:
    """Stops reading at the next item; waits briefly for the thread to end."""
    with self._changed:
      self._stopped = True
    self._thread.join(timeout=2)
