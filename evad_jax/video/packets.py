"""Decodes a stream packet by packet: damage costs only the pictures that it hits, and is recorded.

FFmpeg reports damage in several ways, or not at all: packets that do not decode, pictures marked as
corrupt, packets marked so at a gap in a broadcast stream, an end before the file's own count. The
times of packets wait here for their pictures; a packet passed by has yielded none.
"""

import heapq
from collections.abc import Iterator
from fractions import Fraction

import av
from av.codec.context import ThreadType

from evad_jax.video.avi_index import AviIndex
from evad_jax.video.clock import time_of

ATTEMPTS = 16  # to read on after damage
HOLE = 32  # bytes between neighbouring packets of a Matroska file; a larger gap held packets
TABLED = ('mov', 'avi')  # formats that list all their packets: no unlisted packet is missing
UNREAD = 4096  # bytes at the start or the end of a file that need not be packets
MOST_THREADS = 16  # of a decoder, as in FFmpeg
REACH = 8  # pictures by which reordering may move a packet from its picture's position


class Packets:
  """The packets of a stream from the container's current position on."""

  def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
    """Prepares to read; reads nothing yet."""
    self._container, self._stream = container, stream
    self._format = container.format.name
    self._contiguous = 'matroska' in self._format
    self._tabled = any(name in self._format for name in TABLED)
    self._frames = stream.frames  # by its table; 0 if it has none
    self._index = AviIndex(container, stream)
    self._waiting: list[int] = []  # a heap: times of packets whose pictures are still to come
    self._holes: list[tuple[int, int | None]] = []  # times before and after; None: not known yet
    self._passed: int | None = None
    self._latest = 0  # time of a packet
    self._ends: dict[int, int] = {}  # of the last packets of all streams, in their ticks
    self._size = container.size  # bytes; 0 or less if unknown
    self._pushed = False  # whether pictures without a time are artefacts of `_held`
    self._begins_at: int | None = None  # byte in the file
    self._read_to = 0  # byte in the file
    self.first = b''  # the first packet
    self.begins_with_key = True
    self.states_times = True  # presentation times, not only decoding times
    self.seen = 0  # packets with pictures
    self.hidden = 0  # of them, by an edit list
    self.errors = 0  # packets that did not decode
    self.broken_off = False  # whether reading ended in damage
    self.damaged = False  # whether any damage was found
    self.error: av.FFmpegError | None = None  # the first

  def frames(self) -> Iterator[av.VideoFrame]:
    """Decodes to the end; OSError for what is not damage, such as a broken connection."""
    for packet in self._read():
      yield from self._decode(packet)
    for frame in self._held():
      if time_of(frame) is not None or not self._pushed:
        yield frame

  def _held(self) -> Iterator[av.VideoFrame]:
    """The pictures that the decoder still holds, possibly with others that have no time.

    With several threads, once the decoder is flushed, PyAV gives up at the first damaged picture
    and loses all after it. So the decoder is fed the first packet again until the last picture is
    out.
    """
    context = self._stream.codec_context
    threaded = context.is_open and ThreadType.FRAME in context.thread_type
    if self.damaged and self.states_times and threaded:
      self._pushed = True
      for _ in range(MOST_THREADS + REACH):
        yield from self._decode(av.Packet(self.first))
    yield from self._decode(None)

  def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
      return self._stream.decode(packet)
    except av.error.EOFError:  # the decoder has ended by itself
      return []
    except av.FFmpegError as error:
      self.errors += 1
      self.damaged = True
      self.error = self.error or error
      return []

  def _read(self) -> Iterator[av.Packet]:
    # All packets of Matroska, since audio packets lie between those of the pictures.
    streams = () if self._contiguous else (self._stream,)
    end, attempts = None, 0
    while True:
      try:
        for packet in self._container.demux(*streams):
          if not packet.size:  # the end, or in AVI files a repeated picture
            continue
          if self._contiguous and packet.pos is not None:
            if end is not None and packet.pos - end > HOLE:
              self._hole()
            end = packet.pos + packet.size
          if self._begins_at is None:
            self._begins_at = packet.pos
          if packet.pts is not None:
            self._ends[packet.stream_index] = packet.pts + (packet.duration or 0)
          if packet.stream_index == self._stream.index:
            self._look_at(packet)
            yield packet
        break
      except av.error.InvalidDataError as error:
        self.error, self.broken_off = self.error or error, True
        self._hole()
        attempts += 1
        if attempts > ATTEMPTS:
          break
    if not self._tabled:
      self._holes.append((self._latest, None))

  def _hole(self) -> None:
    self.damaged = True
    self._holes.append((self._latest, None))

  def _look_at(self, packet: av.Packet) -> None:
    if not self.seen:
      self.first, self.begins_with_key = bytes(packet), packet.is_keyframe
      self.states_times = packet.pts is not None
    self.seen += 1
    self.broken_off = packet.is_corrupt
    missing = self._index.mend(packet)
    if packet.pos is not None:
      self._read_to = packet.pos + packet.size
    time = time_of(packet)
    if packet.is_corrupt or missing:
      self._hole()
    if time is None:
      return
    if self._holes:
      self._holes = [(since, time if until is None else until) for since, until in self._holes]
    self._latest = max(self._latest, time)
    self.hidden += packet.is_discard
    if not packet.is_discard:
      heapq.heappush(self._waiting, time)

  def pass_by(self, time: int) -> int:
    """Counts the packets between the last picture and the one at `time` that yielded none."""
    count, last = 0, self._passed
    while self._waiting and self._waiting[0] <= time:
      waited = heapq.heappop(self._waiting)
      count += waited < time and (last is None or waited > last)
    self._passed = time
    return count

  def hole_near(self, since: int, until: int, pace: int) -> bool:
    """Whether packets may be missing between two times; discards holes before them."""
    reach = REACH * pace
    self._holes = [hole for hole in self._holes if hole[1] is None or hole[1] + reach >= since]
    return any(before - reach <= until for before, _ in self._holes)

  def starts_late(self) -> bool:
    """Whether much of the file lies before the first packet, in formats that begin with packets."""
    name = self._format
    if (
      not self._begins_at
      or self._size <= 0
      or not any(form in name for form in ('matroska', 'mpegts'))
    ):
      return False
    return self._begins_at > max(UNREAD, self._size // 12)

  def stops_early(self) -> bool:
    """Whether an MP4 file holds more: by its table, or by its length if fragments have none."""
    if 'mov' not in self._format:
      return False
    if self._frames:
      return self.seen < self._frames
    rest = self._size - self._read_to
    return bool(self._read_to) and rest > max(UNREAD, self._size // 10)

  def end(self) -> Fraction:
    """Seconds at which the last packet of all streams read ends."""
    streams = self._container.streams
    return max((end * streams[n].time_base for n, end in self._ends.items()), default=Fraction(0))

  def behind(self) -> list[int]:
    """Times of packets after the last picture that yielded none."""
    return [time for time in self._waiting if self._passed is None or time > self._passed]
