"""Finds and opens videos, and reads their frames in order, with PyAV.

The frames of a video are the pictures that a player would show (`shown.py`), counted; or, at a
given rate, what is on the screen at even times from the first picture on, as FFmpeg's filter `fps`
computes it.

Containers lie: some headers say 0 frames, some metadata are not UTF-8. So frames are counted by
decoding, and undecodable metadata are replaced.
"""

import contextlib
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from evad_jax.errors import InputError
from evad_jax.formats.video_lists import VIDEO_SUFFIXES
from evad_jax.video import resample, shown
from evad_jax.video.shown import Lost, Picture, Report, Shown, nobody

# Header texts that are not UTF-8 keep their bytes as surrogates; PyAV 19 does this by default.
_OLD = int(av.__version__.split('.')[0]) < 19
_KEEP_BYTES = {'metadata_errors': 'surrogateescape'} if _OLD else {}
UNEVEN = 1.5  # frames by which a picture may deviate from an even pace


class VideoFile(NamedTuple):
  """A video, and how its frames are counted."""

  path: Path
  rate: Fraction | None = None  # frames per second; None: every picture is a frame
  # Second of frame 0 if frames count from the file's start, not from its first picture; needs a
  # rate. Earlier pictures are not shown; the first later one stands in for missing ones.
  start: int | None = None
  seconds: int | None = None  # length to read; None: all; needs a rate

  def frames(self, report: Report = nobody) -> Iterator[Picture | Lost]:
    """Decodes the frames in display order; a picture that stays on screen is yielded again.

    Args:
      report: called with 'broken metadata', 'header without frame count', 'variable frame rate',
        and, at the end, with the notes of `shown.Reader`.

    Raises:
      InputError: the file cannot be opened, has no video stream, or yields no picture at all.
    """
    with decoding(self.path), open_container(self.path, report) as container:
      stream = shown.choose_stream(container, self.path)
      if not (stream.frames or stream.duration or container.duration):
        report('header without frame count', 'frames are counted by decoding')
      reader = shown.Reader(container, stream, self.start or 0)
      until = None if self.seconds is None else (self.start or 0) + self.seconds
      places = _paced(reader, until, report, 'counted' if self.rate is None else 'taken by time')
      if self.rate is None:
        yield from (place.picture for place in places)
      else:
        frames = resample.at_rate(places, reader.tick, self.rate, self.start)
        yield from itertools.islice(frames, resample.slots(self.seconds, self.rate))
      for kind, detail in reader.notes():
        report(kind, detail)

  def fps(self) -> float:
    """Frames per second."""
    return float(self.rate or frames_per_second(self.path))

  def identity(self) -> list:
    """What identifies the file without reading it, and how it is read."""
    return [self.path.name, self.path.stat().st_size, str(self.rate), self.start, self.seconds]


@contextlib.contextmanager
def decoding(name: object) -> Iterator[None]:
  """Turns decoding errors raised inside into an InputError that names the video."""
  try:
    yield
  except shown.VideoError as error:
    raise InputError(f'{name}: {error}') from error
  except (av.FFmpegError, OSError) as error:
    raise InputError(
      f'{name}: cannot be decoded ({error}); replace the file or leave it out'
    ) from error


def find_videos(directory: str | os.PathLike) -> dict[str, Path]:
  """All videos below a directory by file name without suffix; for duplicates, the preferred suffix.

  Raises:
    InputError: no such directory, or no video in it.
  """
  directory = Path(directory)
  if not directory.is_dir():
    raise InputError(f'{directory}: no such directory; give the directory that holds the videos')
  found = videos_below(directory)
  if not found:
    raise InputError(f'{directory}: holds no video ({", ".join(VIDEO_SUFFIXES)}); check the path')
  return found


def videos_below(directory: Path) -> dict[str, Path]:
  """As `find_videos`, but finding none is no error."""
  found = [path for path in directory.rglob('*') if path.suffix.lower() in VIDEO_SUFFIXES]
  found.sort(key=lambda path: (VIDEO_SUFFIXES.index(path.suffix.lower()), path))
  return {stem_of(path.stem): path for path in reversed(found)}


def stem_of(name: str) -> str:
  """The name that a video is found by: the last part of its path, accents in one form."""
  return unicodedata.normalize('NFC', name.rpartition('/')[2])


def frames_per_second(path: str | os.PathLike) -> Fraction:
  """The frame rate that the container states or implies, or 0 if it does neither."""
  return _read_header(
    path, lambda _, stream: stream.guessed_rate or stream.average_rate
  ) or Fraction(0)


def duration(path: str | os.PathLike) -> float | None:
  """Seconds that the container states; None if it does not."""

  def seconds(container, stream) -> float | None:
    if container.duration:
      return container.duration / av.time_base
    return float(stream.duration * stream.time_base) if stream.duration else None

  return _read_header(path, seconds)


def _read_header(path: str | os.PathLike, function: Callable):
  try:
    with open_container(Path(path)) as container:
      return function(container, shown.choose_stream(container, path))
  except (av.FFmpegError, OSError) as error:
    raise InputError(
      f'{path}: cannot be opened ({error}); replace the file or leave it out'
    ) from error


def open_container(
  source: str | os.PathLike | BinaryIO, report: Report = nobody, **options: Any
) -> av.container.InputContainer:
  """Opens a file, an address or a readable object; options are those of `av.open`.

  A path is a file whatever its name (see `local_file`); FFmpeg interprets a str.
  """
  source = local_file(source) if isinstance(source, os.PathLike) else source
  container = av.open(source, **_KEEP_BYTES, **options)
  texts = [container.metadata, *(stream.metadata for stream in container.streams)]
  try:
    ''.join(word for some in texts for pair in some.items() for word in pair).encode()
  except UnicodeEncodeError:  # surrogates, which stand for undecodable bytes
    report('broken metadata', 'some texts of its header are not UTF-8; they are not needed')
  return container


def local_file(path: str | os.PathLike) -> str:
  """A path in the form that FFmpeg takes for a file: otherwise a colon would end a protocol."""
  return f'file:{os.fspath(path)}'


def _paced(reader: shown.Reader, until: int | None, report: Report, taken: str) -> Iterator[Shown]:
  """Passes on what is shown before second `until`; reports an uneven pace."""
  times, last = [], None if until is None else until / reader.tick
  for place in reader:
    if last is not None and place.ticks >= last:
      break
    if report is not nobody:  # only then, since the list grows with the video
      times.append(place.ticks)
    yield place
  uneven = _frames_off_pace(times)
  if uneven > UNEVEN:
    detail = f'pictures are up to {uneven:.1f} frames off an even pace; they are {taken}'
    report('variable frame rate', detail)


def _frames_off_pace(times: list[int]) -> float:
  """The largest deviation of a picture from an even pace, in frames."""
  times = np.array(times, np.float64)
  if len(times) < 3 or times[-1] <= times[0]:
    return 0.0
  rate = (len(times) - 1) / (times[-1] - times[0])
  return float(np.abs((times - times[0]) * rate - np.arange(len(times))).max())
