"""Decides what a player would show, and when; every reader of videos uses it.

Which stream: FFmpeg's default, the one with the largest pictures; cover art is no video. When: on
the file's clock, in ticks of the stream, 0 where the file starts (its sound included). The clock
continues where a recording's clock restarts, and long pauses stay. Lost pictures (packets that do
not decode, pictures that FFmpeg marks as corrupt, holes in the file) keep their positions, so that
no later picture moves; everything odd is reported at the end.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.container import Flags
from av.format import Flags as FormatFlags
from av.stream import Discard, Disposition
from av.video.reformatter import VideoReformatter

from evad_jax.errors import InputError
from evad_jax.video import orientation
from evad_jax.video.clock import NEW_CLOCK, Clock, time_of
from evad_jax.video.jpeg import encode_frame
from evad_jax.video.orientation import UPRIGHT, Orientation
from evad_jax.video.packets import Packets

DEFAULT_RATE = 25  # frames per second if unknown
HELD = 16  # pictures that damage has moved ahead and that wait for their time
LONGEST_LOSS = 3600  # seconds of lost pictures that keep their positions; more is a pause
EARLIER = (0, 10, 60, 10**9)  # seconds before the start to seek to, in turn: an index may overshoot
UNEVEN = 0.5  # pictures of drift up to which the pace counts as even and gaps as lost pictures
STILLS = ('mjpeg', 'png', 'webp')  # codecs whose packets are image files

Report = Callable[[str, str], None]  # called with the kind and the detail of an oddity in a file


def nobody(kind: str, detail: str) -> None:
  """A `Report` that discards everything."""


class VideoError(ValueError):
  """What is wrong with a video; raised again with its name where that is known."""


class Picture(NamedTuple):
  """A decoded frame, converted only on demand."""

  frame: av.VideoFrame
  orientation: Orientation = UPRIGHT
  pixel: Fraction | None = None  # width over height of a stored pixel; None: unknown

  @property
  def size(self) -> tuple[int, int]:
    """Height and width in the file's own pixels, upright: the units of boxes in files."""
    return orientation.turned_size((self.frame.height, self.frame.width), self.orientation)

  def rgb(self) -> np.ndarray:
    """(H, W, 3) uint8, upright, with square pixels."""
    # Threads for one conversion cost more than they save; callers have their own.
    stored = VideoReformatter().reformat(self.frame, format='rgb24', threads=1).to_ndarray()
    square = orientation.with_square_pixels(stored, self.pixel)
    return orientation.turn(square, self.orientation)

  def jpeg(self, short_side: int | None, quality: int) -> bytes:
    """The picture as a JPEG file; see `encode_frame`."""
    return encode_frame(self.rgb(), short_side, quality)


class Lost(NamedTuple):
  """Stands for a picture that cannot be shown."""

  number: int  # its index in the video

  def rgb(self) -> np.ndarray:
    """Raises InputError."""
    raise InputError(f'picture {self.number} is damaged or missing in the file')

  def jpeg(self, short_side: int | None, quality: int) -> bytes:
    """Raises InputError."""
    self.rgb()


class Shown(NamedTuple):
  """What is on the screen from `ticks` on; indices count these from 0, without a gap."""

  ticks: int  # of the stream's time base; rising
  picture: Picture | Lost
  duration: int  # ticks, approximately


def choose_stream(container: av.container.InputContainer, name: object) -> av.VideoStream:
  """Chooses FFmpeg's default video stream; the others are no longer read.

  Raises InputError if there is none, or none with a known codec.
  """
  streams = container.streams.video
  if not streams:
    raise InputError(f'{name}: holds no video stream; replace the file')
  moving = [s for s in streams if not s.disposition & Disposition.attached_pic]
  if not moving:
    raise InputError(f'{name}: holds a cover picture but no video; replace the file')
  known = [stream for stream in moving if stream.codec_context is not None]
  if not known:
    raise InputError(f'{name}: its video codec is not supported here; convert it')
  chosen = max(known, key=_preference)
  for stream in streams:
    if stream is not chosen:
      stream.discard = Discard.all
  return chosen


def _preference(stream: av.VideoStream) -> int:
  """Pixels per picture; a default stream beats others with up to five million pixels more."""
  pixels = stream.codec_context.width * stream.codec_context.height
  return pixels + 5_000_000 * bool(stream.disposition & Disposition.default)


def frames_per_second(stream: av.VideoStream) -> Fraction:
  """The rate that the container states or implies, or DEFAULT_RATE."""
  return stream.guessed_rate or stream.average_rate or Fraction(DEFAULT_RATE)


