"""A source whose items come when a test says so."""

import queue
import threading

SOON = 600  # seconds: only guards against waiting forever
END = object()


class Source:
  """Gives an item when a test offers it, from another thread."""

  def __init__(self, error=None):
    self.error = error
    self._items, self._stored = queue.Queue(), threading.Semaphore(0)
    self._offered = 0

  def __iter__(self):
    while (item := self._items.get(timeout=SOON)) is not END:
      yield item
      self._stored.release()  # the reader asks for the next item: it has stored this one
    if self.error:
      raise self.error

  def offer(self, *items):
    """Returns at once."""
    self._offered += len(items)
    for item in items:
      self._items.put(item)

  def give(self, *items):
    """Returns when they, and all that were offered, wait in the reader or were dropped."""
    self.offer(*items)
    while self._offered:
      assert self._stored.acquire(timeout=SOON)
      self._offered -= 1

  def end(self):
    self._items.put(END)
