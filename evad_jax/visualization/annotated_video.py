"""The frames of a video and the people found on its keyframes, brought together again.

Frames are kept until the people of the next keyframe are known, and are drawn between the two.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from evad_jax.inference.person_tracks import People
from evad_jax.video.video_source import TimedPicture
from evad_jax.video.video_writer import VideoWriter
from evad_jax.visualization.draw_people import Figure, Style, annotate, between, figures_of


class AnnotatedVideo:
  """Writes every frame that passes and is not lost, with the people who are known by then."""

  def __init__(
    self,
    writer: VideoWriter | None,  # None: the frames pass, and only their times are kept
    classes: Sequence[str],
    style: Style | None = None,
    most_waiting: int | None = None,  # frames
  ):
    """most_waiting: with a source that does not wait, the oldest frames are left out above it."""
    self._writer, self._classes, self._style = writer, classes, style or Style()
    self._most_waiting = most_waiting
    self._waiting: collections.deque[tuple[int, TimedPicture]] = collections.deque()
    self._known: tuple[int, list[Figure]] = (0, [])
    self._seconds: dict[int, float] = {}  # of the frames that no keyframe has passed yet
    self.count = 0  # frames that came
    self.lost = 0  # of them, in the file
    self.left_out = 0  # frames that could not be kept until they were drawn

  def watch(self, pictures: Iterable[TimedPicture]) -> Iterator[Any]:
    """Passes the frames on to the detector, keeping what will be drawn."""
    for timed in pictures:
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
    """When a keyframe that was just found is shown; earlier frames are forgotten with it."""
    found = self._seconds[frame]
    # A copy: the frames may come in from another thread.
    for number in [number for number in list(self._seconds) if number < frame]:
      del self._seconds[number]
    return found

  def add(self, people: People) -> None:
    """Draws the frames up to a keyframe, whose people are known now."""
    figures = figures_of(people, self._classes, self._style)
    start, before = self._known
    while self._waiting and self._waiting[0][0] <= people.frame:
      number, timed = self._waiting.popleft()
      share = (number - start) / (people.frame - start) if people.frame > start else 1.0
      self._draw(timed, between(before, figures, share))
    self._known = (people.frame, figures)

  def finish(self) -> None:
    """Draws what is left with the people known last."""
    while self._waiting:
      self._draw(self._waiting.popleft()[1], self._known[1])

  def _draw(self, timed: TimedPicture, figures: Sequence[Figure]) -> None:
    self._writer.write(annotate(timed.picture.rgb(), figures, self._style), timed.seconds)
