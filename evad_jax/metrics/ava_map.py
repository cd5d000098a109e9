"""AVA's metric for files: frame-mAP@0.5 over the listed classes and the keyframes not excluded.

The two published variants differ in what counts: every detection (the evaluators that research
code ships), or the 50 highest of each keyframe, after those of unlisted classes are dropped (the
challenge's server). A detection on a keyframe without people is a false positive.
"""

import numpy as np

from evad_jax.errors import InputError
from evad_jax.formats.box_table import NOT_SCORED, BoxTable, Counted
from evad_jax.formats.csv_columns import Lines

NUM_AVA_CLASSES = 80


def select(
  truth: BoxTable,
  detections: BoxTable,
  class_ids: list[int],  # the scored ones, in the order of the results
  excluded: set[tuple[str, int]] = frozenset(),
  max_per_frame: int | None = None,  # None: all
) -> Counted:
  """Selects what the protocol counts of two files, with frames and classes numbered from 0.

  The frames are the keyframes of the ground truth.
  """
  truth_frames, frames, names = _number_frames(truth, detections)
  out = np.array([name in excluded for name in names], bool)
  last = max(*class_ids, truth.label.max(initial=0), detections.label.max(initial=0))
  labels = np.full(last + 1, NOT_SCORED)
  labels[class_ids] = np.arange(len(class_ids))
  scored = detections._replace(frame=frames, label=labels[detections.label], video=None)
  scored = scored.select(~out[frames])
  num_counted, num_listed = len(scored.frame), int((scored.label >= 0).sum())
  if max_per_frame is not None:
    highest = scored.highest_per_frame(max_per_frame)
    scored = scored._replace(label=np.where(highest, scored.label, NOT_SCORED))
  people = truth._replace(frame=truth_frames, label=labels[truth.label], video=None)
  return Counted(
    detections=scored,
    truth=people.select((truth.label > 0) & ~out[truth_frames]),
    num_frames=len(np.unique(truth_frames[~out[truth_frames]])),
    left_out={
      'detections_of_unlisted_classes': num_counted - num_listed,
      'detections_on_excluded_keyframes': len(frames) - num_counted,
      'detections_beyond_the_highest': num_listed - int((scored.label >= 0).sum()),
    },
  )


def check_detections(
  detections: BoxTable, lines: Lines, truth: BoxTable, class_ids: list[int]
) -> None:
  """Raises InputError, naming the line, for a video or a class that cannot belong here.

  A keyframe that the ground truth does not list is fine: it may show nobody. So is a class of AVA
  that is not in the list of scored ones.
  """
  known = set(truth.video.tolist())
  for row, video in enumerate(detections.video.tolist()):
    if video not in known:
      raise InputError(
        f'{lines.place(row)}: video {video!r} is not in the ground truth; give the file that '
        'belongs to these detections.'
      )
  last = max([NUM_AVA_CLASSES, *class_ids])
  unknown = np.flatnonzero(detections.label > last)
  if unknown.size:
    raise InputError(
      f'{lines.place(unknown[0])}: there is no action {detections.label[unknown[0]]}; '
      f'the ids end at {last}.'
    )


def _number_frames(
  truth: BoxTable, detections: BoxTable
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, int]]]:
  """Keyframe numbers of truth rows and detections, and the keyframes they stand for."""
  videos = truth.video.tolist() + detections.video.tolist()
  numbers: dict[str, int] = {}
  video = np.array([numbers.setdefault(name, len(numbers)) for name in videos], np.int64)
  seconds, second = np.unique(np.concatenate([truth.frame, detections.frame]), return_inverse=True)
  keys, frame = np.unique(video * len(seconds) + second, return_inverse=True)
  video_names, second_numbers = list(numbers), seconds.tolist()
  names = [
    (video_names[key // len(seconds)], second_numbers[key % len(seconds)]) for key in keys.tolist()
  ]
  return frame[: len(truth.frame)], frame[len(truth.frame) :], names
