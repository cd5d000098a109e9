"""The videos of a split that can be prepared, and how much data they will yield."""

import collections
import functools
import itertools
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.common import clip_records, frame_folder
from data_prep.common.boxes import Boxes, gather_boxes
from data_prep.common.clip_records import Settings, Source
from data_prep.common.frame_folder import FrameFolder
from evad_jax import boxes as box_ops
from evad_jax.errors import InputError
from evad_jax.files import storage
from evad_jax.formats import video_lists
from evad_jax.formats.annotation_types import Annotations, Tube, VideoAnnotation
from evad_jax.formats.problems import Problems
from evad_jax.video import decode
from evad_jax.video.decode import VideoFile
from evad_jax.video.shown import Lost

Frames = VideoFile | FrameFolder


OUTSIDE = 'path outside'  # a kind of problem: a name that leaves the directory of the videos


class Found(NamedTuple):
  """Where the frames of videos are; missing videos are left out."""

  frames: Mapping[str, Frames]
  looked_for: Callable[[str], str]  # name of a video -> description of what was searched for

  def report_missing(self, name: str, problems: Problems) -> None:
    """Reports a missing video, unless it was not searched for."""
    if name in problems.names(OUTSIDE):
      return
    detail = f'annotated, but there is no {self.looked_for(name)}; left out'
    problems.report('missing video', name, detail)


def find_frames(
  names: list[str], videos: str | None, frames: str | None, rate: float = 0.0
) -> Found:
  """Finds the frames of the named videos.

  Args:
    names: 'Class/video', or 'video'.
    videos: directory of video files, searched recursively; or None, and
    frames: directory of frame folders, `Class/video/` or `video/`.
    rate: frames per second of the folders, 0 if unknown.

  Raises:
    InputError: no such directory, or a name that leaves it.
  """
  if videos is not None:
    files = decode.find_videos(videos)
    paths = {name: files.get(decode.stem_of(name)) for name in names}
    found = {name: VideoFile(path) for name, path in paths.items() if path is not None}
    return Found(found, functools.partial(file_below, videos))
  root = Path(frames)
  if not root.is_dir():
    raise InputError(f'{root}: no such directory; give the directory that holds the frame folders')
  found = {}
  for name in names:
    for short in dict.fromkeys((name, name.rpartition('/')[2])):
      folder = frame_folder.find_folder(storage.below(root, short), rate)
      if folder is not None:
        found.setdefault(name, folder)
  return Found(found, lambda name: f'folder {root / name} of numbered pictures')


def file_below(directory: str | os.PathLike, name: str) -> str:
  """Describes which file is searched for a video."""
  return f'{name.rpartition("/")[2]}{", ".join(video_lists.VIDEO_SUFFIXES)} below {directory}'


def find_sources(
  names: list[str],
  found: Found,
  annotations: Annotations,
  num_classes: int,
  problems: Problems,
  *,
  every: int = 1,
  keep_empty: bool = False,
  every_frame: bool = False,
) -> list[Source]:
  """The videos of a split that can be prepared; reports the others, and odd boxes.

  Args:
    names: of the split's videos.
    found: where they are.
    annotations: of them, and possibly of others.
    num_classes: A.
    problems: receives what is odd.
    every: every n-th frame with boxes is a keyframe.
    keep_empty: whether frames annotated as empty are keyframes too.
    every_frame: whether all frames are keyframes, so that video-mAP can be computed.
  """
  sources = []
  for name in names:
    if name not in annotations.videos:
      problems.report('no annotation', name, 'listed in a split, left out')
    elif name not in found.frames:
      found.report_missing(name, problems)
    else:
      annotation, frames = annotations.videos[name], found.frames[name]
      size = _size_of(name, annotation, frames, problems)
      if size is None:
        continue
      boxes = _boxes_of(name, annotation, size, num_classes, problems)
      tubes = tubes_in(annotation, size, num_classes) if every == 1 else ()
      keyframes = np.unique(boxes.frames)[::every]
      source = Source(
        name, frames, boxes, keyframes, annotation.num_frames, tubes, size, every_frame
      )
      sources += with_empty_keyframes(source, annotation.empty_frames, keep_empty, problems)
  return sources


