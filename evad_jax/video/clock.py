"""The one clock of a video: it rises, whatever the timestamps of the file do.

Times are ticks of the stream, at 0 where the file starts, with its sound too; so FFmpeg counts.
Recordings that were joined start their clocks again: theirs go on at the pace. Formats whose clocks
jump by nature (broadcast streams) are treated so when they jump ahead, too; in all others a long
pause is a pause. A picture without a time follows the one before it at the pace.
"""

from fractions import Fraction

import av

BROKEN = 30 * 3600  # seconds between pictures; more is a broken timestamp, as for FFmpeg
NEW_CLOCK = 10  # seconds; more is another clock where clocks jump, as for FFmpeg
NOTEWORTHY = 1  # second that a time may fall back; more is another clock
LEAP = 1.5  # of the pace: a time that comes so late is looked at twice


class Clock:
  """Reads the times of pictures in the order of display."""

  def __init__(self, origin: int, tick: Fraction, pace: int, jumps: bool):
    """All at rest.

    Args:
      origin: ticks on the file's clock at which it starts.
      tick: seconds.
      pace: ticks from picture to picture, about.
      jumps: whether clocks of this format jump ahead.
    """
    self.origin, self._pace = origin, pace
    self._most = int((NEW_CLOCK if jumps else BROKEN) / tick)
    self._noteworthy = int(NOTEWORTHY / tick)
    self._shift, self._earlier = 0, 0  # ticks that are added, now and before the last change
    self._before: int | None = None
    self.raw = origin  # of the last picture, as the file has it
    self.changed = False  # whether another clock began with the last picture
    self.changes: list[int] = []  # ticks by which clocks were other than expected

  def peek(self, frame: av.VideoFrame) -> int | None:
    """Ticks at which a picture would be, next or later; None where it does not say."""
    raw = time_of(frame)
    return None if raw is None else raw - self.origin + self._shift

  def leaps(self, ticks: int | None) -> bool:
    """Whether the next picture would come much later than expected."""
    if ticks is None or self._before is None:
      return False
    return ticks > self._before + LEAP * self._pace

  def falls_back(self, ticks: int | None) -> bool:
    """Whether a picture comes when it should have been over, by the same clock."""
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
    """Ticks of a picture that does not follow the last one at the pace."""
    if self._shift != self._earlier and before < raw + self._earlier <= before + LEAP * self._pace:
      # The first clock goes on: only a timestamp was broken.
      self._shift, self._earlier = self._earlier, self._shift
      if self.changes:
        self.changes.pop()
      return raw + self._shift
    if before < ticks <= before + self._most:
      return ticks  # a pause
    if before - self._noteworthy <= ticks <= before:
      return before + max(1, self._pace // 4)  # until the next one has a time of its own
    expected = before + self._pace
    self.changed = True
    self.changes.append(ticks - expected)
    self._shift, self._earlier = self._shift + expected - ticks, self._shift
    return expected


def time_of(picture: av.VideoFrame | av.Packet) -> int | None:
  """When it is shown, ticks on the file's own clock; AVI files state when it is decoded instead."""
  return picture.dts if picture.pts is None else picture.pts
