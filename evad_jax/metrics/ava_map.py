"""The AVA score of files: frame-mAP@0.5 over the listed classes and the keyframes not excluded.

The two published variants differ in what counts: every detection (the evaluators that research
code ships), or of each keyframe the 50 highest, counted after those of unlisted classes were
dropped (the challenge's server). A detection on a keyframe without people is a false positive.
"""

from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError
from evad_jax.formats import box_rows
from evad_jax.formats.ava_files import AvaRows
from evad_jax.formats.box_rows import NOT_SCORED, ScoredBoxes, TrueBoxes
from evad_jax.formats.csv_columns import Lines
from evad_jax.formats.detections_csv import DetectionTable

NUM_AVA_CLASSES = 80
SERVER_MAX_PER_FRAME = 50


class AvaSet(NamedTuple):
  """Detections and ground truth of the keyframes that count."""

  detections: ScoredBoxes
  truth: TrueBoxes
  num_frames: int  # keyframes of the ground truth
  num_unlisted: int  # detections of classes that are not in the list
  num_excluded: int  # detections on excluded keyframes
  num_beyond: int  # detections of listed classes beyond the highest of their keyframe


def select(
  truth: AvaRows,
  detections: DetectionTable,
  class_ids: list[int],  # the scored ones, in the order of the results
  excluded: set[tuple[str, int]] = frozenset(),
  max_per_frame: int | None = None,  # None: all
) -> AvaSet:
  """What the protocol counts of two files, frames and classes numbered from 0."""
  truth_frames, frames, names = _number_frames(truth, detections)
  out = np.array([name in excluded for name in names], bool)
  last = max(*class_ids, truth.action_ids.max(initial=0), detections.action_ids.max(initial=0))
  labels = np.full(last + 1, NOT_SCORED)
  labels[class_ids] = np.arange(len(class_ids))
  counted = np.flatnonzero(~out[frames])
  scored = ScoredBoxes(
    frame=frames[counted],
    boxes=detections.boxes[counted],
    label=labels[detections.action_ids[counted]],
    score=detections.scores[counted],
  )
  num_listed = int((scored.label >= 0).sum())
  if max_per_frame is not None:
    scored = box_rows.keep_highest_per_frame(scored, max_per_frame)
  people = np.flatnonzero(truth.has_box_mask & ~out[truth_frames])
  return AvaSet(
    detections=scored,
    truth=TrueBoxes(truth_frames[people], truth.boxes[people], labels[truth.action_ids[people]]),
    num_frames=len(np.unique(truth_frames[~out[truth_frames]])),
    num_unlisted=len(counted) - num_listed,
    num_excluded=len(frames) - len(counted),
    num_beyond=num_listed - int((scored.label >= 0).sum()),
  )


def check_detections(
  detections: DetectionTable, lines: Lines, truth: AvaRows, class_ids: list[int]
) -> None:
  """Raises InputError, naming the line, for a video or a class that cannot belong here.

  A keyframe that the ground truth does not list is none of these: nobody may have been on it. Nor
  is a class of AVA that is not in the list of scored ones.
  """
  known = set(truth.videos.tolist())
  for row, video in enumerate(detections.videos.tolist()):
    if video not in known:
      raise InputError(
        f'{lines.place(row)}: video {video!r} is not in the ground truth; give the file that '
        'belongs to these detections.'
      )
  last = max([NUM_AVA_CLASSES, *class_ids])
  unknown = np.flatnonzero(detections.action_ids > last)
  if unknown.size:
    raise InputError(
      f'{lines.place(unknown[0])}: there is no action {detections.action_ids[unknown[0]]}; '
      f'the ids end at {last}.'
    )


def _number_frames(
  truth: AvaRows, detections: DetectionTable
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, int]]]:
  """Keyframe numbers of truth rows and detections, and what the numbers stand for."""
  videos = truth.videos.tolist() + detections.videos.tolist()
  numbers: dict[str, int] = {}
  video = np.array([numbers.setdefault(name, len(numbers)) for name in videos], np.int64)
  seconds, second = np.unique(
    np.concatenate([truth.seconds, detections.timestamps]), return_inverse=True
  )
  keys, frame = np.unique(video * len(seconds) + second, return_inverse=True)
  video_names, second_numbers = list(numbers), seconds.tolist()
  names = [
    (video_names[key // len(seconds)], second_numbers[key % len(seconds)]) for key in keys.tolist()
  ]
  return frame[: len(truth.videos)], frame[len(truth.videos) :], names
