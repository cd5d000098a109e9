"""Detects people in a video as it arrives, in bounded memory however long it is.

The state is explicit: the frames that the next clips need (`video.clip_stream`), the people who can
still be continued (`person_tracks`), and how fast each keep rate is (`keep_rate_choice`). None of
it grows with the video. Files and live streams pass through the same functions. A file waits for
its detections; a live stream does not: when they are late, the oldest waiting keyframes are
dropped, but never a frame of a clip that is processed.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from evad_jax.data import augment
from evad_jax.errors import InputError
from evad_jax.inference import keep_rate_choice, person_tracks
from evad_jax.inference.drop_oldest import DropOldest
from evad_jax.inference.person_tracks import People
from evad_jax.structures import Detections
from evad_jax.tubes import online
from evad_jax.video import clip_stream

KeepRate = float | tuple[float, ...]


class RunsClips(Protocol):
  """What a stream needs of a detector; `inference.detector.Detector` has it."""

  model: Any
  clip_frames: int
  frame_stride: int

  def picture(self, height: int, width: int) -> tuple[augment.Resize, tuple[int, int]]:
    """How a frame is resized, and the canvas (H, W) that holds it."""

  def run(self, clips: np.ndarray, sizes: np.ndarray, keep_rate: KeepRate) -> Detections:
    """Detections of clips that lie on their canvas."""


class Settings(NamedTuple):
  """How a video is processed."""

  keyframe_stride: int = 4  # frames between keyframes
  batch_size: int = 1  # keyframes per call; more raise throughput and latency
  person_threshold: float = 0.7  # lower scores are dropped
  live: bool = False  # the source does not wait: drop the oldest keyframes when late
  keep_rates: tuple[float, ...] = ()  # to choose from, to stay within ...
  latency_budget: float | None = None  # ... this many seconds per call; None: the detector's rate
  name: str = 'the video'  # for messages


class State(NamedTuple):
  """Everything that a stream remembers."""

  clips: clip_stream.State
  people: online.State
  choice: keep_rate_choice.Choice | None  # None without a budget


class Arrived(NamedTuple):
  """A clip, and when its last frame arrived."""

  clip: clip_stream.Clip
  seconds: float  # of time.perf_counter()


class Stream:
  """Iterates over the `People` of the keyframes; made by `Detector.stream`.

  During iteration, `keep_rate` is the rate of the last call, `latencies` are the seconds from the
  last frame of a clip to its people, and `dropped` counts the skipped keyframes. Iterating again
  starts over, if the frames allow it; these values then belong to the latest pass.
  """

  def __init__(self, detector: RunsClips, frames: Iterable[Any], settings: Settings):
    """frames: (H, W, 3) uint8 RGB arrays, or objects whose rgb() returns one on demand."""
    self.detector, self.settings, self._frames = detector, settings, frames
    check(settings)
    self._pass, self._begun = _Pass(detector, settings), False

  @property
  def state(self) -> State:
    """The current state."""
    return State(self._pass.clips, self._pass.people, self._pass.choice)

  @property
  def keep_rate(self) -> KeepRate:
    """The keep rate of the last call."""
    return self._pass.keep_rate

  @property
  def latencies(self) -> 'Latencies':
    """Seconds from the last frame of a clip to its people."""
    return self._pass.latencies

  @property
  def model_seconds(self) -> float:
    """Seconds spent in calls of the detector, without compilation."""
    return self._pass.model_seconds

  @property
  def dropped(self) -> int:
    """Keyframes skipped because they were late."""
    return self._pass.waiting.dropped if self._pass.waiting else 0

  def __iter__(self) -> Iterator[People]:
    """Yields the people of every keyframe in order, from the first frame on.

    Raises InputError for frames that cannot be used or come from an iterator already begun.
    """
    frames = iter(self._frames)
    if frames is self._frames and self._begun:
      raise InputError(
        'The frames of this stream come from an iterator that has already been read; give a list '
        'of frames, or make another stream.'
      )
    self._begun, self._pass = True, _Pass(self.detector, self.settings)
    return self._pass.run(frames)


class _Pass:
  """One pass over the frames: everything that changes during it."""

  def __init__(self, detector: RunsClips, settings: Settings):
    self.detector, self.settings = detector, settings
    self._plan = clip_stream.Plan(
      detector.clip_frames, detector.frame_stride, settings.keyframe_stride
    )
    self._plan.check()
    self._shape: tuple[int, int] | None = None  # of the first frame, height and width
    self._resize: augment.Resize | None = None
    self._canvas = (0, 0)
    self.waiting: DropOldest | None = None
    # Separate, because a live stream cuts clips in one thread and tracks people in another.
    self.clips, self.people = clip_stream.start(), person_tracks.start()
    self.choice: keep_rate_choice.Choice | None = None
    self.keep_rate: KeepRate = detector.model.keep_rate
    self.latencies = Latencies()
    self.model_seconds = 0.0

  def run(self, frames: Iterator[Any]) -> Iterator[People]:
    """Yields the people of every keyframe."""
    first = next(frames, None)
    if first is None:
      raise InputError(f'There is no picture in {self.settings.name}; give another one.')
    first = _pixels(first)
    self._prepare(first)
    arrived: Iterable[Arrived] = self._arrivals(itertools.chain([first], frames))
    if self.settings.live:
      # Only the newest keyframes wait, as many as one call takes.
      arrived = self.waiting = DropOldest(arrived, self.settings.batch_size)
    try:
      for batch in self._batches(arrived):
        yield from self._look(batch)
    finally:
      if self.waiting:
        self.waiting.stop()

  def _prepare(self, frame: Any) -> None:
    """Compiles for the size of the video up front; with a budget, also measures."""
    placed = self._place(frame)
    shape = (self.settings.batch_size, self.detector.clip_frames, *placed.shape)
    clips, sizes = np.broadcast_to(placed, shape), self._sizes()
    rates = self.settings.keep_rates or (self.keep_rate,)
    seconds = {rate: self._measure(clips, sizes, rate) for rate in rates}
    if self.settings.latency_budget is not None:
      self.choice = keep_rate_choice.start(seconds)

  def _measure(self, clips: np.ndarray, sizes: np.ndarray, rate: KeepRate) -> float:
    self.detector.run(clips, sizes, rate)  # compiles
    if self.settings.latency_budget is None:
      return 0.0
    start = time.perf_counter()
    self.detector.run(clips, sizes, rate)
    return time.perf_counter() - start

  def _sizes(self) -> np.ndarray:
    """(B, 2) height and width of the picture inside the canvas."""
    return np.tile(np.array(self._resize[1:], np.int32), (self.settings.batch_size, 1))

  def _batches(self, arrived: Iterable[Arrived]) -> Iterator[list[Arrived]]:
    """Groups clips into calls; the last is smaller, also where the video breaks off."""
    batch: list[Arrived] = []
    try:
      for item in arrived:
        batch.append(item)
        if len(batch) == self.settings.batch_size:
          yield batch
          batch = []
    except InputError:
      if batch:
        yield batch
      raise
    if batch:
      yield batch

  def _arrivals(self, frames: Iterable[Any]) -> Iterator[Arrived]:
    """Yields clips as soon as they are complete."""
    for frame in frames:
      self.clips, complete = clip_stream.push(self.clips, frame, self._plan, self._place)
      for clip in complete:
        yield Arrived(clip, time.perf_counter())
    for clip in clip_stream.finish(self.clips, self._plan, self._place):
      yield Arrived(clip, time.perf_counter())

  def _place(self, frame: Any) -> np.ndarray:
    """A frame as it arrives -> (H, W, 3) uint8 on the canvas of the video."""
    frame = _pixels(frame)
    if self._shape is None:
      self._shape = frame.shape[:2]
      self._resize, self._canvas = self.detector.picture(*self._shape)
    if frame.shape[:2] != self._shape:
      raise InputError(
        f'Frame {self.clips.count} of {self.settings.name} is {frame.shape[0]} x {frame.shape[1]} '
        f'(height x width) and those before it {self._shape[0]} x {self._shape[1]}; cut the video '
        'where its size changes.'
      )
    placed = np.zeros((*self._canvas, 3), np.uint8)
    augment.draw_frame(frame, self._resize, False, placed)
    return placed

  def _look(self, batch: list[Arrived]) -> Iterator[People]:
    """Calls the detector once and yields the people of its keyframes."""
    # The last batch of a file is padded, so that it needs no compiled program of its own.
    filled = batch + [batch[-1]] * (self.settings.batch_size - len(batch))
    clips = np.stack([np.stack(item.clip.frames) for item in filled])
    if self.choice is not None:
      self.keep_rate = keep_rate_choice.choose(self.choice, self.settings.latency_budget)
    start = time.perf_counter()
    found = self.detector.run(clips, self._sizes(), self.keep_rate)
    seconds = time.perf_counter() - start
    self.model_seconds += seconds
    if self.choice is not None:
      self.choice = keep_rate_choice.observe(self.choice, self.keep_rate, seconds)
    for place, item in enumerate(batch):
      self.people, present = person_tracks.follow(
        self.people,
        Detections(*(x[place] for x in found)),
        item.clip.keyframe,
        self.settings.keyframe_stride,
        self.settings.person_threshold,
      )
      self.latencies.add(time.perf_counter() - item.seconds)
      yield present


def _pixels(frame: Any) -> np.ndarray:
  """(H, W, 3) uint8 from an array, or from an object whose rgb() returns one."""
  frame = frame.rgb() if hasattr(frame, 'rgb') else np.asarray(frame)
  if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
    raise InputError(
      f'A frame of the video is {frame.dtype} of shape {frame.shape}; give uint8 RGB of shape '
      '(height, width, 3).'
    )
  return frame


class Latencies:
  """Count, mean and maximum of the latencies of a stream, in seconds."""

  def __init__(self):
    self.count, self.total, self.largest = 0, 0.0, 0.0

  def add(self, seconds: float) -> None:
    """Adds one latency."""
    self.count += 1
    self.total += seconds
    self.largest = max(self.largest, seconds)

  def mean(self) -> float:
    """The mean; 0 before the first."""
    return self.total / max(self.count, 1)


def check(settings: Settings) -> None:
  """Raises InputError for invalid settings."""
  if settings.keyframe_stride < 1:
    raise InputError(f'keyframe_stride={settings.keyframe_stride} must be 1 or more.')
  if settings.batch_size < 1:
    raise InputError(f'batch_size={settings.batch_size} must be 1 or more.')
  if not 0 <= settings.person_threshold <= 1:
    raise InputError(f'person_threshold={settings.person_threshold} must be from 0 to 1.')
  if (settings.latency_budget is None) != (not settings.keep_rates):
    raise InputError(
      'A latency budget needs keep rates to choose from, and keep rates need a budget: give both '
      'latency_budget and keep_rates, or neither.'
    )
  for rate in settings.keep_rates:
    if not 0 < rate <= 1:
      raise InputError(f'keep_rates={settings.keep_rates} must all be in (0, 1].')
  if settings.latency_budget is not None and not settings.latency_budget > 0:
    raise InputError(f'latency_budget={settings.latency_budget} must be above 0 seconds.')
