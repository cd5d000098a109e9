"""Moves batches to the devices."""

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
  """The batches of one run, and the unreadable clips that it skips."""

  def __init__(
    self, batches: pipeline.BatchIterator, mesh: Mesh, index: RecordIndex, interval: Stopwatch
  ):
    """interval: measures the time spent waiting for data."""
    self._batches, self._mesh, self._index, self._interval = batches, mesh, index, interval
    self._unreadable = Unreadable(index)

  def fetch(self, computed: jax.Array | None = None) -> Batch | Exception:
    """Returns the next batch on the devices, or the error to raise where the batch is needed.

    computed: the result that the devices are computing. Until it is ready, nothing waits for data.
    """
    try:
      busy = (lambda: not computed.is_ready()) if computed is not None else lambda: False
      batch = self._interval.wait_for(self._batches, busy)
      self._unreadable.note(batch.index)
      return sharding.put_batch(batch, self._mesh)
    except Exception as error:
      return error

  def tell_unreadable(self) -> None:
    """Reports the unreadable clips of all processes."""
    told = summary(self._index, processes.gather(list(self._unreadable.numbers)))
    if told:
      tell(told)
