"""Batches of clips for pre-training, from any prepared split; boxes and labels are not read.

An epoch has one clip of every video, or of every piece of a long one. Its start is drawn anew each
time, uniformly, and so are its crops (`multi_scale_crop`). As in `pipeline`, the global batches
depend only on seed and split: epoch, video and seed decide everything that is drawn, the step is
the position in the data, and each host makes its own consecutive part of every global batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import grain
import numpy as np

from evad_jax.data import augment, clip_sampling, multi_scale_crop
from evad_jax.data.buffer_pool import RecycledMemory
from evad_jax.data.clips import FILLER
from evad_jax.data.multi_scale_crop import Crop
from evad_jax.data.pipeline import BatchIterator, iterate, require_examples, share_of_batch
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.records import RecordReader
from evad_jax.errors import InputError
from evad_jax.structures import ClipBatch


@dataclass(frozen=True)
class PretrainingClips:
  """The form of a clip for pre-training; the same for all clips of a run."""

  clip_frames: int  # T
  frame_stride: int  # frames of the video between neighbouring clip frames
  canvas: int  # side of the square canvas, pixels
  scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)  # of crops, see `multi_scale_crop`
  copies: int = 1  # crops of each decoded clip; they are neighbours in the batch
  flip_probability: float = 0.0  # of mirroring a crop
  piece_frames: int = 0  # longer videos count as several, of about so many frames; 0: they do not


class View(NamedTuple):
  """A clip of one video, not yet decoded, and its crops."""

  number: int  # of the example within its split whose record the clip is from, or FILLER
  video: str = ''
  size: tuple[int, int] = (0, 0)  # of the stored frames, pixels
  frames: tuple[bytes, ...] = ()  # distinct JPEG files; none for padding and unreadable clips
  frame_numbers: tuple[int, ...] = ()  # of them
  order: tuple[int, ...] = ()  # T indices in `frames`
  crops: tuple[Crop, ...] = ()
  flips: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Videos:
  """The examples of every video, or of every piece of one."""

  examples: np.ndarray  # (E,) int64 numbers, by video and keyframe
  begins: np.ndarray  # (V + 1,) int64: video v has examples[begins[v] : begins[v + 1]]

  def __len__(self) -> int:
    """V."""
    return len(self.begins) - 1

  def __getitem__(self, video: int) -> np.ndarray:
    """(n,) int64, the numbers of its examples, by keyframe."""
    return self.examples[self.begins[video] : self.begins[video + 1]]


def videos_of(index: RecordIndex, settings: PretrainingClips) -> Videos:
  """Groups the examples of a split by video, and long videos into pieces of equal length.

  Raises:
    InputError: the split is empty, or its data were prepared for shorter clips.
  """
  require_examples(index)
  ours, theirs = ((some.clip_frames - 1) * some.frame_stride + 1 for some in (settings, index))
  if ours > theirs:
    raise InputError(
      f'{index.directory}: was prepared for clips of up to {index.clip_frames} frames, '
      f'{index.frame_stride} apart, which is less than {settings.clip_frames}, '
      f'{settings.frame_stride} apart; change config.clip.clip_frames and '
      'config.clip.frame_stride, or prepare the data again'
    )
  video = np.unique(index.record_video, return_inverse=True)[1][index.example_record]
  order = np.lexsort((index.keyframes, video))
  video, keyframes = video[order], index.keyframes[order]
  changes = np.diff(video) != 0
  if settings.piece_frames:
    begins = np.flatnonzero(np.concatenate([[True], changes]))
    counts = np.diff(begins, append=len(order))
    first = np.repeat(keyframes[begins], counts)
    span = np.repeat(keyframes[begins + counts - 1], counts) - first + 1
    pieces = np.maximum(1, np.rint(span / settings.piece_frames).astype(np.int64))
    changes |= np.diff((keyframes - first) * pieces // span) != 0
  begins = np.flatnonzero(np.concatenate([[True], changes, [True]]))
  return Videos(order, begins)


def clips_per_epoch(index: RecordIndex, settings: PretrainingClips) -> int:
  """Number of clips after which every video has come up once; errors as in `videos_of`."""
  return len(videos_of(index, settings)) * settings.copies


@dataclass(frozen=True)
class ChooseClip:
  """Number of a video -> View; a callable that can be pickled for worker processes."""

  reader: RecordReader
  videos: Videos
  settings: PretrainingClips
  skip_unreadable: bool = False

  def __call__(self, video: int, generator: np.random.Generator | None = None) -> View:
    """Reads a record; without a generator chooses the middle clip and the central crop.

    Numbers from V on are padding. Raises InputError where the record is damaged or holds no clip,
    unless skipped.
    """
    if video >= len(self.videos):
      return View(FILLER)
    examples = self.videos[video]
    place = len(examples) // 2 if generator is None else generator.integers(len(examples))
    number = int(examples[place])
    try:
      return self._view(number, generator)
    except InputError:
      if not self.skip_unreadable:
        raise
      return View(number)

  def _view(self, number: int, generator: np.random.Generator | None) -> View:
    index, settings = self.reader.index, self.settings
    record = self.reader.stored(int(index.example_record[number]))
    clips = clip_sampling.stored_clips(
      record.frame_numbers,
      record.num_frames,
      settings.clip_frames,
      settings.frame_stride,
      record.video,
    )
    size = record.height, record.width
    if generator is None:
      start = int(index.keyframes[number]) - settings.clip_frames // 2 * settings.frame_stride
      clip = clips[np.abs(record.frame_numbers[clips[:, 0]] - start).argmin()]
      crops, flips = (multi_scale_crop.centre(*size),), (False,)
    else:
      clip = clips[generator.integers(len(clips))]
      crops, flips = zip(
        *(self._crop(size, generator) for _ in range(settings.copies)), strict=True
      )
    positions, order = np.unique(clip, return_inverse=True)
    return View(
      number,
      record.video,
      size,
      tuple(record.frames[position] for position in positions.tolist()),
      tuple(record.frame_numbers[positions].tolist()),
      tuple(order.tolist()),
      crops,
      flips,
    )

  def _crop(self, size: tuple[int, int], generator: np.random.Generator) -> tuple[Crop, bool]:
    crop = multi_scale_crop.draw(*size, self.settings.canvas, self.settings.scales, generator)
    return crop, bool(generator.random() < self.settings.flip_probability)


@dataclass(frozen=True)
class MakeClips:
  """Views -> ClipBatch; a callable that can be pickled for worker processes."""

  settings: PretrainingClips
  copies: int  # crops of each view
  skip_unreadable: bool = False  # mask unreadable clips, see data/unreadable.py
  memory: RecycledMemory = field(default_factory=RecycledMemory, repr=False, compare=False)

  def __call__(self, views: Sequence[View]) -> ClipBatch:
    """Decodes and crops the clips of B / copies views; InputError where a frame is corrupt."""
    side, rows = self.settings.canvas, len(views) * self.copies
    clips = self.memory.take((rows, self.settings.clip_frames, side, side, 3))
    index, mask = np.full(rows, FILLER, np.int32), np.zeros(rows, bool)
    for place, view in enumerate(views):
      mine = slice(place * self.copies, (place + 1) * self.copies)
      try:
        mask[mine] = _draw_view(view, clips[mine])
      except InputError:
        if not self.skip_unreadable:
          raise
      if mask[mine].all():
        index[mine] = view.number
      else:
        clips[mine] = 0
        index[mine] = FILLER if view.number == FILLER else -2 - view.number
    return ClipBatch(clips, mask, index)


def _draw_view(view: View, out: np.ndarray) -> bool:
  """Fills `out` (copies, T, H, W, 3) with the crops of a clip; returns whether there is a clip."""
  scratch = np.empty((*view.size, 3), np.uint8)
  order = np.array(view.order)
  for position, (jpeg, number) in enumerate(zip(view.frames, view.frame_numbers, strict=True)):
    frame = augment.decode_frame(jpeg, video=view.video, frame=number, size=view.size, out=scratch)
    first, *others = np.flatnonzero(order == position).tolist()
    for clip, crop, flip in zip(out, view.crops, view.flips, strict=True):
      multi_scale_crop.cut(frame, crop, flip, clip[first])
      clip[others] = clip[first]
  return bool(view.frames)


def train_clips(
  index: RecordIndex,
  settings: PretrainingClips,
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
  """Returns endless shuffled batches; an epoch has one clip of every video, in its own order.

  A batch may span two epochs.

  Args:
    index: of the split.
    settings: of the clips.
    seed: of everything that is drawn, at least 0.
    batch_size: clips, all copies counted, over all processes; divisible by process_count * copies.
    process_index: this process, in [0, process_count).
    process_count: number of processes (hosts).
    workers: worker processes; 0 makes batches in threads of this process.
    threads: per process; 0 makes each batch on request.
    prefetch: batches that a process makes ahead, at least `threads`.
    unreadable: 'stop' raises for unreadable clips, 'skip' masks them, see data/unreadable.py.
    start_step: step of the first batch returned.

  Returns:
    Iterator of ClipBatch, `batch_size // process_count` clips each.

  Raises:
    InputError: as `videos_of`, or batch_size is not divisible; iterating raises it for unusable
      records.
  """
  local_batch, skip = share_of_batch(batch_size, process_count), unreadable == 'skip'
  if local_batch % settings.copies:
    raise InputError(
      f'batch size {batch_size} is not made of {settings.copies} crops of every clip in each of '
      f'{process_count} processes; make it a multiple of {settings.copies * process_count}'
    )
  videos = videos_of(index, settings)
  order, drawn = np.random.SeedSequence(seed).generate_state(2).tolist()
  dataset = (
    grain.MapDataset.range(len(videos))
    .shuffle(seed=order)
    .repeat()  # reseeds the order of every epoch; clips are seeded by the index in the sequence
    .random_map(ChooseClip(RecordReader(index), videos, settings, skip), seed=drawn)
    .batch(local_batch // settings.copies, drop_remainder=True, batch_fn=list)
  )
  dataset = dataset[process_index::process_count]
  dataset = dataset.map(MakeClips(settings, settings.copies, skip))
  return iterate(dataset[start_step:], workers, threads, prefetch)


def held_out_clips(
  index: RecordIndex,
  settings: PretrainingClips,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  threads: int = 4,
  prefetch: int = 4,
  unreadable: str = 'stop',
) -> BatchIterator:
  """Returns the middle clip of every video once, its central square, by name of the video.

  Every process gets the same number of batches; rows after the last video are padding
  (example_mask False, index -1). Arguments and errors as in `train_clips`; there are no copies.
  """
  local_batch, skip = share_of_batch(batch_size, process_count), unreadable == 'skip'
  videos = videos_of(index, settings)
  length = math.ceil(len(videos) / batch_size) * batch_size
  dataset = grain.MapDataset.range(length)
  dataset = dataset.map(ChooseClip(RecordReader(index), videos, settings, skip))
  dataset = dataset.batch(local_batch, drop_remainder=True, batch_fn=list)
  dataset = dataset[process_index::process_count].map(MakeClips(settings, 1, skip))
  return iterate(dataset, min(workers, len(dataset)), threads, prefetch)
