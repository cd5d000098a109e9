"""Annotation files of UCF101-24 and JHMDB, and others like them, as ground truth to score.

A pickle of either family that `data_prep.annotations` knows, the JSON of `data_prep.custom`, or
JSON in ACT's layout, in which the keys of `gttubes` are text.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from evad_jax import text_files
from evad_jax.errors import InputError
from evad_jax.metrics.tube_files import VideoTruth
from evad_jax.tubes.overlap import Tube
from evad_jax.video_lists import Listed


def read(path: Path, split: int = 1) -> VideoTruth:
  """The test videos of a split (from 1), or all videos of a file that has no numbered splits.

  Where a file names its splits, as people's own data do, those of `test` are taken.

  Raises InputError for a file that cannot be read or has another layout, and for a split it lacks.
  """
  is_json = path.suffix.lower() == '.json'
  content = text_files.read_json(path, 'ground truth') if is_json else _load_pickle(path)
  if isinstance(content, Mapping) and 'gttubes' in content:
    return _from_act(path, content, split)
  if is_json and not (isinstance(content, Mapping) and 'videos' in content):
    raise InputError(
      f'{path}: has neither gttubes nor videos; give JSON as `python -m data_prep.custom --help` '
      'describes it, or in the layout of JHMDB-GT.pkl.'
    )
  from data_prep.annotations import read_annotations  # preparation is above evaluation

  annotations = read_annotations(path)
  names = (annotations.splits or {}).get('test', list(annotations.videos))
  videos = {name: annotations.videos[name] for name in names}

  def counted(tubes: Iterable) -> list[Tube]:
    return [
      Tube(tube.label, tube.frames + 1, tube.boxes.astype(np.float64))
      for tube in tubes
      if len(tube.frames)
    ]

  return VideoTruth(
    tubes={name: counted(video.tubes) for name, video in videos.items()},
    num_frames={name: video.num_frames for name, video in videos.items()},
    class_names=annotations.classes,
    sizes={name: (video.height, video.width) for name, video in videos.items()},
    single_boxes={name: counted(video.single_boxes) for name, video in videos.items()},
    empty_frames={name: video.empty_frames + 1 for name, video in videos.items()},
  )


def only(truth: VideoTruth, listed: Listed, source: Path) -> VideoTruth:
  """The truth of the known videos of a list alone. Raises InputError where it has none of them."""
  if not listed.known:
    raise InputError(
      f'{source}: video {listed.others[0]!r} has no ground truth, nor has any other of its '
      f'{len(listed.others)}; give the right list.'
    )
  return truth._replace(tubes={name: truth.tubes[name] for name in listed.known})


def _from_act(path: Path, content: Mapping, split: int) -> VideoTruth:
  try:
    splits = content.get('test_videos')
    if splits is not None and not 1 <= split <= len(splits):
      raise InputError(f'{path}: has {len(splits)} splits; give --split from 1 to {len(splits)}.')
    names = [str(name) for name in (content['gttubes'] if splits is None else splits[split - 1])]
    tubes = {
      name: [
        _tube(path, name, label, rows)
        for label, some in content['gttubes'].get(name, {}).items()
        for rows in some
      ]
      for name in names
    }
    num_frames = {name: int(content['nframes'][name]) for name in names}
    sizes = content.get('resolution', content.get('resolution_hw'))
    if sizes is not None:
      sizes = {name: tuple(int(side) for side in sizes[name]) for name in names}
    return VideoTruth(tubes, num_frames, tuple(str(label) for label in content['labels']), sizes)
  except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
      f'{path}: an annotation has an unexpected form ({error!r}); download the file again.'
    ) from error


def _tube(path: Path, name: str, label: int | str, rows: Sequence) -> Tube:
  rows = np.asarray(rows, np.float64)
  frames, boxes = rows[:, 0].astype(np.int64), rows[:, 1:]
  good = boxes.shape[1] == 4 and np.isfinite(rows).all() and (boxes[:, 2:] >= boxes[:, :2]).all()
  if not good or frames[0] < 1 or (np.diff(frames) <= 0).any():
    raise InputError(
      f'{path}: a tube of {name} is not rows of frame,x1,y1,x2,y2 by rising frame from 1; '
      'download the file again.'
    )
  return Tube(int(label), frames, boxes)


def _load_pickle(path: Path):
  from data_prep.annotations import load_plain_pickle  # preparation is above evaluation

  return load_plain_pickle(path)
