"""Finds and decodes videos, frame after frame, with PyAV.

The frames of a video are its pictures, counted as they are decoded; or, at a given rate, what is on
the screen at the times 0, 1 / rate, 2 / rate, ... as `ffmpeg -r` has it.

Containers lie: some headers say 0 frames, some metadata are not UTF-8, some timestamps of AVI files
are out of order, phones turn their pictures by a note in the header. So frames are counted by
decoding, undecodable metadata are replaced, times are put in order, and pictures are turned.
"""

import collections
import contextlib
import heapq
import itertools
import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from evad_jax.data.jpeg import encode_frame
from evad_jax.errors import InputError

# Texts of a header that are not UTF-8 keep their bytes as surrogates: PyAV 19 does so by itself.
_OLD = int(av.__version__.split('.')[0]) < 19
_KEEP_BYTES = {'metadata_errors': 'surrogateescape'} if _OLD else {}
SUFFIXES = ('.avi', '.mp4', '.mkv', '.webm', '.mov')  # in the order of preference
OUT_OF_ORDER = 8  # pictures by which the times of a broken AVI file may be late
UNEVEN = 1.5  # frames by which a picture may be off an even pace
LONGEST_GAP = 300  # seconds between two pictures; more is a broken timestamp
EARLIER = (0, 10, 60)  # seconds: where an index leads too far, the next attempts start before

Report = Callable[[str, str], None]  # told the kind and the detail of what is odd about a file


def nobody(kind: str, detail: str) -> None:
  """A `Report` to nobody."""


