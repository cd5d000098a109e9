"""Videos that were taken apart: a folder of pictures, numbered from 1.

`NAME/NAME_000001.jpg` (AVA), `class/video/00001.png` (JHMDB): the last digits of a file's name are
its number, and frame i is file i + 1. JPEG files are stored as they are unless they are to be made
smaller.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from evad_jax.data.jpeg import check_whole, encode_frame, frame_size
from evad_jax.data.video import Report, nobody
from evad_jax.errors import InputError

_JPEG = ('.jpg', '.jpeg')
_NUMBERED = re.compile(r'.*?(\d+)\.(jpe?g|png)', re.IGNORECASE)


class ImageFile(NamedTuple):
  """A frame that lies in a file of its own."""

  path: Path

  def jpeg(self, short_side: int | None, quality: int) -> bytes:
    """As a JPEG file; raises InputError where the file is missing, cut or no picture."""
    try:
      data = self.path.read_bytes()
    except OSError as error:
      raise InputError(f'{self.path}: cannot be read ({error.strerror})') from error
    if self.path.suffix.lower() not in _JPEG:
      return encode_frame(_decode_other(data, self.path), short_side, quality)
    check_whole(data, str(self.path))
    if short_side is None or min(frame_size(data)) <= short_side:
      return data
    return encode_frame(simplejpeg.decode_jpeg(data), short_side, quality)


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
    InputError: two files have one number, or a file has number 0.
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
  return numbered


def _decode_other(data: bytes, path: Path) -> np.ndarray:
  picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
  if picture is None:
    raise InputError(f'{path}: is not a whole picture; extract it again')
  return picture
