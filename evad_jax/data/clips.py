"""Examples -> Batch: selects, decodes and resizes the frames of every clip; pads boxes, labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evad_jax.data import augment, clip_sampling
from evad_jax.data.buffer_pool import RecycledMemory
from evad_jax.data.records import Example
from evad_jax.errors import InputError
from evad_jax.structures import Batch, Targets

FILLER = -1  # the example number of padding: a row of a batch without an example

# Frames that a batch already has: (video, frame number, mirrored) -> view of the frame, (H, W, 3).
Drawn = dict[tuple[str, int, bool], np.ndarray]


@dataclass(frozen=True)
class ClipSettings:
  """The form of a clip; the same for all clips of a run."""

  clip_frames: int  # T
  frame_stride: int  # frames of the video between neighbouring clip frames
  canvases: tuple[tuple[int, int], ...]  # (H, W) pixels; every picture fits one of them
  short_side: int | None  # of the picture, pixels; None: the largest picture that fits the canvas
  max_boxes: int  # G
  max_long: int = 1333  # upper limit of the picture's long side, pixels
  flip_probability: float = 0.5  # of mirroring, in training only
  keyframe_only: bool = False  # repeat the keyframe T times, as if given a still image
  reduced_decoding: bool = False  # decode frames of at least twice the picture's size smaller


class Item(NamedTuple):
  """One row of a batch."""

  number: int  # of the example within its split, or FILLER
  example: Example | None  # None for padding, and for an unreadable example
  flip: bool = False

  def place(self) -> int:
    """The value of `Batch.index` for a row without a clip."""
    return FILLER if self.number == FILLER else -2 - self.number


@dataclass(frozen=True)
class MakeBatch:
  """Items -> Batch; a callable that can be pickled for worker processes."""

  settings: ClipSettings
  canvas: tuple[int, int]  # (H, W), one of the settings' canvases
  num_classes: int  # A
  skip_unreadable: bool = False  # mask unreadable clips, see data/unreadable.py
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
  """Resets a row to what `empty_batch` gives, whatever was written there."""
  batch.clips[place] = 0
  batch.sizes[place] = batch.clips.shape[2:4]
  batch.index[place] = item.place()


def _forget(drawn: Drawn, clip: np.ndarray) -> None:
  """Discards the entries whose frames lie in a clip's memory."""
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
  """Makes a batch of padding around the clips (B, T, H, W, 3): no boxes, example_mask False."""
  batch_size, canvas = len(clips), clips.shape[2:4]
  shape = (batch_size, max_boxes)
  # Padding has the size of the canvas, not 0 x 0: no division by zero, no mask over every token.
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
  """Writes one example into its row of the batch."""
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
  """Fills `out` (T, H, W, 3) with a clip; each frame is decoded once per batch.

  Clips of neighbouring keyframes, which are consecutive in an evaluation, share most frames.
  """
  numbers = clip_sampling.clip_frame_numbers(
    example.keyframe, example.num_frames, settings.clip_frames, settings.frame_stride
  )
  if settings.keyframe_only:
    numbers = np.full_like(numbers, example.keyframe)
  positions = clip_sampling.stored_positions(numbers, example.frame_numbers, example.video)
  size, picture = (example.height, example.width), (resize.height, resize.width)
  # A frame that is neither resized nor mirrored, and is as wide as the canvas, is decoded into it.
  in_place = size == picture and not flip and resize.width == out.shape[2]
  # All other frames share one buffer: fresh memory for each would cost more.
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