class Picture(NamedTuple):
  """A decoded frame, converted only when it is asked for."""

  frame: av.VideoFrame

  def jpeg(self, short_side: int | None, quality: int) -> bytes:
    """As a JPEG file; see `encode_frame`."""
    return encode_frame(self.rgb(), short_side, quality)

  def rgb(self) -> np.ndarray:
    """(H, W, 3) uint8, turned as its container asks for."""
    picture = self.frame.to_ndarray(format='rgb24')
    return np.ascontiguousarray(np.rot90(picture, self.frame.rotation // 90))


class VideoFile(NamedTuple):
  """A video and how its frames are counted."""

  path: Path
  rate: Fraction | None = None  # frames a second; None: every picture is a frame
  start: int = 0  # seconds that are skipped; needs a rate
  seconds: int | None = None  # length that is read; None: all; needs a rate

  def frames(self, report: Report = nobody) -> Iterator[Picture]:
    """Decodes the frames in the order of display; a picture that stays is yielded again.

    Args:
      report: told 'broken metadata', 'header without frame count', 'variable frame rate'.

    Raises:
      InputError: the file cannot be opened, has no video stream, or breaks off with an error.
    """
    with decoding(self.path), open_container(self.path, report) as container:
      stream = video_stream(container, self.path)
      if not (stream.frames or stream.duration or container.duration):
        report('header without frame count', 'frames are counted by decoding')
      if self.rate is None:
        yield from _counted(container.decode(stream), report)
      else:
        yield from pictures_at(
          container, stream, self.rate, start=self.start, seconds=self.seconds, report=report
        )

  def fps(self) -> float:
    """Frames a second."""
    return float(self.rate or frames_per_second(self.path))

  def identity(self) -> list:
    """What tells the file from another one, without reading it, and how it is read."""
    return [self.path.name, self.path.stat().st_size, str(self.rate), self.start, self.seconds]


class _TimeError(ValueError):
  """Timestamps that no frame can be found by."""


@contextlib.contextmanager
def decoding(name: object) -> Iterator[None]:
  """Turns what goes wrong inside while decoding into InputError that names the video."""
  try:
    yield
  except _TimeError as error:
    raise InputError(f'{name}: {error}; replace the file or leave it out') from error
  except (av.FFmpegError, OSError) as error:
    raise InputError(
      f'{name}: cannot be decoded ({error}); replace the file or leave it out'
    ) from error


def find_videos(directory: str | os.PathLike) -> dict[str, Path]:
  """All videos below a directory, by file name without suffix; of two alike, the preferred suffix.

  Raises:
    InputError: no such directory, or no video in it.
  """
  directory = Path(directory)
  if not directory.is_dir():
    raise InputError(f'{directory}: no such directory; give the directory that holds the videos')
  found = videos_below(directory)
  if not found:
    raise InputError(f'{directory}: holds no video ({", ".join(SUFFIXES)}); check the path')
  return found


def videos_below(directory: Path) -> dict[str, Path]:
  """As `find_videos`, but none is no error."""
  found = [path for path in directory.rglob('*') if path.suffix.lower() in SUFFIXES]
  found.sort(key=lambda path: (SUFFIXES.index(path.suffix.lower()), path))
  return {stem_of(path.stem): path for path in reversed(found)}


def stem_of(name: str) -> str:
  """By which of its names a video is found: the last part, accents in one form."""
  return unicodedata.normalize('NFC', name.rpartition('/')[2])


def frames_per_second(path: str | os.PathLike) -> Fraction:
  """The frame rate that the container states or lets guess, or 0 where it does not."""
  rate = _read_header(path, lambda container, stream: stream.guessed_rate or stream.average_rate)
  return rate or Fraction(0)


def duration(path: str | os.PathLike) -> float | None:
  """Seconds that the container states; None where it does not."""

  def seconds(container, stream) -> float | None:
    if container.duration:
      return container.duration / av.time_base
    return float(stream.duration * stream.time_base) if stream.duration else None

  return _read_header(path, seconds)


def _read_header(path: str | os.PathLike, function: Callable):
  try:
    with open_container(Path(path)) as container:
      return function(container, video_stream(container, path))
  except (av.FFmpegError, OSError) as error:
    raise InputError(
      f'{path}: cannot be opened ({error}); replace the file or leave it out'
    ) from error


def open_container(
  source: str | os.PathLike | BinaryIO, report: Report = nobody, **options: Any
) -> av.container.InputContainer:
  """Opens a file, an address or something to read from; options are those of `av.open`.

  A path is a file whatever its name (see `local_file`); a str is what FFmpeg takes it for.
  """
  source = local_file(source) if isinstance(source, os.PathLike) else source
  container = av.open(source, **_KEEP_BYTES, **options)
  texts = [container.metadata, *(stream.metadata for stream in container.streams)]
  try:
    ''.join(word for some in texts for pair in some.items() for word in pair).encode()
  except UnicodeEncodeError:  # the surrogates that stand for bytes that are no text
    report('broken metadata', 'texts of its header are not UTF-8; they are not needed')
  return container


def local_file(path: str | os.PathLike) -> str:
  """A path as FFmpeg takes it for one: without this, what stands before a colon is a protocol."""
  return f'file:{os.fspath(path)}'


def video_stream(container: av.container.InputContainer, path: object) -> av.VideoStream:
  """The first video stream; InputError where there is none."""
  if not container.streams.video:
    raise InputError(f'{path}: holds no video stream; replace the file')
  return container.streams.video[0]


def pictures_at(
  container: av.container.InputContainer,
  stream: av.VideoStream,
  rate: Fraction,
  *,
  start: int = 0,
  seconds: int | None = None,
  report: Report = nobody,
) -> Iterator[Picture]:
  """What is on the screen at the times 0, 1 / rate, 2 / rate, ... after `start` seconds."""
  timed = _ordered(_timed(container, stream, start))
  until = None if seconds is None else Fraction(seconds)
  yield from _at_rate(_even(timed, until, report), rate, until)


def _counted(frames: Iterable[av.VideoFrame], report: Report) -> Iterator[Picture]:
  """Every picture, and a report where their pace is not even."""
  if report is nobody:  # no list of times, which would grow with the video
    yield from map(Picture, frames)
    return
  times = []
  for frame in frames:
    if frame.pts is not None:
      times.append(float(frame.pts * frame.time_base))
    yield Picture(frame)
  uneven = _frames_off_pace(sorted(times))
  if uneven > UNEVEN:
    detail = f'pictures are up to {uneven:.1f} frames off an even pace; they are counted'
    report('variable frame rate', detail)


def _timed(container, stream, start: int) -> Iterator[tuple[Fraction, Picture]]:
  """Pictures with their times in seconds after `start`, from the last one before it on."""
  origin = _origin(container, stream) + start
  frames = container.decode(stream) if start == 0 else _sought(container, stream, origin)
  for frame in frames:
    if frame.pts is None:
      raise _TimeError('a picture has no timestamp')
    yield frame.pts * frame.time_base - origin, Picture(frame)


def _origin(container, stream) -> Fraction:
  """The time at which the container starts, in seconds; exact where the video starts with it."""
  first = Fraction((stream.start_time or 0) * stream.time_base)
  if container.start_time is None:
    return first
  whole = Fraction(container.start_time, av.time_base)
  return first if abs(first - whole) < Fraction(1, 1000) else whole


def _sought(container, stream, time: Fraction) -> Iterator[av.VideoFrame]:
  """Decodes from a key picture at or before `time`; from the start if nothing else leads there."""
  for earlier in (*EARLIER, time):
    container.seek(math.floor(max(time - earlier, 0) / stream.time_base), stream=stream)
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None:
      return iter(())
    if first.pts is None or first.pts * first.time_base <= time:
      break
  return itertools.chain([first], frames)


def _ordered(timed: Iterable[tuple[Fraction, Picture]]) -> Iterator[tuple[Fraction, Picture]]:
  """Pictures come in the order of display, so their times must rise: AVI files shuffle them."""
  times, pictures = [], collections.deque()
  for time, picture in timed:
    heapq.heappush(times, time)
    pictures.append(picture)
    if len(pictures) > OUT_OF_ORDER:
      yield heapq.heappop(times), pictures.popleft()
  while pictures:
    yield heapq.heappop(times), pictures.popleft()


def _even(
  timed: Iterable[tuple[Fraction, Picture]], until: Fraction | None, report: Report
) -> Iterator[tuple[Fraction, Picture]]:
  """Passes pictures on, up to the first at or after `until`, and reports an uneven pace."""
  times = []
  for time, picture in timed:
    if report is not nobody:
      times.append(float(time))
    yield time, picture
    if until is not None and time >= until:
      break
  uneven = _frames_off_pace(times)
  if uneven > UNEVEN:
    detail = f'pictures are up to {uneven:.1f} frames off an even pace; they are taken by time'
    report('variable frame rate', detail)


def _frames_off_pace(times: list[float]) -> float:
  """How far a picture is from where it would be if all came at an even pace, in frames."""
  times = np.array(times)
  if len(times) < 3 or times[-1] <= times[0]:
    return 0.0
  rate = (len(times) - 1) / (times[-1] - times[0])
  return float(np.abs((times - times[0]) * rate - np.arange(len(times))).max())


def _at_rate(
  timed: Iterable[tuple[Fraction, Picture]], rate: Fraction, until: Fraction | None
) -> Iterator[Picture]:
  """The picture of slots 0, 1, 2, ...: the last with round(time * rate) at or before the slot."""
  end = math.inf if until is None else math.ceil(until * rate)
  slot, shown, before, pace = 0, None, None, Fraction(1) / rate
  for time, picture in timed:
    if shown is not None:
      pace = time - before
      if pace > LONGEST_GAP:
        raise _TimeError(f'its timestamps jump by {float(pace):.0f} seconds')
    due = min(end, _slot(time, rate))
    for _ in range(slot, due):
      yield picture if shown is None else shown
    slot, shown, before = max(slot, due), picture, time
  if shown is not None:  # the last picture stays as long as the one before it
    last = max(_slot(before, rate) + 1, _slot(before + pace, rate))
    for _ in range(slot, min(end, last)):
      yield shown


def _slot(time: Fraction, rate: Fraction) -> int:
  return math.floor(time * rate + Fraction(1, 2))
