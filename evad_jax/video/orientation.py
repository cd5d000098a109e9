"""Rotates, mirrors and stretches a stored picture so that it looks as it was taken.

Phones store pictures as the sensor reads them, with a note on how the phone was held: a display
matrix in videos, the EXIF tag "orientation" in JPEG and PNG files. Pixels of DVD and broadcast
material are not square.
"""

import math
import struct
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

ALMOST = 1.0  # degrees from a right angle that still count as one, as in FFmpeg
MOST_STRETCHED = 8  # width to height of a pixel, or the inverse; more is a broken header
ORIENTATION = 0x0112  # the EXIF tag
_PNG = b'\x89PNG\r\n\x1a\n'
_HEAD = 1 << 17  # bytes of a JPEG file in which its EXIF block begins


class Orientation(NamedTuple):
  """What to do with a stored picture, in this order."""

  transpose: bool = False  # rows become columns
  mirror: bool = False  # swaps left and right
  flip: bool = False  # swaps top and bottom
  degrees: float = 0.0  # clockwise, about the centre; empty corners are black


UPRIGHT = Orientation()
EXIF = {  # value of the tag -> what the picture needs
  2: Orientation(mirror=True),
  3: Orientation(mirror=True, flip=True),
  4: Orientation(flip=True),
  5: Orientation(transpose=True),
  6: Orientation(transpose=True, mirror=True),
  7: Orientation(transpose=True, mirror=True, flip=True),
  8: Orientation(transpose=True, flip=True),
}


def of_matrix(matrix: bytes) -> Orientation:
  """From a display matrix: nine int32, of which only x' = a x + c y, y' = b x + d y are used."""
  a, b, _, c, d = struct.unpack('=9i', matrix)[:5]
  across, down = math.hypot(a, c), math.hypot(b, d)
  if a * d == b * c:
    return UPRIGHT  # singular: it maps pictures to a line
  degrees = math.degrees(math.atan2(b / down, a / across))
  if not _is_right(degrees):
    return Orientation(degrees=degrees)
  if 45 < abs(degrees) < 135:
    return Orientation(transpose=True, mirror=c < 0, flip=b < 0)
  return Orientation(mirror=a < 0, flip=d < 0)


def of_degrees(clockwise: float) -> Orientation:
  """From a rotation without mirroring."""
  if not _is_right(clockwise):
    return Orientation(degrees=clockwise)
  return (UPRIGHT, EXIF[6], EXIF[3], EXIF[8])[round(clockwise / 90) % 4]


def _is_right(degrees: float) -> bool:
  return abs((degrees + 45) % 90 - 45) <= ALMOST


def of_exif(data: bytes) -> Orientation:
  """From a JPEG or PNG file; upright if it does not say."""
  if data.startswith(_PNG):
    block = data.find(b'eXIf') + 4
  else:
    block = data.find(b'Exif\0\0', 0, _HEAD) + 6
  if block < 8:  # not found
    return UPRIGHT
  order = {b'II*\0': '<', b'MM\0*': '>'}.get(data[block : block + 4])
  if order is None:
    return UPRIGHT
  try:
    directory = block + struct.unpack_from(f'{order}I', data, block + 4)[0]
    for entry in range(struct.unpack_from(f'{order}H', data, directory)[0]):
      tag, _, _, value = struct.unpack_from(f'{order}HHIH', data, directory + 2 + 12 * entry)
      if tag == ORIENTATION:
        return EXIF.get(value, UPRIGHT)
  except struct.error:  # truncated
    pass
  return UPRIGHT


def turned_size(size: tuple[int, int], orientation: Orientation) -> tuple[int, int]:
  """Height and width after `turn`."""
  return size[::-1] if orientation.transpose else size


def turn(picture: np.ndarray, orientation: Orientation) -> np.ndarray:
  """(H, W, 3) uint8 as stored -> as seen, (W, H, 3) if transposed."""
  if orientation == UPRIGHT:
    return picture
  if orientation.degrees:
    height, width = picture.shape[:2]
    middle = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(middle, -orientation.degrees, 1.0)
    return cv2.warpAffine(picture, matrix, (width, height))
  if orientation.transpose:
    picture = picture.swapaxes(0, 1)
  return np.ascontiguousarray(
    picture[:: -1 if orientation.flip else 1, :: -1 if orientation.mirror else 1]
  )


def square_size(size: tuple[int, int], pixel: Fraction | None) -> tuple[int, int]:
  """Height and width with square pixels: the side with the longer pixels grows.

  Args:
    size: height and width as stored, pixels.
    pixel: width over height of a pixel; None or 0 if unknown.
  """
  height, width = size
  if not pixel or not Fraction(1, MOST_STRETCHED) <= pixel <= MOST_STRETCHED:
    return size
  return (height, round(width * pixel)) if pixel >= 1 else (round(height / pixel), width)


def with_square_pixels(picture: np.ndarray, pixel: Fraction | None) -> np.ndarray:
  """(H, W, 3) uint8 as stored -> the same with square pixels."""
  height, width = square_size(picture.shape[:2], pixel)
  if (height, width) == picture.shape[:2]:
    return picture
  return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
