"""Sources of video: a file, a pipe, a network address, a camera.

A source is opened once and read once, from its first picture to its last, since most cannot be read
again. Files can wait for their reader; cameras and live addresses cannot.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av

from evad_jax import printable
from evad_jax.errors import InputError
from evad_jax.video import decode, resample, shown
from evad_jax.video.shown import Lost, Picture

LIVE_ADDRESSES = ('rtsp', 'rtsps', 'rtmp', 'rtmps', 'rtp', 'udp', 'srt', 'tcp')
LONGEST_SILENCE = 30.0  # seconds that an address may take to answer or to continue
# FFmpeg's input format and device name of a camera, by operating system; {} is its number.
CAMERAS = {'linux': ('v4l2', '/dev/video{}'), 'darwin': ('avfoundation', '{}')}


class TimedPicture(NamedTuple):
  """A frame and when it is shown."""

  seconds: float  # after the first; rising
  picture: Picture
  lost: bool = False  # whether the file lacks this frame and the one before it stays


class Source(NamedTuple):
  """What to open, and how."""

  name: str  # for messages and results: printable, without secrets
  target: str | Path | BinaryIO
  live: bool  # whether it continues without waiting for its reader
  options: dict[str, Any]  # for av.open


class OpenSource(NamedTuple):
  """A source that is being read."""

  name: str
  fps: float  # frames per second as stated, or DEFAULT_RATE
  num_frames: int | None  # an estimate from the header, for progress bars; None if unknown
  pictures: Iterator[TimedPicture]
  notes: Callable[[], list[str]] = list  # what has been odd so far


def find(text: str, input_format: str | None = None) -> Source:
  """Interprets a file name, '-' (standard input), 'rtsp://...', or 'webcam:0'.

  input_format: FFmpeg's name of the format or the device, if it cannot be guessed.

  Raises InputError if there is no such file, or if no camera can be opened on this system.
  """
  options = {'format': input_format} if input_format else {}
  if text == '-':
    return Source('standard input', sys.stdin.buffer, False, options)
  scheme, colon, rest = text.partition(':')
  if text.startswith('/dev/video'):
    return Source(text, text, True, {'format': 'v4l2'} | options)
  if os.path.exists(text) and not os.path.isdir(text):  # even if its name looks like an address
    return Source(printable.name_of(text), Path(text), False, options)
  if scheme == 'webcam' and colon:
    return _camera(text, rest)
  if '://' in text:
    live = scheme.lower() in LIVE_ADDRESSES
    return Source(printable.address(text), text, live, options | {'timeout': LONGEST_SILENCE})
  if input_format is None:
    what = 'is a directory' if Path(text).is_dir() else 'there is no such file'
    raise InputError(
      f'{os.path.abspath(text)}: {what}; give a video, - for standard input, an address such as '
      'rtsp://..., or webcam:0.'
    )
  return Source(printable.name_of(text), text, False, options)


def _camera(text: str, number: str) -> Source:
  form, pattern = CAMERAS.get(sys.platform, (None, None))
  if form is None or not number.isdecimal():
    raise InputError(
      f'{text}: cameras are webcam:0, webcam:1, ... on Linux and macOS; elsewhere name the device '
      'as FFmpeg does, with --input-format.'
    )
  return Source(text, pattern.format(number), True, {'format': form})


@contextlib.contextmanager
def opened(source: Source, rate: Fraction | None = None) -> Iterator[OpenSource]:
  """Opens a source for reading.

  rate: frames per second at which to sample it; None: every picture is a frame.

  Raises InputError, here or while pictures are read, if it cannot be opened or decoded.
  """
  with decode.decoding(source.name):
    container = decode.open_container(source.target, **source.options)
  with container:
    stream = shown.choose_stream(container, source.name)
    stream.thread_type = 'AUTO'  # decodes frames in parallel where the codec can
    fps = float(rate or shown.frames_per_second(stream))
    reader = shown.Reader(container, stream)
    pictures = _filled(_counted(reader) if rate is None else _resampled(reader, rate), source.name)
    yield OpenSource(
      source.name,
      fps,
      _expected(container, stream, fps, rate),
      pictures,
      lambda: [f'{kind}: {detail}' for kind, detail in reader.notes()],
    )


def middle(source: Source) -> int | None:
  """Decodes a file to find its middle frame; None for sources that can be read only once.

  Headers count frames that edit lists hide, or are wrong. Raises the errors of `opened`.
  """
  if not Path(str(source.target)).is_file():
    return None
  with opened(source) as counted:
    return sum(1 for _ in counted.pictures) // 2


def _expected(
  container: av.container.InputContainer, stream: av.VideoStream, fps: float, rate: Fraction | None
) -> int | None:
  """Number of frames by the header, which also counts those that an edit list hides."""
  seconds = container.duration / av.time_base if container.duration else None
  if stream.duration:
    seconds = min(filter(None, (seconds, float(stream.duration * stream.time_base))))
  told = [stream.frames] if stream.frames and rate is None else []
  if seconds:
    told.append(round(seconds * fps) or 1)
  return min(told, default=None)


def _counted(reader: shown.Reader) -> Iterator[tuple[float, Picture | Lost]]:
  """Yields every picture with its own time after the first."""
  first, tick = None, float(reader.tick)
  for place in reader:
    first = place.ticks if first is None else first
    yield (place.ticks - first) * tick, place.picture


def _resampled(reader: shown.Reader, rate: Fraction) -> Iterator[tuple[float, Picture | Lost]]:
  for number, picture in enumerate(resample.at_rate(reader, reader.tick, rate)):
    yield float(number / rate), picture


def _filled(places: Iterable[tuple[float, Picture | Lost]], name: str) -> Iterator[TimedPicture]:
  """Replaces each lost picture by the one before it, or by the first one available."""
  early, stays = [], None
  with decode.decoding(name):
    for seconds, picture in places:
      if not isinstance(picture, Lost):
        stays = picture
        for before in early:
          yield TimedPicture(before, picture, lost=True)
        early = []
        yield TimedPicture(seconds, picture)
      elif stays is None:
        early.append(seconds)
      else:
        yield TimedPicture(seconds, stays, lost=True)
