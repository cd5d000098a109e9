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


def decode_frame(jpeg: bytes, *, video: str, frame: int) -> np.ndarray:
  """One JPEG file -> (H, W, 3) uint8 RGB.

  Raises:
    InputError: the file is cut or corrupt; names the video and the frame.
  """
  try:
    return simplejpeg.decode_jpeg(jpeg, 'RGB')
  except ValueError as error:
    raise InputError(
      f'video {video!r}: the JPEG of frame {frame} is corrupt ({error}); '
      'extract the frames of this video and prepare the data again'
    ) from error


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
    canvas: (H, W) that must hold the picture.
    short_side: of the picture, pixels; None fits the picture inside the canvas instead, touching it
      on at least one side.
    max_long: where the long side would exceed this, it is made this instead; unused when
      short_side is None.

  Raises:
    InputError: the picture is larger than the canvas.
  """
  if short_side is None:
    scale = min(canvas[0] / height, canvas[1] / width)
  else:
    scale = short_side / min(height, width)
    if max(height, width) * scale > max_long:
      scale = max_long / max(height, width)
  resize = Resize(scale, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
  if resize.height > canvas[0] or resize.width > canvas[1]:
    raise InputError(
      f'a frame of {height} x {width} (height x width) becomes a picture of {resize.height} x '
      f'{resize.width}, larger than the canvas of {canvas[0]} x {canvas[1]}; '
      'enlarge config.clip.canvas or make config.clip.short_side smaller'
    )
  return resize


def draw_frame(frame: np.ndarray, resize: Resize, flip: bool, out: np.ndarray) -> None:
  """Mirrors and resizes a frame into the top left corner of a canvas, in place.

  Args:
    frame: (h, w, 3) uint8.
    resize: from `plan_resize` of this frame's size.
    flip: mirror left and right.
    out: (H, W, 3) uint8; only the picture is written.
  """
  picture = out[: resize.height, : resize.width]
  if flip:
    frame = cv2.flip(frame, 1)
  if frame.shape == picture.shape:
    picture[...] = frame
  else:
    # OpenCV writes through the strided view; picture's pixels are contiguous, its rows need not be.
    cv2.resize(frame, (resize.width, resize.height), dst=picture, interpolation=cv2.INTER_LINEAR)


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
  pixels = boxes.astype(np.float64) * np.array([width, height, width, height], np.float64)
  pixels = box_ops.clip(pixels, height, width)
  if flip:
    pixels = box_ops.flip_horizontally(pixels, width)
  return box_ops.clip(pixels * resize.scale, resize.height, resize.width)
