"""The videos of a split that can be prepared, and how much they will give."""

import collections
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep import clip_records, video
from data_prep.annotations import Annotations
from data_prep.clip_records import Boxes, Settings
from data_prep.problems import Problems
from evad_jax.errors import InputError


class Source(NamedTuple):
  """One video to prepare for one split."""

  name: str  # 'Class/video'
  path: Path
  boxes: Boxes
  num_frames: int  # as annotated
  every: int  # step between keyframes, in annotated frames


def find_sources(
  names: list[str],
  videos: dict[str, Path],
  annotations: Annotations,
  every: int,
  problems: Problems,
) -> list[Source]:
  """The videos of a split that can be prepared; the others, and odd boxes, are reported."""
  sources = []
  for name in names:
    annotation, path = annotations.videos.get(name), videos.get(name.rpartition('/')[2])
    if annotation is None:
      problems.report('no annotation', name, 'listed in a split, left out')
    elif path is None:
      problems.report('missing video', name, 'annotated, but no such file; left out')
    else:
      boxes, found = clip_records.normalised_boxes(annotation)
      done = {'box outside the frame': 'clipped', 'box without area': 'dropped'}
      for kind in (kind for kind, count in found.items() if count):
        problems.report(kind, name, f'{found[kind]} {done[kind]}')
      sources.append(Source(name, path, boxes, annotation.num_frames, every))
  return sources


def report_videos_without_annotation(
  videos: dict[str, Path],
  annotations: Annotations,
  classes: tuple[str, ...],
  problems: Problems,
) -> None:
  """Videos of these classes, named v_Class_..., that nobody annotated (UCF101 has 13)."""
  annotated = {name.rpartition('/')[2] for name in annotations.videos}
  for stem in sorted(set(videos) - annotated):
    label = stem.split('_')[1] if stem.count('_') else ''
    if label in classes:
      problems.report('no annotation', f'{label}/{stem}', 'a video without annotation, left out')


def planned_counts(sources: list[Source], settings: Settings) -> collections.Counter:
  """Videos, records, keyframes, boxes and stored frames, if the annotated lengths are right."""
  counts = collections.Counter(videos=len(sources))
  for source in sources:
    keyframes = clip_records.keyframes_of(source.boxes, source.every, source.num_frames)
    runs = clip_records.plan_runs(keyframes, source.num_frames, settings)
    counts['records'] += len(runs)
    counts['keyframes'] += len(keyframes)
    counts['boxes'] += int(np.isin(source.boxes.frames, keyframes).sum())
    counts['frames'] += sum(len(run.frame_numbers) for run in runs)
  return counts


def bytes_per_frame(sources: list[Source], settings: Settings, problems: Problems) -> float:
  """Mean JPEG size over three frames of up to eight videos, spread over the split."""
  sizes = []
  for source in sources[:: math.ceil(len(sources) / 8) or 1]:
    try:
      for number, frame in enumerate(video.decode(source.path)):
        if number % 15 == 0:
          sizes.append(len(clip_records.encode_frame(frame, settings)))
        if number == 30:
          break
    except InputError as error:
      problems.report('undecodable video', source.name, f'left out ({error})')
  return sum(sizes) / max(len(sizes), 1)
