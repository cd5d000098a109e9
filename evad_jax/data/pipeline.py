"""Examples of a prepared split -> a stream of batches, deterministic and resumable (grain).

The global batches of a run depend on the seed and the split alone: not on the number of hosts,
worker processes or threads. Every canvas has an endless sequence of shuffled epochs of its clips,
cut into stretches of `batch_size`; batch g of the run is the next stretch of the canvas whose turn
it is at step g. So the position in the data is the step, resuming is slicing, and a run may go on
with another number of hosts or workers. Each host takes its own consecutive part of every global
batch.

Threads are usually enough: reading, decoding and resizing release the interpreter lock. Every
thread makes whole batches, up to `prefetch` of them ahead. Worker processes send their batches
through shared memory (/dev/shm must hold about 2 * prefetch batches a worker), and each of them
imports the main module of the program once.
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
from evad_jax.structures import Batch, Targets


class ExampleSource:
  """A grain RandomAccessDataSource: place -> Item, with filler past the last example."""

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
      length: places in all; those past the examples hold filler.
      skip_unreadable: whether examples that cannot be read are empty places.
    """
    self._skip = skip_unreadable
    self._reader = RecordReader(index)
    self._numbers = numbers
    self._length = len(numbers) if length is None else length

  def __len__(self) -> int:
    """Examples and filler together."""
    return self._length

  def __getitem__(self, place: int) -> Item:
    """Reads and verifies one example; InputError where its shard is damaged, unless skipped."""
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
  """Iterator of Batch that owns threads and processes: close it, or use it in a `with`.

  It closes itself when it ends, fails or is deleted. Closed, it has no more batches.
  """

  def __init__(self, dataset: grain.IterDataset):
    """Starts nothing yet; threads and processes start with the first batch."""
    self._owned = [iter(dataset)]  # empty when closed
    # At the latest when the interpreter begins to exit: later, grain's own clean-up fails noisily.
    self._finalizer = weakref.finalize(self, _close_all, self._owned)

  def __iter__(self) -> 'BatchIterator':
    """Itself."""
    return self

  def __next__(self) -> Batch:
    """The next batch, of plain NumPy arrays; raises InputError where an example is unusable."""
    if not self._owned:
      raise StopIteration
    try:
      batch = next(self._owned[0])
    except BaseException:
      self.close()
      raise
    return _as_plain_arrays(batch)

  def close(self) -> None:
    """Stops threads and worker processes; closing twice is fine."""
    self._finalizer()

  def __exit__(self, *exception) -> None:
    self.close()


def _close_all(owned: list[grain.DatasetIterator]) -> None:
  """Closes and forgets, so that grain deletes them now."""
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
  """Endless shuffled, randomly mirrored batches; each epoch holds every example exactly once.

  Batches straddle the ends of epochs, and every epoch has its own order and flips.

  Args:
    index: of the split.
    settings: of the clips.
    seed: of order and flips, at least 0.
    batch_size: of all processes together; divisible by process_count.
    process_index: this process, in [0, process_count).
    process_count: number of processes (hosts).
    workers: worker processes; 0 makes batches in threads of this process.
    threads: a process; 0 makes each batch when it is asked for.
    prefetch: batches that a process makes ahead, at least `threads`.
    unreadable: 'stop' raises for clips that cannot be read, 'skip' masks their places, see
      data/unreadable.py.
    start_step: the first batch returned is that of this step.

  Returns:
    Iterator of Batch, `batch_size // process_count` clips each.

  Raises:
    InputError: the split is empty, a picture would not fit any canvas, or batch_size cannot be
      divided; iterating raises it for unusable examples.
  """
  local_batch, skip = _local_batch(batch_size, process_count), unreadable == 'skip'
  by_canvas = buckets(index, settings)
  seeds = np.random.SeedSequence(seed).generate_state(2 * len(by_canvas) + 1).tolist()
  memory = RecycledMemory()
  draw_flip = partial(_draw_flip, probability=settings.flip_probability)
  datasets = []
  for place, (canvas, numbers) in enumerate(by_canvas):
    dataset = (
      grain.MapDataset.source(ExampleSource(index, numbers, skip_unreadable=skip))
      .shuffle(seed=seeds[2 * place])
      .repeat()  # reseeds the order of every epoch; flips are seeded by the place in the sequence
      .random_map(draw_flip, seed=seeds[2 * place + 1])
      .batch(local_batch, drop_remainder=True, batch_fn=list)
    )
    make_batch = MakeBatch(settings, canvas, len(index.classes), skip, memory)
    datasets.append(dataset[process_index::process_count].map(make_batch))
  schedule = Schedule([len(numbers) for _, numbers in by_canvas], seeds[-1])
  dataset = grain.MapDataset.select_from_datasets(datasets, schedule)
  return _iterate(dataset[start_step:], workers, threads, prefetch)


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
  """Every example exactly once over all processes, not mirrored, canvas after canvas, in order.

  Every process gets as many batches of each canvas, ceil(its examples / batch_size); places past
  its last example are filler (example_mask False, index -1). Arguments and errors as in
  `train_batches`.
  """
  local_batch, skip = _local_batch(batch_size, process_count), unreadable == 'skip'
  datasets, memory = [], RecycledMemory()
  for canvas, numbers in buckets(index, settings):
    length = math.ceil(len(numbers) / batch_size) * batch_size
    dataset = grain.MapDataset.source(ExampleSource(index, numbers, length, skip))
    dataset = dataset.batch(local_batch, drop_remainder=True, batch_fn=list)
    make_batch = MakeBatch(settings, canvas, len(index.classes), skip, memory)
    datasets.append(dataset[process_index::process_count].map(make_batch))
  dataset = grain.MapDataset.concatenate(datasets)
  return _iterate(dataset, min(workers, len(dataset)), threads, prefetch)


def _iterate(dataset: grain.MapDataset, workers: int, threads: int, prefetch: int) -> BatchIterator:
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


def _local_batch(batch_size: int, process_count: int) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise InputError(
      f'batch size {batch_size} cannot be shared equally by {process_count} processes; '
      f'make it a positive multiple of {process_count}'
    )
  return batch_size // process_count


def buckets(index: RecordIndex, settings: ClipSettings) -> list[tuple[tuple[int, int], np.ndarray]]:
  """(canvas, numbers of its examples) of every canvas that has any.

  Finds out before the first step, not hours later, that a picture does not fit.
  """
  if not len(index):
    raise InputError(
      f'{index.directory}: split {index.split!r} has no examples; prepare it with '
      f'`{index.prepare_command}`'
    )
  place = canvases_of(
    index.heights,
    index.widths,
    settings.canvases,
    short_side=settings.short_side,
    max_long=settings.max_long,
  )
  return [(settings.canvases[i], np.flatnonzero(place == i)) for i in np.unique(place)]


def _as_plain_arrays(batch: Batch) -> Batch:
  """Worker processes return a subclass of ndarray backed by shared memory: views without it."""
  plain = {name: np.asarray(array) for name, array in batch._asdict().items() if name != 'targets'}
  return Batch(**plain, targets=Targets(*map(np.asarray, batch.targets)))