def with_empty_keyframes(
  source: Source, looked_at: np.ndarray, keep: bool, problems: Problems
) -> list[Source]:
  """Adds or leaves out annotated frames without a box.

  Args:
    source: with the keyframes that have boxes.
    looked_at: (n,) numbers of annotated frames; only those without a box matter.
    keep: whether they become keyframes too, as evaluation requires.
    problems: receives how many they are.

  Returns:
    The source, or nothing if it has no keyframe, which is reported.
  """
  empty = np.setdiff1d(looked_at, source.boxes.frames)
  if len(empty):
    done = 'evaluated without truth' if keep else 'left out'
    problems.report('empty keyframe', source.name, f'{len(empty)} without a box: {done}')
  if keep:
    source = source._replace(keyframes=np.union1d(source.keyframes, empty))
  if not len(source.keyframes):
    problems.report('no usable box', source.name, 'left out')
    return []
  return [source]


def _size_of(
  name: str, annotation: VideoAnnotation, frames: Frames, problems: Problems
) -> tuple[int, int] | None:
  """Height and width that boxes refer to; None if only an unreadable video could give them."""
  size = annotation.height, annotation.width
  try:
    return size if all(size) else size_of(frames)
  except InputError as error:
    problems.report('undecodable video', name, f'left out ({error})')
    return None


def tubes_in(
  annotation: VideoAnnotation, size: tuple[int, int], num_classes: int
) -> tuple[Tube, ...]:
  """The tubes in the form of boxes: normalised, inside the frame, with area, of known classes."""
  tubes = []
  for tube in annotation.tubes:
    boxes = np.clip(box_ops.normalise(tube.boxes.astype(np.float32), size), 0, 1)
    real = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    if real.any() and 0 <= tube.label < num_classes:
      tubes.append(Tube(tube.label, tube.frames[real], boxes[real]))
  return tuple(tubes)


def _boxes_of(
  name: str,
  annotation: VideoAnnotation,
  size: tuple[int, int],
  num_classes: int,
  problems: Problems,
) -> Boxes:
  """The normalised boxes of a video; reports what is wrong with them."""
  tubes = [*annotation.tubes, *annotation.single_boxes]
  rows = (
    np.concatenate([np.zeros(0, np.int64), *(tube.frames for tube in tubes)]),
    np.concatenate(
      [np.zeros((0, 4), np.float32), *(tube.boxes for tube in tubes)],
      dtype=np.float32,
      casting='same_kind',
    ),
    np.concatenate([np.zeros(0, np.int64), *(np.full(len(t.frames), t.label) for t in tubes)]),
  )
  boxes, found = gather_boxes(rows[0], box_ops.normalise(rows[1], size), rows[2], num_classes)
  for kind, detail in found.items():
    problems.report(kind, name, detail)
  return boxes


def size_of(frames: Frames) -> tuple[int, int]:
  """Height and width of a video's first readable frame, in the file's own pixels.

  Boxes are fractions of these. Raises InputError if there is no frame.
  """
  for frame in frames.frames():
    if not isinstance(frame, Lost):
      return frame.size
  raise InputError(f'{frames.path}: holds no frame')


def planned_frames(source: Source, settings: Settings) -> int:
  """Number of frames that its records will store, if the annotated length is right."""
  end = _planned_end(source)
  runs = clip_records.plan_runs(source.keyframes_until(end), end, settings)
  return sum(len(run.frame_numbers) for run in runs)


def _planned_end(source: Source) -> int:
  """Number of frames of the video, as far as annotation or header show."""
  if source.spread:
    return source.spread.expected
  return max(source.num_frames, int(source.keyframes[-1]) + 1)


def planned_counts(sources: list[Source], settings: Settings) -> collections.Counter:
  """Videos, records, keyframes, boxes and stored frames, if the annotated lengths are right."""
  counts = collections.Counter(videos=len(sources))
  for source in sources:
    keyframes = source.keyframes_until(_planned_end(source))
    counts['records'] += math.ceil(len(keyframes) / settings.keyframes_per_record)
    counts['keyframes'] += len(keyframes)
    counts['boxes'] += int(np.isin(source.boxes.frames, source.keyframes).sum())
    counts['frames'] += planned_frames(source, settings)
  return counts


def bytes_per_frame(sources: list[Source], settings: Settings, problems: Problems) -> float:
  """Mean JPEG size over three frames of up to eight videos, spread over the split."""
  sizes = []
  for source in sources[:: math.ceil(len(sources) / 8) or 1]:
    try:
      for frame in itertools.islice(source.frames.frames(), 0, 31, 15):
        sizes.append(len(frame.jpeg(settings.short_side, settings.jpeg_quality)))
    except InputError as error:
      problems.report('undecodable video', source.name, f'left out ({error})')
  return sum(sizes) / max(len(sizes), 1)
