"""Frames as JPEG files."""

import cv2
import numpy as np
import simplejpeg

from evad_jax.errors import InputError

END_OF_IMAGE = b'\xff\xd9'


def encode_frame(frame: np.ndarray, short_side: int | None, quality: int) -> bytes:
  """(H, W, 3) uint8 RGB -> JPEG; made smaller first if its short side is larger than allowed."""
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
  """Height and width of a JPEG file in pixels; ValueError where it is none."""
  height, width, _, _ = simplejpeg.decode_jpeg_header(data)
  return height, width


def check_whole(data: bytes, name: str) -> None:
  """Raises InputError unless the bytes are a JPEG file that does not break off."""
  try:
    frame_size(data)
    if not data.rstrip(b'\0').endswith(END_OF_IMAGE):  # a cut file, or something is appended
      simplejpeg.decode_jpeg(data, strict=True)
  except ValueError as error:
    raise InputError(f'{name}: is not a whole JPEG file ({error}); extract it again') from error
