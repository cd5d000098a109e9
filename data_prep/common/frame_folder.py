"""Videos as extracted frames: a folder of pictures, numbered from 1.

`NAME/NAME_000001.jpg` (AVA), `class/video/00001.png` (JHMDB): the last digits of a file's name are
its number, and frame i is file i + 1. JPEG files are stored unchanged unless they must be shrunk or
rotated according to EXIF.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from evad_jax.errors import InputError
from evad_jax.video import jpeg, orientation
from evad_jax.video.jpeg import frame_size
from evad_jax.video.orientation import UPRIGHT
from evad_jax.video.shown import Report, nobody

_JPEG_START = b'\xff\xd8\xff'
MOST_APART = 100  # numbers per file in a thinned-out folder; above, they are not frame numbers
_NUMBERED = re.compile(r'.*?(\d+)\.(jpe?g|png)', re.IGNORECASE)


class ImageFile(NamedTuple):
  """A frame in a file of its own."""

  path: Path

  @property
  def size(self) -> tuple[int, int]:
    """Height and width, upright; InputError if the file is not a picture."""
    return frame_size(self.jpeg(None, 95))

  def jpeg(self, short_side: int | None, quality: int) -> bytes:
    """Returns an upright JPEG file; InputError if the file is missing, damaged or no picture.

    A file that is upright and small enough is returned unchanged, but decoded first: damage would
    otherwise surface in every epoch.
    """
    try:
      data = self.path.read_bytes()
    except OSError as error:
      raise InputError(f'{self.path}: cannot be read ({error.strerror})') from error
    upright = orientation.of_exif(data)
    try:
      if not data.startswith(_JPEG_START) or not jpeg.plain(data):
        picture = _decode_other(data)
      elif upright == UPRIGHT and (short_side is None or min(frame_size(data)) <= short_side):
        jpeg.check(data)
        return data
      else:
        picture = simplejpeg.decode_jpeg(data)
    except ValueError as error:
      raise InputError(
        f'{self.path}: is not a complete picture ({error}); extract it again'
      ) from error
    return jpeg.encode_frame(orientation.turn(picture, upright), short_side, quality)


class FrameFolder(NamedTuple):
  """The folder of a video's frames."""

  path: Path
  rate: float  # frames per second, 0 if unknown
  digest: str  # of the names and sizes of its files

  def frames(self, report: Report = nobody) -> Iterator[ImageFile]:
    """Yields frames 0, 1, ... up to the highest number; those without a file fail when read."""
    numbered = _numbered_files(self.path)
    suffix = next(iter(numbered.values())).suffix if numbered else ''
    for number in range(1, max(numbered, default=0) + 1):
      yield ImageFile(numbered.get(number, self.path / f'{number}{suffix}'))

  def fps(self) -> float:
    """Frames per second, 0 if unknown."""
    return self.rate

  def identity(self) -> list:
    """What identifies the folder without reading its files."""
    return [self.path.name, self.digest, self.rate]


def find_folder(path: Path, rate: float = 0.0) -> FrameFolder | None:
  """Returns the folder if it exists and holds numbered pictures, else None.

  Raises:
    InputError: two files have the same number, or a file has number 0 or one far above their count.
  """
  if not path.is_dir():
    return None
  sizes = [(file.name, file.stat().st_size) for _, file in sorted(_numbered_files(path).items())]
  if not sizes:
    return None
  return FrameFolder(path, rate, hashlib.sha256(repr(sizes).encode()).hexdigest())


def _numbered_files(directory: Path) -> dict[int, Path]:
  numbered = {}
  with os.scandir(directory) as entries:
    for entry in entries:
      match = _NUMBERED.fullmatch(entry.name)
      if match is None or entry.name.startswith('.'):
        continue
      number = int(match[1])
      if number == 0 or number in numbered:
        raise InputError(
          f'{directory / entry.name}: frames must be numbered from 1, each once; rename the '
          'file or remove it'
        )
      numbered[number] = directory / entry.name
  last = max(numbered, default=0)
  if last > MOST_APART * (len(numbered) + MOST_APART):
    raise InputError(
      f'{numbered[last]}: is no frame number among {len(numbered)} files; frames are numbered from '
      '1, so rename the file (perhaps a time stamp) or remove it'
    )
  return numbered


def _decode_other(data: bytes) -> np.ndarray:
  """(H, W, 3) uint8 RGB of a PNG file, or of a JPEG file in print colours (CMYK), as stored."""
  try:
    with Image.open(io.BytesIO(data)) as file:
      file.verify()  # OpenCV decodes damaged PNG files silently
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise ValueError(str(error)) from error
  flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
  picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  if picture is None:
    raise ValueError('it does not decode')
  return picture
