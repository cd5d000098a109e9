"""Merges the frames of a video with the people found on its keyframes.

Frames are held until the people of the next keyframe are known; boxes are interpolated between the
two.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from evad_jax.inference.person_tracks import People
from evad_jax.video.video_source import TimedPicture
from evad_jax.video.video_writer import VideoWriter
from evad_jax.visualization.draw_people import Figure, Style, annotate, between, figures_of


class AnnotatedVideo:
  """Writes every frame that is not lost, with the people known at its time."""

  def __init__(
    self,
    writer: VideoWriter | None,  # None: frames pass through, and only their times are kept
    classes: Sequence[str],
    style: Style | None = None,
    most_waiting: int | None = None,  # frames
  ):
    """most_waiting: above it, the oldest frames are dropped; for sources that do not wait."""
    self._writer, self._classes, self._style = writer, classes, style or Style()
    self._most_waiting = most_waiting
    self._waiting: collections.deque[tuple[int, TimedPicture]] = collections.deque()
    self._known: tuple[int, list[Figure]] = (0, [])
    self._seconds: dict[int, float] = {}  # of frames not yet passed by a keyframe
    self.size: tuple[int, int] = (0, 0)  # height and width of the frames, in the file's pixels
    self.count = 0  # frames received
    self.lost = 0  # of them, lost in the file
    self.left_out = 0  # frames dropped before they were drawn

  def watch(self, pictures: Iterable[TimedPicture]) -> Iterator[Any]:
    """Passes the frames on to the detector and keeps those to be drawn."""
    for timed in pictures:
      if not self.count:
        self.size = timed.picture.size
      self.lost += timed.lost
      if self._writer is not None and not timed.lost:
        if len(self._waiting) == self._most_waiting:
          self._waiting.popleft()
          self.left_out += 1
        self._waiting.append((self.count, timed))
      self._seconds[self.count] = timed.seconds
      self.count += 1
      yield timed.picture

  def seconds(self, frame: int) -> float:
    """The time of a keyframe just processed; discards the times of earlier frames."""
    found = self._seconds[frame]
    # A copy: another thread may be adding frames.
    for number in [number for number in list(self._seconds) if number < frame]:
      del self._seconds[number]
    return found

  def add(self, people: People) -> None:
    """Draws the frames up to a keyframe, now that its people are known."""
    figures = figures_of(people, self._classes, self._style)
    start, before = self._known
    while self._waiting and self._waiting[0][0] <= people.frame:
      number, timed = self._waiting.popleft()
      share = (number - start) / (people.frame - start) if people.frame > start else 1.0
      self._draw(timed, between(before, figures, share))
    self._known = (people.frame, figures)

  def finish(self) -> None:
    """Draws the remaining frames with the people last known."""
    while self._waiting:
      self._draw(self._waiting.popleft()[1], self._known[1])

  def _draw(self, timed: TimedPicture, figures: Sequence[Figure]) -> None:
    self._writer.write(annotate(timed.picture.rgb(), figures, self._style), timed.seconds)
