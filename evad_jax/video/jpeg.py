"""Frames as JPEG files."""

import cv2
import numpy as np
import simplejpeg


def encode_frame(frame: np.ndarray, short_side: int | None, quality: int) -> bytes:
  """(H, W, 3) uint8 RGB -> JPEG; first downscaled if its short side is larger than allowed."""
  height, width = frame.shape[:2]
  if short_side is not None and min(height, width) > short_side:
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
  # 4:2:0, as the videos themselves are stored.
  return simplejpeg.encode_jpeg(
    np.ascontiguousarray(frame), quality, colorspace='RGB', colorsubsampling='420'
  )


def frame_size(data: bytes) -> tuple[int, int]:
  """Height and width of a JPEG file in pixels; ValueError if it is not one."""
  height, width, _, _ = simplejpeg.decode_jpeg_header(data)
  return height, width


def check(data: bytes) -> None:
  """Raises ValueError unless the bytes are a JPEG file that decodes without an error.

  Only damage that the codec does not notice passes. The complete picture is decoded, at an eighth
  of its size and without colours, which finds the same faults.
  """
  simplejpeg.decode_jpeg(data, 'GRAY', min_height=1, min_width=1, min_factor=8)


def plain(data: bytes) -> bool:
  """Whether a JPEG file has colours that every decoder shows alike, not those of print (CMYK)."""
  return simplejpeg.decode_jpeg_header(data)[2] in ('YCbCr', 'Gray', 'RGB')
