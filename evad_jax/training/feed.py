"""Batches on their way to the devices."""

import jax
from jax.sharding import Mesh

from evad_jax.data import pipeline
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.unreadable import Unreadable, summary
from evad_jax.distributed import processes, sharding
from evad_jax.distributed.processes import tell
from evad_jax.structures import Batch
from evad_jax.training.run_log import Stopwatch


class Feed:
  """The batches of one run, and which clips it goes on without."""

  def __init__(
    self, batches: pipeline.BatchIterator, mesh: Mesh, index: RecordIndex, interval: Stopwatch
  ):
    """interval: counts the time that is spent waiting."""
    self._batches, self._mesh, self._index, self._interval = batches, mesh, index, interval
    self._unreadable = Unreadable(index)

  def fetch(self, computed: jax.Array | None = None) -> Batch | Exception:
    """The next batch on the devices, or why there is none: to be raised where it is needed.

    computed: what the devices are at work on. Until it is there, nothing waits for data.
    """
    try:
      busy = (lambda: not computed.is_ready()) if computed is not None else lambda: False
      batch = self._interval.wait_for(self._batches, busy)
      self._unreadable.note(batch.index)
      return sharding.put_batch(batch, self._mesh)
    except Exception as error:
      return error

  def tell_unreadable(self) -> None:
    """Says which clips all processes have gone on without."""
    told = summary(self._index, processes.gather(list(self._unreadable.numbers)))
    if told:
      tell(told)
