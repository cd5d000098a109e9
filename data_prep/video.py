"""Finds and decodes videos, frame after frame, with PyAV.

Containers lie: some headers say 0 frames, some metadata are not UTF-8. Frames are therefore counted
by decoding them, and undecodable metadata are replaced.
"""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from evad_jax.errors import InputError

SUFFIXES = ('.avi', '.mp4', '.mkv', '.webm', '.mov')  # in the order of preference


def find_videos(directory: str | os.PathLike) -> dict[str, Path]:
  """All videos below a directory, by file name without suffix; of two alike, the preferred suffix.

  Raises:
    InputError: no such directory, or no video in it.
  """
  directory = Path(directory)
  if not directory.is_dir():
    raise InputError(f'{directory}: no such directory; give the directory that holds the videos')
  found = [path for path in directory.rglob('*') if path.suffix.lower() in SUFFIXES]
  found.sort(key=lambda path: (SUFFIXES.index(path.suffix.lower()), path))
  if not found:
    raise InputError(f'{directory}: holds no video ({", ".join(SUFFIXES)}); check the path')
  return {path.stem: path for path in reversed(found)}


def decode(path: str | os.PathLike) -> Iterator[np.ndarray]:
  """Yields (H, W, 3) uint8 RGB frames in the order of display; holds one at a time.

  Raises:
    InputError: the file cannot be opened, has no video stream, or breaks off with an error.
  """
  try:
    with av.open(os.fspath(path), metadata_errors='replace') as container:
      if not container.streams.video:
        raise InputError(f'{path}: holds no video stream; replace the file')
      for frame in container.decode(video=0):
        yield frame.to_ndarray(format='rgb24')
  except (av.FFmpegError, OSError) as error:
    raise InputError(
      f'{path}: cannot be decoded ({error}); replace the file or leave it out'
    ) from error


def frames_per_second(path: str | os.PathLike) -> float:
  """The average frame rate that the container states, or 0 where it states none."""
  try:
    with av.open(os.fspath(path), metadata_errors='replace') as container:
      rates = [stream.average_rate for stream in container.streams.video]
  except (av.FFmpegError, OSError) as error:
    raise InputError(
      f'{path}: cannot be opened ({error}); replace the file or leave it out'
    ) from error
  return float((rates and rates[0]) or Fraction(0))
