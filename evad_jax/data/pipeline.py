"""The input pipeline: a prepared split -> a deterministic, resumable stream of batches (grain).

The global batches of a run depend only on the seed and the split, not on the number of hosts,
worker processes or threads. Every canvas has an endless sequence of shuffled epochs of its clips,
cut into batches; batch g of the run is the next one of the canvas of step g. So the step is the
position in the data, resuming is slicing, and a run may resume with another number of hosts or
workers. Each host reads its own consecutive part of every global batch.

Threads are usually enough: reading, decoding and resizing release the interpreter lock. Each thread
makes complete batches, up to `prefetch` ahead. Worker processes send their batches through shared
memory (/dev/shm must hold about 2 * prefetch batches per worker), and each of them imports the
program's main module once.
"""

import contextlib
import math
import weakref
from functools import partial

import grain
import numpy as np
from absl import flags

from evad_jax.data.aspect_buckets import Schedule, canvases_of
from evad_jax.data.buffer_pool import RecycledMemory
from evad_jax.data.clips import FILLER, ClipSettings, Item, MakeBatch
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.records import RecordReader
from evad_jax.errors import InputError
from evad_jax.structures import Batch, ClipBatch


class ExampleSource:
  """A grain RandomAccessDataSource: index -> Item, with padding after the last example."""

  def __init__(
    self,
    index: RecordIndex,
    numbers: np.ndarray,
    length: int | None = None,
    skip_unreadable: bool = False,
  ):
    """Reads nothing yet.

    Args:
      index: of the split.
      numbers: of the examples, in order.
      length: of the source; items after the last example are padding.
      skip_unreadable: whether unreadable examples become empty items.
    """
    self._skip = skip_unreadable
    self._reader = RecordReader(index)
    self._numbers = numbers
    self._length = len(numbers) if length is None else length

  def __len__(self) -> int:
    """Number of examples and padding."""
    return self._length

  def __getitem__(self, place: int) -> Item:
    """Reads and verifies one example; InputError where it is damaged, unless skipped."""
    if place >= len(self._numbers):
      return Item(FILLER, None)
    number = int(self._numbers[place])
    try:
      return Item(number, self._reader[number])
    except InputError:
      if not self._skip:
        raise
      return Item(number, None)


class BatchIterator(contextlib.AbstractContextManager):
  """Iterator of batches that owns threads and processes: close it, or use it in a `with` block.

  It closes itself when it ends, fails or is deleted. A closed one has no more batches.
  """

  def __init__(self, dataset: grain.IterDataset):
    """Starts nothing yet; threads and processes start with the first batch."""
    self._owned = [iter(dataset)]  # empty when closed
    # Also closes as the interpreter starts to exit: later, grain's own clean-up prints errors.
    self._finalizer = weakref.finalize(self, _close_all, self._owned)

  def __iter__(self) -> 'BatchIterator':
    """Itself."""
    return self

  def __next__(self) -> Batch | ClipBatch:
    """Returns the next batch as NumPy arrays; raises InputError where an example is unusable."""
    if not self._owned:
      raise StopIteration
    try:
      batch = next(self._owned[0])
    except BaseException:
      self.close()
      raise
    return _as_plain_arrays(batch)

  def close(self) -> None:
    """Stops threads and worker processes; may be called twice."""
    self._finalizer()

  def __exit__(self, *exception) -> None:
    self.close()


def _close_all(owned: list[grain.DatasetIterator]) -> None:
  """Closes the iterators and drops the references, so that grain deletes them now."""
  while owned:
    owned.pop().close()


