"""Between a source that does not wait and a reader that may be late: the oldest are dropped."""

import collections
import threading
from collections.abc import Iterable, Iterator
from typing import Any


class DropOldest:
  """Reads an iterable in a thread of its own; iterating gives the newest `size` items or fewer.

  Whoever iterates gets every item while it keeps up. When it does not, the oldest items waiting are
  dropped and counted, so that what it gets is never older than `size` items. An exception of the
  source comes out at the end, after the items before it.
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
    except BaseException as error:  # raised again where it is waited for
      self._error = error
    finally:
      with self._changed:
        self._ended = True
        self._changed.notify()

  def __iter__(self) -> Iterator[Any]:
    """The items, waiting for each."""
    while True:
      with self._changed:
        # With a limit, so that Ctrl-C is answered while nothing comes.
        while not (self._items or self._ended):
          self._changed.wait(0.2)
        if not self._items:
          break
        item = self._items.popleft()
      yield item
    if self._error is not None:
      raise self._error

  def stop(self) -> None:
    """Ends the reading at the next item; waits a moment for it."""
    with self._changed:
      self._stopped = True
    self._thread.join(timeout=2)
