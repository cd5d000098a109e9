"""Turns one annotated video into records: selects and encodes their frames and boxes.

A record holds a run of keyframes of one video and, once each, all frames that their clips need.
Neighbouring clips share most of their frames, so this takes a fraction of the space of one record
per keyframe. A video is decoded once, and only the frames that a record needs are converted. They
wait in memory, or in a file if they are many, until the length of the video is known.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from data_prep.common.boxes import Boxes
from data_prep.common.frame_folder import FrameFolder, ImageFile
from evad_jax.data.clip_sampling import clip_frame_numbers
from evad_jax.data.records import Record
from evad_jax.errors import InputError
from evad_jax.formats.annotation_types import Tube
from evad_jax.video.decode import VideoFile
from evad_jax.video.jpeg import frame_size
from evad_jax.video.shown import Lost, Picture, Report

RUN = 32  # keyframes per record, where keyframes are close
IN_MEMORY = 64 << 20  # bytes of encoded frames of one video; more go to a file
MOST_NAMED = 50  # dropped keyframes listed in a report
UNKNOWN_END = 1 << 40  # more frames than any video has


class Settings(NamedTuple):
  """Settings that determine the frames of a record and their bytes."""

  clip_frames: int = 16
  frame_stride: int = 4
  short_side: int | None = None  # pixels; None keeps the video's own size
  jpeg_quality: int = 95
  keyframes_per_record: int = RUN


class Spread(NamedTuple):
  """The keyframes of a video without annotation: their clips lie inside it."""

  expected: int  # frames of the video by its header, for planning alone; 0 if unknown
  clips: int  # so many, evenly spread; 0: all
  clip_frames: int
  frame_stride: int

  def keyframes(self, num_frames: int) -> np.ndarray:
    """(K,) int64, increasing.

    Of a video shorter than a clip, all its frames; or one, whose record holds the clip that starts
    with the first frame.
    """
    before = self.clip_frames // 2 * self.frame_stride
    last = num_frames - self.clip_frames * self.frame_stride  # start of a clip
    if not self.clips:
      return np.arange(num_frames) if last < 0 else before + np.arange(last + 1)
    if last < 0:
      return np.arange(0, num_frames, self.frame_stride)[: self.clip_frames // 2 + 1][-1:]
    return before + np.unique((2 * np.arange(self.clips) + 1) * (last + 1) // (2 * self.clips))


class Source(NamedTuple):
  """One video to prepare for one split."""

  name: str  # 'Class/video', kept in the records
  frames: VideoFile | FrameFolder
  boxes: Boxes
  keyframes: np.ndarray  # (K,) int64, increasing; those beyond the end are dropped
  num_frames: int  # as annotated; 0 if unknown
  tubes: tuple[Tube, ...] = ()  # boxes in [0, 1]; only where all frames with boxes are keyframes
  size: tuple[int, int] = (1, 1)  # height, width that its annotation's boxes refer to
  every_frame: bool = False  # all frames of the video become keyframes, not only `keyframes`
  spread: Spread | None = None  # chooses keyframes in place of `keyframes`

  def keyframes_until(self, num_frames: int) -> np.ndarray:
    """(K,) int64, all keyframes if the video has that many frames."""
    if self.spread:
      return self.spread.keyframes(num_frames)
    if self.every_frame:
      return np.arange(num_frames)
    return self.keyframes[self.keyframes < num_frames]


class Run(NamedTuple):
  """The plan of one record."""

  keyframes: np.ndarray  # (K,) int64
  frame_numbers: np.ndarray  # (F,) int64


class Stopped(Exception):
  """The work is no longer wanted."""


def plan_runs(keyframes: np.ndarray, num_frames: int, settings: Settings) -> list[Run]:
  """Cuts increasing keyframes into runs and lists the frames that each run needs."""
  starts = range(0, len(keyframes), settings.keyframes_per_record)
  runs = [keyframes[start : start + settings.keyframes_per_record] for start in starts]
  return [Run(mine, needed_frames(mine, num_frames, settings)) for mine in runs]


def needed_frames(keyframes: np.ndarray, num_frames: int, settings: Settings) -> np.ndarray:
  """(F,) the frames of all clips, increasing."""
  return np.unique(_clips(keyframes, num_frames, settings))


def _clips(keyframes: np.ndarray, num_frames: int, settings: Settings) -> np.ndarray:
  """(K, T) frame numbers."""
  return clip_frame_numbers(keyframes, num_frames, settings.clip_frames, settings.frame_stride)


class FrameStore(contextlib.AbstractContextManager):
  """Encoded frames of one size, by number; a context manager, which discards them at its end."""

  def __init__(self, directory: str | os.PathLike, settings: Settings):
    """directory: for the temporary file, which has no name and vanishes with the process."""
    self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=directory)  # noqa: SIM115
    self._settings = settings
    self._spans: dict[int, tuple[int, int]] = {}
    self._last: tuple[Picture | ImageFile | Lost | None, tuple[int, int]] = (None, (0, 0))
    self.size: tuple[int, int] | None = None  # height and width, pixels

  def add(self, number: int, frame: Picture | ImageFile | Lost) -> None:
    """Encodes and stores a frame; one that stays on the screen is stored once.

    Raises:
      InputError: it cannot be read, or differs in size from the first.
    """
    if frame is not self._last[0]:
      data = frame.jpeg(self._settings.short_side, self._settings.jpeg_quality)
      size = frame_size(data)
      self.size = self.size or size
      if size != self.size:
        was = f'{self.size[0]} x {self.size[1]}'
        raise InputError(f'frame {number} is {size[0]} x {size[1]}, the first is {was}')
      self._last = frame, (self._file.seek(0, os.SEEK_END), len(data))
      self._file.write(data)
    self._spans[number] = self._last[1]

  def __contains__(self, number: int) -> bool:
    return int(number) in self._spans

  def __getitem__(self, number: int) -> bytes:
    start, length = self._spans[int(number)]
    self._file.seek(start)
    return self._file.read(length)

  def __exit__(self, *exception) -> None:
    self._file.close()


def video_records(
  source: Source,
  settings: Settings,
  directory: str | os.PathLike,
  report: Report,
  stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
  """Decodes a video and yields its records, in order.

  Args:
    source: the video.
    settings: of the records.
    directory: where frames wait in a file if they are many.
    report: called with kind and detail of each problem; an undecodable video yields no record.
    stopped: called at every frame; whether to give up.

  Raises:
    Stopped: if `stopped` said so.
  """
  with FrameStore(directory, settings) as store:
    try:
      if source.spread and source.spread.clips:
        source = _with_keyframes(source, stopped)
      num_frames, faults = _fill(store, source, settings, report, stopped)
    except InputError as error:
      report('undecodable video', f'left out ({error})')
      return
    if not num_frames:
      report('undecodable video', f'left out ({source.frames.path}: holds no frame)')
      return
    _report_length(source, num_frames, report)
    keyframes = _usable_keyframes(source, num_frames, store, settings, faults, report)
    for run in plan_runs(keyframes, num_frames, settings):
      head = (source.name, source.frames.fps(), num_frames, *store.size)
      yield _record(head, run, store, source.boxes)


def _with_keyframes(source: Source, stopped: Callable[[], bool]) -> Source:
  """Counts the frames by decoding, so that only those of a few clips are encoded and stored."""
  num_frames = 0
  for _ in source.frames.frames():
    num_frames += 1
    if stopped():
      raise Stopped
  return source._replace(keyframes=source.spread.keyframes(num_frames), spread=None)


def _fill(
  store: FrameStore, source: Source, settings: Settings, report: Report, stopped
) -> tuple[int, list[str]]:
  """Stores every frame that a clip needs, whatever the length of the video.

  Returns:
    The number of frames, and what is wrong with those that could not be read.
  """
  needed = set(needed_frames(source.keyframes, UNKNOWN_END, settings).tolist())
  if source.every_frame or source.spread:
    needed = range(UNKNOWN_END)
  number, frame, faults = -1, None, []
  for number, frame in enumerate(source.frames.frames(report)):
    if stopped():
      raise Stopped
    if number in needed:
      faults += _add(store, number, frame)
  if frame is not None and number not in needed:  # clips repeat the last frame
    faults += _add(store, number, frame)
  return number + 1, faults


def _add(store: FrameStore, number: int, frame: Picture | ImageFile | Lost) -> list[str]:
  try:
    store.add(number, frame)
  except InputError as error:
    return [str(error)]
  return []


def _report_length(source: Source, num_frames: int, report: Report) -> None:
  if source.num_frames not in (0, num_frames):
    detail = f'expected {source.num_frames}, decoded {num_frames}; the latter is used'
    report('other number of frames', detail)
  boxes = int((source.boxes.frames >= num_frames).sum())
  keyframes = int((source.keyframes >= num_frames).sum())
  if boxes or keyframes:
    detail = f'{boxes} boxes dropped, {keyframes} keyframes left out'
    report('annotation beyond the end', detail)


def _usable_keyframes(
  source: Source,
  num_frames: int,
  store: FrameStore,
  settings: Settings,
  faults: list[str],
  report: Report,
) -> np.ndarray:
  """(K,) the keyframes that exist and whose clips are complete."""
  existing = source.keyframes_until(num_frames)
  clips = _clips(existing, num_frames, settings)
  whole = [all(number in store for number in clip.tolist()) for clip in clips]
  if faults:
    gone = existing[~np.array(whole, bool)].tolist()
    named = ', '.join(map(str, gone[:MOST_NAMED])) + ', ...' * (len(gone) > MOST_NAMED)
    lost = f'{len(faults)} frames, and {len(gone)} keyframes whose clips need them ({named})'
    report('unreadable frame', f'{lost}, left out; the first: {faults[0]}')
  if not any(whole):
    report('no usable keyframe', 'left out')
  return existing[np.array(whole, bool)]


def _record(head: tuple, run: Run, store: FrameStore, boxes: Boxes) -> Record:
  mine = np.isin(boxes.frames, run.keyframes)
  return Record(
    *head,
    frames=[store[number] for number in run.frame_numbers],
    frame_numbers=run.frame_numbers,
    keyframes=run.keyframes,
    boxes=boxes.boxes[mine],
    box_keyframe=np.searchsorted(run.keyframes, boxes.frames[mine]),
    labels=boxes.labels[mine],
  )