def train_batches(
  index: RecordIndex,
  settings: ClipSettings,
  *,
  seed: int,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  threads: int = 4,
  prefetch: int = 4,
  unreadable: str = 'stop',
  start_step: int = 0,
) -> BatchIterator:
  """Returns endless shuffled, randomly mirrored batches; an epoch has every example exactly once.

  A batch may span two epochs. Every epoch has its own order and flips.

  Args:
    index: of the split.
    settings: of the clips.
    seed: of order and flips, at least 0.
    batch_size: global, over all processes; divisible by process_count.
    process_index: this process, in [0, process_count).
    process_count: number of processes (hosts).
    workers: worker processes; 0 makes batches in threads of this process.
    threads: per process; 0 makes each batch on request.
    prefetch: batches that a process makes ahead, at least `threads`.
    unreadable: 'stop' raises for unreadable clips, 'skip' masks them, see data/unreadable.py.
    start_step: step of the first batch returned.

  Returns:
    Iterator of Batch, `batch_size // process_count` clips each.

  Raises:
    InputError: the split is empty, a picture fits no canvas, or batch_size is not divisible;
      iterating raises it for unusable examples.
  """
  local_batch, skip = share_of_batch(batch_size, process_count), unreadable == 'skip'
  by_canvas = buckets(index, settings)
  seeds = np.random.SeedSequence(seed).generate_state(2 * len(by_canvas) + 1).tolist()
  memory = RecycledMemory()
  draw_flip = partial(_draw_flip, probability=settings.flip_probability)
  datasets = []
  for place, (canvas, numbers) in enumerate(by_canvas):
    dataset = (
      grain.MapDataset.source(ExampleSource(index, numbers, skip_unreadable=skip))
      .shuffle(seed=seeds[2 * place])
      .repeat()  # reseeds the order of every epoch; flips are seeded by the index in the sequence
      .random_map(draw_flip, seed=seeds[2 * place + 1])
      .batch(local_batch, drop_remainder=True, batch_fn=list)
    )
    make_batch = MakeBatch(settings, canvas, len(index.classes), skip, memory)
    datasets.append(dataset[process_index::process_count].map(make_batch))
  schedule = Schedule([len(numbers) for _, numbers in by_canvas], seeds[-1])
  dataset = grain.MapDataset.select_from_datasets(datasets, schedule)
  return iterate(dataset[start_step:], workers, threads, prefetch)


def eval_batches(
  index: RecordIndex,
  settings: ClipSettings,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  threads: int = 4,
  prefetch: int = 4,
  unreadable: str = 'stop',
) -> BatchIterator:
  """Returns every example exactly once over all processes, not mirrored, in order, by canvas.

  Every process gets the same number of batches of a canvas, ceil(its examples / batch_size); rows
  after its last example are padding (example_mask False, index -1). Arguments and errors as in
  `train_batches`.
  """
  local_batch, skip = share_of_batch(batch_size, process_count), unreadable == 'skip'
  datasets, memory = [], RecycledMemory()
  for canvas, numbers in buckets(index, settings):
    length = math.ceil(len(numbers) / batch_size) * batch_size
    dataset = grain.MapDataset.source(ExampleSource(index, numbers, length, skip))
    dataset = dataset.batch(local_batch, drop_remainder=True, batch_fn=list)
    make_batch = MakeBatch(settings, canvas, len(index.classes), skip, memory)
    datasets.append(dataset[process_index::process_count].map(make_batch))
  dataset = grain.MapDataset.concatenate(datasets)
  return iterate(dataset, min(workers, len(dataset)), threads, prefetch)


def iterate(dataset: grain.MapDataset, workers: int, threads: int, prefetch: int) -> BatchIterator:
  """Dataset of batches -> iterator of batches, made in threads or worker processes."""
  batches = dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
  )
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain reads its own flags when it starts processes
    batches = batches.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    )
  return BatchIterator(batches)


def _draw_flip(item: Item, generator: np.random.Generator, *, probability: float) -> Item:
  return item._replace(flip=bool(generator.random() < probability))


def share_of_batch(batch_size: int, process_count: int) -> int:
  """Clips of a global batch that each process makes; InputError where they cannot be shared."""
  if batch_size < 1 or batch_size % process_count:
    raise InputError(
      f'batch size {batch_size} cannot be shared equally by {process_count} processes; '
      f'make it a positive multiple of {process_count}'
    )
  return batch_size // process_count


def buckets(index: RecordIndex, settings: ClipSettings) -> list[tuple[tuple[int, int], np.ndarray]]:
  """Returns (canvas, numbers of its examples) of every canvas that has any.

  A picture that fits no canvas is reported before the first step, not hours later.
  """
  require_examples(index)
  place = canvases_of(
    index.heights,
    index.widths,
    settings.canvases,
    short_side=settings.short_side,
    max_long=settings.max_long,
  )
  return [(settings.canvases[i], np.flatnonzero(place == i)) for i in np.unique(place)]


def require_examples(index: RecordIndex) -> None:
  """Raises InputError for a split without an example."""
  if not len(index):
    raise InputError(
      f'{index.directory}: split {index.split!r} has no examples; prepare it with '
      f'`{index.prepare_command}`'
    )


def _as_plain_arrays(batch: Batch | ClipBatch) -> Batch | ClipBatch:
  """Views as plain ndarray: worker processes return a subclass, backed by shared memory."""
  parts = (_as_plain_arrays(x) if isinstance(x, tuple) else np.asarray(x) for x in batch)
  return type(batch)(*parts)
