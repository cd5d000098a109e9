"""Video-mAP: average precision of tubes, matched by their overlap in space and time.

`evad_jax/tubes` decides which boxes become tubes; its `rules.py` says which published family each
rule belongs to. Tubes of a class are ranked by score over all videos, equal ones by video name and
start, and matched like boxes (`average_precision`): each looks only at the truth tube of its video
with the largest overlap, without a second choice.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError
from evad_jax.formats.box_table import BoxTable
from evad_jax.metrics.average_precision import (
  AveragePrecision,
  claims_average_precision,
  mean_over_classes,
)
from evad_jax.metrics.frame_map import Actions
from evad_jax.tubes import offline
from evad_jax.tubes.overlap import Tube, tube_iou
from evad_jax.tubes.rules import SCORE_DIGITS, Rule

FIGURES = ('0.2', '0.5', '0.75', '0.5:0.95', '0.1:0.9')


class VideoMap(NamedTuple):
  """The metrics of one linking, with what they were computed from."""

  rule: str
  figures: dict[str, tuple[AveragePrecision, ...]]  # '0.5' or '0.5:0.95' -> one per class
  num_videos: int
  num_truth_tubes: int
  num_tubes: int

  def mean_ap(self, figure: str) -> float:
    """The mean over the classes with ground truth; NaN if there is none."""
    return mean_over_classes(self.figures[figure])


def compute(
  detected: Mapping[str, list[Tube]],
  truth: Mapping[str, list[Tube]],  # of every video that is scored, with or without tubes
  num_classes: int,
  rule: Rule,
  figures: Sequence[str] = FIGURES,
  spatial_only: bool = False,
) -> VideoMap:
  """The metrics of tubes by video; boxes of both in one unit.

  `spatial_only` is for clips trimmed to the action, such as JHMDB's (see `tube_iou`).
  Raises ValueError for detected tubes of a video that `truth` does not have.
  """
  unknown = sorted(set(detected) - set(truth))
  if unknown:
    raise ValueError(f'tubes were detected in {unknown[0]!r}, which has no ground truth.')
  results: dict[str, list[AveragePrecision]] = {figure: [] for figure in figures}
  for label in range(num_classes):
    claims = _claims(detected, truth, label, rule.counts_frames, spatial_only)
    for figure in figures:
      aps = [_average_precision(claims, threshold) for threshold in thresholds(figure)]
      value = float(np.mean([ap.value for ap in aps]))
      results[figure].append(aps[0]._replace(value=value))
  return VideoMap(
    rule=rule.name,
    figures={figure: tuple(values) for figure, values in results.items()},
    num_videos=len(truth),
    num_truth_tubes=sum(map(len, truth.values())),
    num_tubes=sum(map(len, detected.values())),
  )


def thresholds(figure: str) -> list[float]:
  """'0.5' -> [0.5]; '0.5:0.95' -> 0.5, 0.55 to 0.95; '0.1:0.9' -> 0.1, 0.2 to 0.9.

  A range goes in tenths where both ends are tenths, else in twentieths. Raises InputError for
  anything else.
  """
  try:
    ends = [100 * float(end) for end in figure.split(':')]
  except ValueError:
    ends = []
  whole = all(abs(end - round(end)) < 1e-6 for end in ends if np.isfinite(end))
  if len(ends) not in (1, 2) or not whole or not 0 < ends[0] <= ends[-1] <= 100:
    raise InputError(
      f'{figure!r} is not an IoU threshold; write one like 0.5, or a range like 0.5:0.95.'
    )
  low, high = round(ends[0]), round(ends[-1])
  step = 10 if low % 10 == high % 10 == 0 else 5
  return [hundredths / 100 for hundredths in range(low, high + 1, step)]


def link_rows(
  table: BoxTable,  # with indices into `videos`
  videos: Sequence[str],
  rule: Rule,
) -> Iterator[tuple[str, list[Tube]]]:
  """Scored boxes -> the tubes of each video that has rows."""
  for rows in _rows_of_each(table.video):
    some = table.select(rows)
    yield (
      videos[some.video[0]],
      offline.link(some.frame, some.label, some.boxes, some.score, rule),
    )


def link_actions(
  actions: Actions,  # of `frame_map.tables`: one row per box, scored for every class
  places: Sequence[tuple[str, int]],  # video and frame number of every frame of the list
  rule: Rule,
) -> Iterator[tuple[str, list[Tube]]]:
  """The counted boxes of an evaluation -> the tubes of each video that has any.

  Every frame of the videos has to be evaluated, or tubes miss it. Boxes have to be in pixels if the
  rule counts pixels.
  """
  numbers = {name: number for number, name in enumerate(dict.fromkeys(v for v, _ in places))}
  video = np.array([numbers[name] for name, _ in places], np.int64)[actions.frame]
  frame = np.array([number for _, number in places], np.int64)[actions.frame]
  num_classes, names = actions.scores.shape[1], list(numbers)
  for rows in _rows_of_each(video):
    yield (
      names[video[rows[0]]],
      offline.link(
        frames=np.repeat(frame[rows], num_classes),
        labels=np.tile(np.arange(num_classes), len(rows)),
        boxes=np.repeat(actions.boxes[rows], num_classes, axis=0),
        scores=actions.scores[rows].ravel(),
        rule=rule,
      ),
    )


def _rows_of_each(number: np.ndarray) -> list[np.ndarray]:
  """The rows of every number that occurs, in order."""
  order = np.argsort(number, kind='stable')
  groups = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
  return [rows for rows in groups if len(rows)]


class _Claims(NamedTuple):
  """The truth tube that each tube of a class overlaps most, over all videos."""

  scores: np.ndarray  # (N,)
  truth: np.ndarray  # (N,) int64, index of the truth tube; arbitrary where the IoU is 0
  iou: np.ndarray  # (N,)
  num_truth: int


def _claims(
  detected: Mapping[str, list[Tube]],
  truth: Mapping[str, list[Tube]],
  label: int,
  counts_frames: bool,
  spatial_only: bool,
) -> _Claims:
  rows, num_truth = [], 0
  for video, true in sorted(truth.items()):
    true = [tube for tube in true if tube.label == label]
    for tube in detected.get(video, ()):
      if tube.label == label:
        ious = [tube_iou(tube, other, counts_frames, spatial_only) for other in true]
        best = int(np.argmax(ious)) if ious else 0
        score = round(tube.score, SCORE_DIGITS)
        rows.append((score, num_truth + best, ious[best] if ious else 0.0))
    num_truth += len(true)
  scores, claimed, iou = zip(*rows, strict=True) if rows else ((), (), ())
  return _Claims(
    np.array(scores, np.float64), np.array(claimed, np.int64), np.array(iou), num_truth
  )


def _average_precision(claims: _Claims, threshold: float) -> AveragePrecision:
  claimants = np.flatnonzero(claims.iou >= threshold)
  return claims_average_precision(
    claimants, claims.truth[claimants], claims.scores, claims.num_truth
  )
