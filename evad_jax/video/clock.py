"""One clock for a video, which rises whatever the timestamps of the file do.

Times are ticks of the stream, 0 where the file starts, its sound included, as in FFmpeg. Where
joined recordings restart their clocks, time continues at the frame interval. So it does after jumps
ahead in formats whose clocks jump by nature (broadcast streams); in all others a long pause is a
pause. A picture without a time follows the previous one by one frame interval.
"""

from fractions import Fraction

import av

BROKEN = 30 * 3600  # seconds between pictures; more is a broken timestamp, as in FFmpeg
NEW_CLOCK = 10  # seconds; more is a new clock in formats whose clocks jump, as in FFmpeg
NOTEWORTHY = 1  # second that a time may fall back; more is a new clock
LEAP = 1.5  # frame intervals: a later time is checked twice


class Clock:
  """Reads the times of pictures in the order of display."""

  def __init__(self, origin: int, tick: Fraction, pace: int, jumps: bool):
    """Creates a clock that has read no picture.

    Args:
      origin: ticks on the file's clock at which it starts.
      tick: seconds per tick.
      pace: frame interval in ticks, approximately.
      jumps: whether clocks of this format jump ahead.
    """
    self.origin, self._pace = origin, pace
    self._most = int((NEW_CLOCK if jumps else BROKEN) / tick)
    self._noteworthy = int(NOTEWORTHY / tick)
    self._shift, self._earlier = 0, 0  # ticks added, now and before the last change
    self._before: int | None = None
    self.raw = origin  # of the last picture, as stored in the file
    self.changed = False  # whether a new clock began with the last picture
    self.changes: list[int] = []  # ticks by which new clocks differ from what was expected

  def peek(self, frame: av.VideoFrame) -> int | None:
    """Ticks at which a coming picture would be shown; None if it states no time."""
    raw = time_of(frame)
    return None if raw is None else raw - self.origin + self._shift

  def leaps(self, ticks: int | None) -> bool:
    """Whether the next picture would be much later than expected."""
    if ticks is None or self._before is None:
      return False
    return ticks > self._before + LEAP * self._pace

  def falls_back(self, ticks: int | None) -> bool:
    """Whether a picture arrives after its time has passed, by the same clock."""
    if ticks is None or self._before is None:
      return False
    return self._before - self._noteworthy <= ticks < self._before + self._pace / 2

  def read(self, frame: av.VideoFrame) -> int:
    """Ticks of the next picture."""
    raw, before, ticks = time_of(frame), self._before, self.peek(frame)
    self.changed = False
    if ticks is None:
      ticks = 0 if before is None else before + self._pace
      raw = self.raw if before is None else self.raw + self._pace
    elif before is not None and (ticks <= before or self.leaps(ticks)):
      ticks = self._out_of_pace(raw - self.origin, ticks, before)
    self._before, self.raw = ticks, raw
    return ticks

  def _out_of_pace(self, raw: int, ticks: int, before: int) -> int:
    """Ticks of a picture that does not follow the last one by the frame interval."""
    if self._shift != self._earlier and before < raw + self._earlier <= before + LEAP * self._pace:
      # The first clock continues: only one timestamp was broken.
      self._shift, self._earlier = self._earlier, self._shift
      if self.changes:
        self.changes.pop()
      return raw + self._shift
    if before < ticks <= before + self._most:
      return ticks  # a pause
    if before - self._noteworthy <= ticks <= before:
      return before + max(1, self._pace // 4)  # until the next one with a valid time
    expected = before + self._pace
    self.changed = True
    self.changes.append(ticks - expected)
    self._shift, self._earlier = self._shift + expected - ticks, self._shift
    return expected


def time_of(picture: av.VideoFrame | av.Packet) -> int | None:
  """Presentation time, ticks on the file's own clock; AVI files state the decoding time instead."""
  return picture.dts if picture.pts is None else picture.pts
