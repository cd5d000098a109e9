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
LEAP = 1.5  # of the pace: a time that is looked at twice
NOTEWORTHY = 1  # second; smaller disorder is mended without a word


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
    self._near, self._noteworthy = int(NEW_CLOCK / tick), int(NOTEWORTHY / tick)
    self._shift, self._earlier = 0, 0  # ticks that are added, now and before the last change
    self._before: int | None = None
    self.raw = origin  # of the last picture, as the file has it
    self.changed = False  # whether another clock began with the last picture
    self.changes: list[int] = []  # ticks by which clocks were other than expected

  def read(self, frame: av.VideoFrame) -> int:
    """Ticks of the next picture."""
    raw, before = time_of(frame), self._before
    self.changed = False
    if raw is None:
      ticks = 0 if before is None else before + self._pace
      raw = self.raw if before is None else self.raw + self._pace
    else:
      ticks = raw - self.origin + self._shift
      if before is not None and not before < ticks <= before + self._most:
        ticks = self._other_clock(raw - self.origin, ticks, before)
    self._before, self.raw = ticks, raw
    return ticks

  def leaps(self, frame: av.VideoFrame) -> bool:
    """Whether the next picture comes much later than expected."""
    raw = time_of(frame)
    if raw is None or self._before is None:
      return False
    return raw - self.origin + self._shift - self._before > self._pace * LEAP

  def falls_back(self, frame: av.VideoFrame, following: av.VideoFrame) -> bool:
    """Whether the picture after the next has a time between the last one and the next."""
    raw = time_of(following)
    return raw is not None and self._before < raw - self.origin + self._shift <= (
      time_of(frame) - self.origin + self._shift
    )

  def estimate(self, following: av.VideoFrame) -> int:
    """Ticks of the next picture, whose own time is broken, from those around it."""
    end = time_of(following) - self.origin + self._shift
    ticks = min(self._before + self._pace, max((self._before + end) // 2, self._before + 1))
    self._before, self.raw, self.changed = ticks, ticks + self.origin - self._shift, False
    return ticks

  def _other_clock(self, raw: int, ticks: int, before: int) -> int:
    """Ticks of a picture whose time cannot be."""
    if before < raw + self._earlier <= before + self._near:  # one timestamp alone was broken
      self._shift, self._earlier = self._earlier, self._shift
      return raw + self._shift
    expected = before + self._pace
    if abs(ticks - expected) > self._noteworthy:
      self.changed = True
      self.changes.append(ticks - expected)
    self._shift, self._earlier = self._shift + expected - ticks, self._shift
    return expected


def time_of(picture: av.VideoFrame | av.Packet) -> int | None:
  """When it is shown, ticks on the file's own clock; AVI files state when it is decoded instead."""
  return picture.dts if picture.pts is None else picture.pts
