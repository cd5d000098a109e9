"""Examples -> Batch: picks, decodes and places the frames of every clip, pads boxes and labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evad_jax.data import augment, clip_sampling
from evad_jax.data.buffer_pool import RecycledMemory
from evad_jax.data.records import Example
from evad_jax.errors import InputError
from evad_jax.structures import Batch, Targets

FILLER = -1  # the example number of a place in a batch that holds no example

# Frames that a batch has already: (video, frame number, mirrored) -> view of its place, (H, W, 3).
Drawn = dict[tuple[str, int, bool], np.ndarray]


@dataclass(frozen=True)
class ClipSettings:
  """What a clip looks like; the same for all clips of a run."""

  clip_frames: int  # T
  frame_stride: int  # frames of the video between neighbouring clip frames
  canvases: tuple[tuple[int, int], ...]  # (H, W) pixels; every picture fits one of them
  short_side: int | None  # of the picture, pixels; None: as large as the canvas allows
  max_boxes: int  # G
  max_long: int = 1333  # bound of the picture's long side, pixels
  flip_probability: float = 0.5  # of mirroring, in training only
  keyframe_only: bool = False  # every frame is the keyframe: what a still image tells
  reduced_decoding: bool = False  # decode frames twice the picture's size, or more, at a part of it


class Item(NamedTuple):
  """One place in a batch."""

  number: int  # of the example within its split, or FILLER
  example: Example | None  # None for filler, and where it cannot be read
  flip: bool = False

  def place(self) -> int:
    """What `Batch.index` has for a place that holds no clip."""
    return FILLER if self.number == FILLER else -2 - self.number


@dataclass(frozen=True)
class MakeBatch:
  """Items -> Batch; a picklable callable, so that worker processes can have it."""

  settings: ClipSettings
  canvas: tuple[int, int]  # (H, W), one of the settings' canvases
  num_classes: int  # A
  skip_unreadable: bool = False  # mask such clips, see data/unreadable.py
  memory: RecycledMemory = field(default_factory=RecycledMemory, repr=False, compare=False)

  def __call__(self, items: Sequence[Item]) -> Batch:
    """B items -> a batch of B; see `structures.Batch` for shapes.

    Raises:
      InputError: a frame is corrupt or not stored, or a keyframe has more than max_boxes boxes.
    """
    clips = self.memory.take((len(items), self.settings.clip_frames, *self.canvas, 3))
    batch = empty_batch(clips, self.settings.max_boxes, self.num_classes)
    drawn: Drawn = {}
    for place, item in enumerate(items):
      if item.example is not None:
        _check_boxes(item.example, self.settings)
        try:
          _fill_place(batch, place, item, self.settings, self.canvas, drawn)
          continue
        except InputError:
          if not self.skip_unreadable:
            raise
          _forget(drawn, clips[place])
      _leave_empty(batch, place, item)
    return batch


def _leave_empty(batch: Batch, place: int, item: Item) -> None:
  """Makes a place what `empty_batch` says, whatever was written there."""
  batch.clips[place] = 0
  batch.sizes[place] = batch.clips.shape[2:4]
  batch.index[place] = item.place()


def _forget(drawn: Drawn, clip: np.ndarray) -> None:
  """Drops the frames that lie in a clip."""
  for key in [key for key, frame in drawn.items() if np.shares_memory(frame, clip)]:
    del drawn[key]


def _check_boxes(example: Example, settings: ClipSettings) -> None:
  count = len(example.boxes)
  if count > settings.max_boxes:
    raise InputError(
      f'video {example.video!r}: keyframe {example.keyframe} has {count} boxes, more than '
      f'{settings.max_boxes}; raise config.clip.max_boxes to at least {count}'
    )


def empty_batch(clips: np.ndarray, max_boxes: int, num_classes: int) -> Batch:
  """A batch of filler around clips (B, T, H, W, 3), as they are: no boxes, example_mask False."""
  batch_size, canvas = len(clips), clips.shape[2:4]
  shape = (batch_size, max_boxes)
  # Filler claims the whole canvas, not 0 x 0, so that nobody divides by zero or masks every token.
  sizes = np.tile(np.array(canvas, np.int32), (batch_size, 1))
  return Batch(
    clips=clips,
    sizes=sizes,
    frame_boxes=np.zeros((*shape, 4), np.float32),
    targets=Targets(
      boxes=np.zeros((*shape, 4), np.float32),
      labels=np.zeros((*shape, num_classes), np.float32),
      box_mask=np.zeros(shape, bool),
    ),
    example_mask=np.zeros(batch_size, bool),
    index=np.full(batch_size, FILLER, np.int32),
  )


def _fill_place(
  batch: Batch,
  place: int,
  item: Item,
  settings: ClipSettings,
  canvas: tuple[int, int],
  drawn: Drawn,
) -> None:
  """Writes one example into its place of the batch."""
  example, count = item.example, len(item.example.boxes)
  resize = augment.plan_resize(
    example.height,
    example.width,
    canvas=canvas,
    short_side=settings.short_side,
    max_long=settings.max_long,
  )
  _draw_clip(example, resize, item.flip, settings, drawn, batch.clips[place])
  batch.sizes[place] = resize.height, resize.width
  batch.frame_boxes[place, :count] = example.boxes
  batch.targets.boxes[place, :count] = augment.transform_boxes(
    example.boxes, example.height, example.width, resize, item.flip
  )
  batch.targets.labels[place, :count] = example.labels
  batch.targets.box_mask[place, :count] = True
  batch.example_mask[place] = True
  batch.index[place] = item.number


def _draw_clip(
  example: Example,
  resize: augment.Resize,
  flip: bool,
  settings: ClipSettings,
  drawn: Drawn,
  out: np.ndarray,
) -> None:
  """Fills out (T, H, W, 3) with a clip; a frame is decoded once in the whole batch.

  Clips of neighbouring keyframes, which follow one another in an evaluation, share most frames.
  """
  numbers = clip_sampling.clip_frame_numbers(
    example.keyframe, example.num_frames, settings.clip_frames, settings.frame_stride
  )
  if settings.keyframe_only:
    numbers = np.full_like(numbers, example.keyframe)
  positions = clip_sampling.stored_positions(numbers, example.frame_numbers, example.video)
  size, picture = (example.height, example.width), (resize.height, resize.width)
  # What needs neither resizing nor mirroring, and has the canvas' rows, is decoded in its place.
  in_place = size == picture and not flip and resize.width == out.shape[2]
  # All other frames pass through one piece of memory: new pages for each would cost more.
  scratch = None if in_place or settings.reduced_decoding else np.empty((*size, 3), np.uint8)
  out[:, resize.height :] = 0
  out[:, : resize.height, resize.width :] = 0
  for t, (position, number) in enumerate(zip(positions, numbers.tolist(), strict=True)):
    key = (example.video, number, flip)
    if key in drawn:
      out[t] = drawn[key]
      continue
    frame = augment.decode_frame(
      example.frames[position],
      video=example.video,
      frame=number,
      size=size,
      least=picture if settings.reduced_decoding else None,
      out=out[t, : resize.height] if in_place else scratch,
    )
    if not in_place:
      augment.draw_frame(frame, resize, flip, out[t])
    drawn[key] = out[t]
