"""Whatever can be watched: a file, a pipe, an address on the network, a camera.

A source is opened once and read once, from its first picture to its last, since most of them cannot
be read again. Files can wait for their reader; cameras and live addresses cannot.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from evad_jax import printable
from evad_jax.data import video
from evad_jax.data.video import Picture
from evad_jax.errors import InputError

DEFAULT_RATE = 25  # frames a second where nothing tells
LIVE_ADDRESSES = ('rtsp', 'rtsps', 'rtmp', 'rtmps', 'rtp', 'udp', 'srt', 'tcp')
LONGEST_SILENCE = 30.0  # seconds that an address may take to answer, or to go on
# The names under which FFmpeg reads a camera, by operating system; {} is the camera's number.
CAMERAS = {'linux': ('v4l2', '/dev/video{}'), 'darwin': ('avfoundation', '{}')}


class TimedPicture(NamedTuple):
  """A frame and when it is shown."""

  seconds: float  # after the first; rising
  picture: Picture


class Source(NamedTuple):
  """What to open, and how."""

  name: str  # for messages and results: it prints, and has no secrets
  target: str | Path | BinaryIO
  live: bool  # whether it goes on without waiting for its reader
  options: dict[str, Any]  # of av.open


class OpenSource(NamedTuple):
  """A source that is being read."""

  name: str
  fps: float  # frames a second, as stated, or DEFAULT_RATE
  num_frames: int | None  # a guess from the header, for progress bars; None where it says nothing
  pictures: Iterator[TimedPicture]


def find(text: str, input_format: str | None = None) -> Source:
  """What a user means by a file name, '-' (standard input), 'rtsp://...', or 'webcam:0'.

  input_format: FFmpeg's name of the format or the device, where it cannot be guessed.

  Raises InputError where there is no such file, or no camera can be opened on this system.
  """
  options = {'format': input_format} if input_format else {}
  if text == '-':
    return Source('standard input', sys.stdin.buffer, False, options)
  scheme, colon, rest = text.partition(':')
  if text.startswith('/dev/video'):
    return Source(text, text, True, {'format': 'v4l2'} | options)
  if os.path.exists(text) and not os.path.isdir(text):  # whatever its name looks like
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

  rate: frames a second to read it at, by time; None: every picture is a frame.

  Raises InputError, here or while pictures are read, for what cannot be opened or decoded.
  """
  with video.decoding(source.name):
    container = video.open_container(source.target, **source.options)
  with container:
    stream = video.video_stream(container, source.name)
    stream.thread_type = 'AUTO'  # decodes frames beside one another where the codec can
    stated = stream.guessed_rate or stream.average_rate
    fps = float(rate or stated or DEFAULT_RATE)
    if rate is None:
      pictures = _counted(container, stream, source, fps)
    else:
      pictures = _resampled(container, stream, source, rate)
    yield OpenSource(source.name, fps, _expected(container, stream, fps, rate), pictures)


def _expected(container: Any, stream: Any, fps: float, rate: Fraction | None) -> int | None:
  if stream.frames and rate is None:
    return stream.frames
  if stream.duration:
    return round(float(stream.duration * stream.time_base) * fps) or None
  return round(container.duration / 1e6 * fps) or None if container.duration else None


def _counted(container: Any, stream: Any, source: Source, fps: float) -> Iterator[TimedPicture]:
  """Every picture at its own time; times that are missing or do not rise follow the pace."""
  first, before = None, -1 / fps
  with video.decoding(source.name):
    for frame in container.decode(stream):
      time = None if frame.pts is None else float(frame.pts * frame.time_base)
      first = time if first is None else first
      seconds = before + 1 / fps if time is None else time - first
      if seconds <= before or seconds - before > video.LONGEST_GAP:
        seconds = before + 1 / fps
      before = seconds
      yield TimedPicture(seconds, Picture(frame))


def _resampled(
  container: Any, stream: Any, source: Source, rate: Fraction
) -> Iterator[TimedPicture]:
  with video.decoding(source.name):
    for number, picture in enumerate(video.pictures_at(container, stream, rate)):
      yield TimedPicture(float(number / rate), picture)
