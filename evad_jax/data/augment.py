"""JPEG bytes and normalised boxes -> a uint8 picture on a canvas, and boxes in its pixels.

The arithmetic and its order are those of the published EVAD system: clip the boxes to the frame,
mirror frame and boxes, resize both (OpenCV's INTER_LINEAR on uint8, no anti-aliasing; boxes by the
unrounded scale), clip the boxes to the picture. Pixels are normalised on the device.
"""

from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from evad_jax import boxes as box_ops
from evad_jax.errors import InputError

# Each thread of the pipeline works on its own clip: OpenCV's own threads would only compete.
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
    video: for messages.
    frame: number of the frame, for messages.
    size: (H, W) that the file must have.
    least: decode at a reduced size, at most half and not below this (height, width), where the
      codec has such a size. Faster for large frames, but the pixels differ from those of full
      decoding and resizing.
    out: (H, W, 3) uint8, contiguous; decode into it instead of new memory.

  Raises:
    InputError: the file is truncated, corrupt, or of another size; names the video and the frame.
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
  """Computes scale and picture size of a frame of height x width pixels.

  Args:
    height: of the frame, pixels.
    width: of the frame, pixels.
    canvas: (H, W) pixels; used only when short_side is None.
    short_side: of the picture, pixels; None: the largest picture that fits inside the canvas.
    max_long: upper limit of the long side, pixels; unused when short_side is None.

  Returns:
    The resize. With a short_side, the picture can be larger than the canvas; `aspect_buckets`
    chooses a canvas that holds it.
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
    # OpenCV can write through strided views: only the pixels of a row have to be contiguous.
    frame = cv2.flip(frame, 1, dst=picture if same else None)
  if not same:
    cv2.resize(frame, (resize.width, resize.height), dst=picture, interpolation=cv2.INTER_LINEAR)
  elif not flip:
    picture[...] = frame


def transform_boxes(
  boxes: np.ndarray, height: int, width: int, resize: Resize, flip: bool
) -> np.ndarray:
  """Normalised boxes of a frame -> boxes in pixels of the picture.

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
