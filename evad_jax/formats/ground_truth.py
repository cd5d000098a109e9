"""Annotation files of UCF101-24 and JHMDB, and others like them, as ground truth to score."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evad_jax.errors import InputError
from evad_jax.formats.annotation_types import Annotations
from evad_jax.formats.annotations import read_annotations
from evad_jax.formats.tube_csv import VideoTruth
from evad_jax.formats.video_lists import Listed
from evad_jax.tubes.overlap import Tube


def read(path: Path, split: int = 1) -> VideoTruth:
  """The test videos of a split (from 1), or all videos of a file without numbered splits.

  The file may be any that preparation reads. If it names its splits, as your own data may, the
  videos of `test` are taken.

  Raises InputError for a file that cannot be read or has another layout, for a split it lacks, and
  for a box that ends before it starts.
  """
  annotations = read_annotations(path)
  names = _test_videos(annotations, path, split)
  missing = [name for name in names if name not in annotations.videos]
  if missing:
    raise InputError(f'{path}: has no annotation of {missing[0]!r}, which is in its split {split}.')
  videos = {name: annotations.videos[name] for name in names}

  def counted(name: str, tubes: Iterable) -> list[Tube]:
    return [_tube(path, name, tube) for tube in tubes if len(tube.frames)]

  return VideoTruth(
    tubes={name: counted(name, video.tubes) for name, video in videos.items()},
    num_frames={name: video.num_frames for name, video in videos.items()},
    class_names=annotations.classes,
    sizes={name: (video.height, video.width) for name, video in videos.items()},
    single_boxes={name: counted(name, video.single_boxes) for name, video in videos.items()},
    empty_frames={name: video.empty_frames + 1 for name, video in videos.items()},
  )


def only(truth: VideoTruth, listed: Listed, source: Path) -> VideoTruth:
  """The truth of the known videos of a list alone. Raises InputError if it has none of them."""
  if not listed.known:
    raise InputError(
      f'{source}: video {listed.others[0]!r} has no ground truth, nor has any other of its '
      f'{len(listed.others)}; give the right list.'
    )
  return truth._replace(tubes={name: truth.tubes[name] for name in listed.known})


def _test_videos(annotations: Annotations, path: Path, split: int) -> Sequence[str]:
  if annotations.splits is not None:
    return annotations.splits.get('test', list(annotations.videos))
  if annotations.test_videos is None:
    return list(annotations.videos)
  count = len(annotations.test_videos)
  if not 1 <= split <= count:
    raise InputError(f'{path}: has {count} splits; give --split from 1 to {count}.')
  return annotations.test_videos[split - 1]


def _tube(path: Path, name: str, tube: Any) -> Tube:
  boxes = tube.boxes.astype(np.float64)
  if (boxes[:, 2:] < boxes[:, :2]).any():
    raise InputError(
      f'{path}: a box of {name} ends before it starts; correct it, or download the file again.'
    )
  return Tube(tube.label, tube.frames + 1, boxes)
