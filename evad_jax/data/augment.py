"""From JPEG bytes and normalised boxes to a uint8 picture on a canvas and boxes in its pixels.

The arithmetic is that of the published EVAD system, in its order: boxes are clipped to the frame,
frame and boxes mirrored, both resized (OpenCV's INTER_LINEAR on uint8, no anti-aliasing; boxes by
the unrounded scale), boxes clipped to the picture. Normalising the pixels is left to the device.
"""

from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from evad_jax import boxes as box_ops
from evad_jax.errors import InputError

# The pipeline's threads each work on their own clip: OpenCV's own would only contend with them.
cv2.setNumThreads(1)


class Resize(NamedTuple):
  """How a frame becomes a picture."""

  scale: float  # unrounded: boxes are multiplied by it
  height: int  # of the picture, pixels
  width: int


def decode_frame(
  jpeg: bytes,
  *,
  video: str,
  frame: int,
  size: tuple[int, int],
  least: tuple[int, int] | None = None,
  out: np.ndarray | None = None,
) -> np.ndarray:
  """One JPEG file -> (H, W, 3) uint8 RGB.

  Args:
    jpeg: the file.
    video: named in messages.
    frame: number of the frame, named in messages.
    size: (H, W) that the file must have.
    least: decode at a reduced size, at most a half and not below this (height, width), where the
      codec has such a size. It is faster for large frames, but gives other pixels than decoding
      whole and resizing.
    out: (H, W, 3) uint8, contiguous; decode into it instead of into new memory.

  Raises:
    InputError: the file is cut, corrupt, or of another size; names the video and the frame.
  """
  try:
    found = simplejpeg.decode_jpeg_header(jpeg)[:2]
    if found == size:
      height, width = least or (0, 0)
      factor = 2 if least else 1
      return simplejpeg.decode_jpeg(
        jpeg, 'RGB', min_height=height, min_width=width, min_factor=factor, buffer=out
      )
  except ValueError as error:
    raise InputError(
      f'video {video!r}: the JPEG of frame {frame} is corrupt ({error}); '
      'extract the frames of this video and prepare the data again'
    ) from error
  raise InputError(
    f'video {video!r}: frame {frame} is {found[0]} x {found[1]} where its record says '
    f'{size[0]} x {size[1]}; prepare the data again'
  )


def plan_resize(
  height: int,
  width: int,
  *,
  canvas: tuple[int, int],
  short_side: int | None,
  max_long: int,
) -> Resize:
  """Scale and picture size of a frame of height x width pixels.

  Args:
    height: of the frame, pixels.
    width: of the frame, pixels.
    canvas: (H, W) pixels; looked at only when short_side is None.
    short_side: of the picture, pixels; None fits the picture inside the canvas instead, touching it
      on at least one side.
    max_long: where the long side would exceed this, it is made this instead; unused when
      short_side is None.

  Returns:
    The resize. With a short_side the picture can be larger than the canvas; `aspect_buckets`
    chooses one that holds it.
  """
  if short_side is None:
    scale = min(canvas[0] / height, canvas[1] / width)
  else:
    scale = short_side / min(height, width)
    if max(height, width) * scale > max_long:
      scale = max_long / max(height, width)
  return Resize(scale, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))


def draw_frame(frame: np.ndarray, resize: Resize, flip: bool, out: np.ndarray) -> None:
  """Mirrors and resizes a frame into the top left corner of a canvas, in place.

  Args:
    frame: (h, w, 3) uint8.
    resize: from `plan_resize` of this frame's size.
    flip: mirror left and right.
    out: (H, W, 3) uint8; only the picture is written.
  """
  picture = out[: resize.height, : resize.width]
  same = frame.shape == picture.shape
  if flip:
    # OpenCV writes through strided views: a picture's pixels are contiguous, its rows need not be.
    frame = cv2.flip(frame, 1, dst=picture if same else None)
  if not same:
    cv2.resize(frame, (resize.width, resize.height), dst=picture, interpolation=cv2.INTER_LINEAR)
  elif not flip:
    picture[...] = frame


def transform_boxes(
  boxes: np.ndarray, height: int, width: int, resize: Resize, flip: bool
) -> np.ndarray:
  """Normalised boxes of a frame -> boxes in pixels of its picture.

  Args:
    boxes: (M, 4) xyxy divided by the frame's width and height.
    height: of the frame, pixels.
    width: of the frame, pixels.
    resize: from `plan_resize` of this frame's size.
    flip: x becomes width - 1 - x.

  Returns:
    (M, 4) float64 xyxy, x in [0, picture width - 1], y in [0, picture height - 1].
  """
  pixels = box_ops.to_pixels(boxes.astype(np.float64), (height, width))
  pixels = box_ops.clip(pixels, height, width)
  if flip:
    pixels = box_ops.flip_horizontally(pixels, width)
  return box_ops.clip(pixels * resize.scale, resize.height, resize.width)