class Reader:
  """What a stream shows from its start or a given time on; iterate over it once."""

  def __init__(
    self,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    start: int = 0,
  ):
    """start: seconds on the file's clock; nothing before it is shown."""
    # PyAV makes FFmpeg invent missing packet times, which come out of order for AVI files.
    container.flags = int(container.flags) & ~Flags.gen_pts.value
    self._container, self._stream = container, stream
    self.tick = stream.time_base or Fraction(1, DEFAULT_RATE)  # seconds
    self.pace = max(1, round(1 / frames_per_second(stream) / self.tick))  # ticks
    self._start = math.ceil(start / self.tick)
    self._longest_loss = int(LONGEST_LOSS / self.tick)
    origin = round(Fraction(container.start_time or 0, av.time_base) / self.tick)
    jumps = bool(container.format.flags & FormatFlags.ts_discont.value)
    self._clock = Clock(origin, self.tick, self.pace, jumps)
    # Losses in broadcast streams and fragmented MP4 files leave no trace but a gap in time.
    fragmented = 'mov' in container.format.name and not stream.frames
    self._traceless = int(NEW_CLOCK / self.tick) if jumps or fragmented else 0
    self._packets = Packets(container, stream)
    self._looks: dict[tuple, tuple[Orientation, Fraction | None]] = {}
    self._before: int | None = None  # ticks of the last picture
    self._drift = 0.0  # pictures by which it is off an even pace
    self._even = True
    self._ended = False
    self.count = 0  # pictures so far, lost ones included
    self.lost = 0  # of them
    self.overtaken = 0  # pictures that came before one with an earlier time
    self.too_late = 0  # pictures that came after their time had passed
    self._first_lost = 0
    self._before_first = 0  # pictures at the start of a recording that lack their key picture

  def __iter__(self) -> Iterator[Shown]:
    """Yields pictures in display order; VideoError if none can be decoded."""
    frames = self._sought() if self._start else self._packets.frames()
    for frame, last, ticks in self._timed(frames):
      passed = self._packets.pass_by(self._clock.raw)
      if self._start and ticks < self._start:
        continue
      lost = self._lost_before(ticks, last, passed)
      if lost:
        yield from self._lose(lost, ticks)
      self._before = ticks
      if frame.is_corrupt:
        yield from self._lose(1, ticks)
      else:
        self.count += 1
        yield Shown(ticks, self._picture(frame), frame.duration or self.pace)
    if self._before is not None:
      behind = self._lost_at_end()
      yield from self._lose(behind, self._before + (behind + 1) * self.pace)
    self._ended = True
    self._check_any()

  def _timed(self, frames: Iterable[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, int, int]]:
    """Yields frames in order, the file's time of the previous one, and their ticks.

    Damage reorders pictures and breaks times. A picture that leaps ahead waits for those that
    should come before it; one that comes after its time has passed is not shown.
    """
    clock, waiting, count = self._clock, [], 0
    for frame in itertools.chain(frames, [None]):
      ticks = None if frame is None else clock.peek(frame)
      while waiting and (ticks is None or len(waiting) > HELD or waiting[0][0] <= ticks):
        following = heapq.heappop(waiting)[2]
        if self._in_time(following):
          yield following, clock.raw, clock.read(following)
      if clock.leaps(ticks):
        self.overtaken += bool(waiting)
        heapq.heappush(waiting, (ticks, count, frame))
        count += 1
      elif frame is not None and self._in_time(frame):
        self.overtaken += bool(waiting)
        yield frame, clock.raw, clock.read(frame)

  def _in_time(self, frame: av.VideoFrame) -> bool:
    """Whether a picture can still be shown; without damage, every picture is."""
    if not self._packets.damaged or not self._clock.falls_back(self._clock.peek(frame)):
      return True
    self.too_late += 1
    return False

  def _lost_before(self, ticks: int, last: int, passed: int) -> int:
    """Number of lost pictures between the last one and the one at `ticks`.

    Args:
      ticks: of the picture.
      last: time of the previous picture on the file's own clock.
      passed: packets between them that yielded no picture.
    """
    packets, before = self._packets, self._before
    if before is None:
      return self._lost_at_start(passed)
    if self._clock.changed or ticks - before > self._longest_loss:
      return 0
    steps = (ticks - before) / self.pace
    lost, missing = 0, round(steps) - 1
    if not self._even:
      lost = passed if packets.errors else 0
    elif missing > 0 and (
      passed
      or ticks - before <= self._traceless
      or packets.hole_near(last, self._clock.raw, self.pace)
    ):
      lost = missing
    self._drift += steps - 1 - lost
    self._even = self._even and abs(self._drift) <= UNEVEN
    return lost

  def _lost_at_start(self, passed: int) -> int:
    """Number of lost pictures before the first shown; recordings may begin between key pictures."""
    packets = self._packets
    if self._start:
      return 0
    if not packets.begins_with_key:
      self._before_first = max(passed, packets.errors)
      return 0
    if not packets.errors:
      return 0
    # Without stated times, decoder delay looks like packets that yielded no picture.
    return passed if packets.states_times else min(passed, packets.errors)

  def _lost_at_end(self) -> int:
    """Number of lost pictures after the last shown, as far as the file shows."""
    packets, behind = self._packets, self._packets.behind()
    if not self._even:
      return len(behind) if packets.errors else 0
    ends = [self._clock.raw, *behind]  # when the last picture is shown, by every source
    if packets.broken_off and self._stream.frames > packets.seen:
      total = self._stream.frames - packets.hidden
      ends.append(self._clock.raw + (total - self.count) * self.pace)
    stated = self._stated_end()
    if stated is not None and not self._clock.changes:
      ends.append(round(stated / self.tick) - self.pace)
    missing = math.floor((max(ends) - self._clock.raw) / self.pace + 0.4)
    return missing if missing * self.pace <= self._longest_loss else 0

  def _stated_end(self) -> Fraction | None:
    """Seconds at which a Matroska file says the stream ends; other formats are not exact."""
    if 'matroska' not in self._container.format.name:
      return None
    try:
      hours, minutes, seconds = self._stream.metadata.get('DURATION', '').split(':')
      return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    except ValueError:  # no tag: it is written at the end of the file
      longest = Fraction(self._container.duration or 0, av.time_base)
      return longest if longest > self._packets.end() else None

  def _lose(self, places: int, until: int) -> Iterator[Shown]:
    """Yields lost pictures, spread between the last picture and `until`, or at `until` itself."""
    if places and not self.lost:
      self._first_lost = self.count
    since = until - (places + 1) * self.pace if self._before is None else self._before
    for place in range(1, places + 1):
      ticks = until if since >= until else since + (until - since) * place // (places + 1)
      number, self.count, self.lost = self.count, self.count + 1, self.lost + 1
      yield Shown(ticks, Lost(number), self.pace)

  def _picture(self, frame: av.VideoFrame) -> Picture:
    key = frame.rotation, frame.width, frame.height
    if key not in self._looks:
      self._looks[key] = self._orientation(frame), self._stream.sample_aspect_ratio
    return Picture(frame, *self._looks[key])

  def _orientation(self, frame: av.VideoFrame) -> Orientation:
    if self._stream.codec_context.name in STILLS:
      return orientation.of_exif(self._packets.first)
    try:
      matrix = frame.side_data.get('DISPLAYMATRIX')
    except ValueError:  # side data unknown to PyAV; it still reads rotations
      return orientation.of_degrees(-frame.rotation)
    return UPRIGHT if matrix is None else orientation.of_matrix(bytes(matrix))

  def _sought(self) -> Iterator[av.VideoFrame]:
    """Yields frames from one at or before the start on; an index may overshoot or lead nowhere."""
    for earlier in (*EARLIER, None):
      try:
        if earlier is None:
          self._container.seek(0, stream=self._stream, unsupported_byte_offset=True)
        else:
          ticks = self._start - math.ceil(earlier / self.tick)
          self._container.seek(self._clock.origin + max(ticks, 0), stream=self._stream)
      except av.FFmpegError:
        continue
      self._packets = Packets(self._container, self._stream)
      frames = self._packets.frames()
      first = next((frame for frame in frames if not frame.is_corrupt), None)
      time = None if first is None else time_of(first)
      early = time is None or time - self._clock.origin <= self._start
      if first is not None and (early or earlier in (EARLIER[-1], None)):
        yield first
        yield from frames
        return

  def _check_any(self) -> None:
    if self.count == self.lost and (self.lost or self._packets.error):
      why = f' ({self._packets.error})' if self._packets.error else ''
      raise VideoError(f'not one picture of it can be decoded{why}; replace the file')

  def notes(self) -> list[tuple[str, str]]:
    """Kinds and details of everything odd about the file, as far as it has been read."""
    packets, changes, notes = self._packets, self._clock.changes, []
    if self.lost:
      notes.append(
        (
          'lost pictures',
          f'{self.lost} of {self.count} are damaged or missing, the first is number '
          f'{self._first_lost}, counted from 0; all others keep their numbers and times',
        )
      )
    elif packets.errors and not self._before_first:
      notes.append(('damaged packets', f'{packets.errors} yielded no picture'))
    if self._before_first:
      detail = f'{self._before_first} pictures before its first key picture cannot be shown'
      notes.append(('starts between key pictures', detail))
    if self.overtaken or self.too_late:
      moved = f'{self.overtaken} pictures are moved to their times'
      over = f'{self.too_late} came too late to be shown'
      notes.append(('times out of order', f'{moved}, and {over}'))
    if changes:
      more = f', and {len(changes) - 1} times more' if len(changes) > 1 else ''
      jump = f'its times jump by {float(changes[0] * self.tick):.3f} seconds{more}'
      notes.append(('clock starts again', f'{jump}; they continue at the frame interval'))
    if packets.hidden and not self._start:
      notes.append(('hidden pictures', f'an edit list hides {packets.hidden}; they do not count'))
    if packets.starts_late() and not self._start:
      notes.append(('starts late', 'much of the file before its first picture cannot be read'))
    if packets.broken_off or (self._ended and not self._start and packets.stops_early()):
      notes.append(('breaks off', 'it ends early; what comes before is used'))
    return notes
