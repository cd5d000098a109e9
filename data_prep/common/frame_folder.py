"""Videos that were taken apart: a folder of pictures, numbered from 1.

`NAME/NAME_000001.jpg` (AVA), `class/video/00001.png` (JHMDB): the last digits of a file's name are
its number, and frame i is file i + 1. JPEG files are stored as they are unless they are to be made
smaller, or lie on their side and say so by EXIF.
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
MOST_APART = 100  # numbers a file, of folders that were thinned out; more are other numbers
_NUMBERED = re.compile(r'.*?(\d+)\.(jpe?g|png)', re.IGNORECASE)


class ImageFile(NamedTuple):
  """A frame that lies in a file of its own."""

  path: Path

  @property
  def size(self) -> tuple[int, int]:
    """Height and width, upright; InputError where the file is no picture."""
    return frame_size(self.jpeg(None, 95))

  def jpeg(self, short_side: int | None, quality: int) -> bytes:
    """As an upright JPEG file; InputError where the file is missing, damaged or no picture.

    One that is so already, and small enough, is passed on as it is, once it has been decoded: the
    damage would come up again in every epoch.
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
        f'{self.path}: is not a whole picture ({error}); extract it again'
      ) from error
    return jpeg.encode_frame(orientation.turn(picture, upright), short_side, quality)


class FrameFolder(NamedTuple):
  """The folder of a video's frames."""

  path: Path
  rate: float  # frames a second, 0 where nobody knows
  digest: str  # of the names and sizes of its files

  def frames(self, report: Report = nobody) -> Iterator[ImageFile]:
    """Frames 0, 1, ... up to the highest number; those without a file fail when asked for."""
    numbered = _numbered_files(self.path)
    suffix = next(iter(numbered.values())).suffix if numbered else ''
    for number in range(1, max(numbered, default=0) + 1):
      yield ImageFile(numbered.get(number, self.path / f'{number}{suffix}'))

  def fps(self) -> float:
    """Frames a second, 0 where nobody knows."""
    return self.rate

  def identity(self) -> list:
    """What tells the folder from another one, without reading its files."""
    return [self.path.name, self.digest, self.rate]


def find_folder(path: Path, rate: float = 0.0) -> FrameFolder | None:
  """The folder, if it is there and holds numbered pictures.

  Raises:
    InputError: two files have one number, a file has number 0, or one far above their count.
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
          'file or take it away'
        )
      numbered[number] = directory / entry.name
  last = max(numbered, default=0)
  if last > MOST_APART * (len(numbered) + MOST_APART):
    raise InputError(
      f'{numbered[last]}: is no frame number among {len(numbered)} files; frames are numbered from '
      '1, so rename the file (a time stamp, perhaps) or take it away'
    )
  return numbered


def _decode_other(data: bytes) -> np.ndarray:
  """(H, W, 3) uint8 RGB of a PNG file, or a JPEG file in the colours of print, as it is stored."""
  try:
    with Image.open(io.BytesIO(data)) as file:
      file.verify()  # OpenCV shows damaged PNG files without a word
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise ValueError(str(error)) from error
  flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
  picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  if picture is None:
    raise ValueError('it does not decode')
  return picture
