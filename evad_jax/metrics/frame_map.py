"""Frame-mAP and person AP of a full evaluation: start, update with batches, compute.

There are two ways of scoring. `action` is the published one: the proposals whose person score
reaches the threshold (all of a frame's where none does), each with its action scores as they are.
`person_times_action` scores every proposal with the product. Person AP ranks all proposals by
person score against all ground-truth boxes, as one class: next to the mAP, it separates failures to
find people from failures to name what they do.

A state is a value: `update` returns a new one. The order of batches does not matter, because
`compute` sorts the frames as in the list it is given.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from evad_jax import box_pairs
from evad_jax import boxes as box_ops
from evad_jax.box_pairs import Pairs
from evad_jax.errors import InputError
from evad_jax.formats.box_table import highest_per_frame
from evad_jax.metrics.average_precision import (
  AveragePrecision,
  average_precision,
  claims_average_precision,
  mean_over_classes,
)
from evad_jax.structures import Detections, Targets

SCORINGS = ('action', 'person_times_action')
PERSON_THRESHOLD = 0.7


class People(NamedTuple):
  """All proposals."""

  frame: np.ndarray  # (N,) int64, index into the list of frames
  boxes: np.ndarray  # (N, 4) float32, normalised xyxy, unless `tables` was given sizes
  scores: np.ndarray  # (N,) float32, person scores


class Actions(NamedTuple):
  """The proposals whose action scores are kept: all, or those that `action` counts."""

  frame: np.ndarray  # (R,) int64, index into the list of frames
  boxes: np.ndarray  # (R, 4) float32, normalised xyxy
  person_scores: np.ndarray  # (R,) float32
  passing: np.ndarray  # (R,) bool, counted under `action`
  scores: np.ndarray  # (R, A) float32


class Truth(NamedTuple):
  """The ground truth, a row for each person."""

  frame: np.ndarray  # (M,) int64, index into the list of frames
  boxes: np.ndarray  # (M, 4) float32, normalised xyxy
  labels: np.ndarray  # (M, A) bool


class Chunk(NamedTuple):
  """What one batch contributes."""

  frames: tuple[Hashable, ...]  # the keys: an example's number, or (video, frame number)
  people: People
  actions: Actions
  truth: Truth


class State(NamedTuple):
  """Everything an evaluation has seen so far, and how it will be scored."""

  scorings: tuple[str, ...]
  person_threshold: float
  chunks: tuple[Chunk, ...]


class Tables(NamedTuple):
  """All that a state has seen, sorted by frame and scored in one way."""

  people: People
  actions: Actions  # the counted proposals; `scores` as they are ranked
  truth: Truth
  num_frames: int


class FrameMap(NamedTuple):
  """The metrics of one scoring, with what they were computed from."""

  scoring: str
  iou_threshold: float
  mean_ap: float  # over the classes with ground truth; NaN if there is none
  per_class: tuple[AveragePrecision, ...]  # one per class, `value` NaN for a class without truth
  person: AveragePrecision
  num_frames: int
  num_truth_boxes: int  # people, each counted once whatever its number of labels
  num_boxes: int  # detected boxes, each counted once though scored for every class
  classes: tuple[int, ...] | None = None  # those of `per_class`; None: all A in order

  @property
  def num_detections(self) -> int:
    """Scored pairs of box and class, summed over the classes."""
    return sum(result.num_detections for result in self.per_class)


def start(scorings: Sequence[str] = SCORINGS, person_threshold: float = PERSON_THRESHOLD) -> State:
  """An empty state for these scorings, any of which `compute` can then use.

  `action` alone keeps action scores only for the boxes it counts: for AVA, megabytes instead of
  gigabytes.
  """
  unknown = [scoring for scoring in scorings if scoring not in SCORINGS]
  if unknown or not scorings:
    raise InputError(f'scorings must be some of {", ".join(SCORINGS)}, but got {list(scorings)}.')
  return State(tuple(scorings), person_threshold, ())


def update(
  state: State,
  detections: Detections,
  targets: Targets,  # boxes (B, G, 4) in the units of the detections', see `normalise`
  example_mask: np.ndarray,  # (B,) bool, False for filler
  frames: Sequence[Hashable] | np.ndarray,  # B keys; ignored for filler
) -> State:
  """The state with a batch of host arrays added; a batch of filler alone changes nothing.

  Raises InputError for a non-finite detection: the model that made it has diverged.
  """
  keep = np.flatnonzero(example_mask)
  detections = Detections(*(np.asarray(x)[keep] for x in detections))
  targets = Targets(*(np.asarray(x)[keep] for x in targets))
  keys = frames.tolist() if isinstance(frames, np.ndarray) else frames
  keys = tuple(keys[i] for i in keep)
  _check_finite(detections, keys)
  return state._replace(chunks=(*state.chunks, _chunk(state, detections, targets, keys)))


def only(state: State, frames: Iterable[Hashable]) -> State:
  """The state as if no other frames had been evaluated."""
  kept = set(frames)
  return state._replace(chunks=tuple(_only(chunk, kept) for chunk in state.chunks))


def compute(
  state: State,
  expected_frames: Iterable[Hashable],
  scoring: str = 'action',
  iou_threshold: float = 0.5,
  scored_classes: Sequence[int] | None = None,
  max_per_frame: int | None = None,
  sizes: np.ndarray | None = None,
) -> FrameMap:
  """The metrics over exactly `expected_frames`, whose order decides between equal scores.

  `scored_classes` are the indices of those that count: AVA scores 60 of 80. With `max_per_frame`,
  only that many scores of a frame count, the highest over these classes, as on AVA's server. Frames
  without ground truth count: their detections are false positives. `sizes` are those of `tables`.

  Raises ValueError naming the frame where one is missing, was evaluated twice, or was not expected.
  """
  people, actions, truth, num_frames = tables(state, expected_frames, scoring, sizes)
  classes = tuple(range(actions.scores.shape[1]) if scored_classes is None else scored_classes)
  pairs = box_pairs.overlapping_pairs(
    actions.frame, actions.boxes, truth.frame, truth.boxes, iou_threshold
  )
  kept = None
  if max_per_frame is not None:
    kept = np.zeros(actions.scores.shape, bool)
    kept[:, classes] = highest_per_frame(actions.frame, actions.scores[:, classes], max_per_frame)
  per_class = tuple(
    _class_average_precision(action, actions, truth, pairs, kept) for action in classes
  )
  return FrameMap(
    scoring=scoring,
    iou_threshold=iou_threshold,
    mean_ap=mean_over_classes(per_class),
    per_class=per_class,
    person=person_average_precision(people, truth, iou_threshold),
    num_frames=num_frames,
    num_truth_boxes=len(truth.boxes),
    num_boxes=len(actions.boxes),
    classes=None if scored_classes is None else classes,
  )


def tables(
  state: State,
  expected_frames: Iterable[Hashable],
  scoring: str = 'action',
  sizes: np.ndarray | None = None,  # (expected frames, 2) height, width
) -> Tables:
  """What `compute` and the other metrics work on; a frame's number is its index in the list.

  With `sizes`, boxes are in the units of their annotation (`boxes.to_annotated`).

  Raises ValueError as `compute` does.
  """
  if scoring not in state.scorings:
    raise ValueError(f'the state was started for {state.scorings} and cannot give {scoring!r}.')
  expected = list(expected_frames)
  position = _positions(state.chunks, expected)
  people, actions, truth = (
    _join([(chunk.frames, chunk[table]) for chunk in state.chunks], position) for table in (1, 2, 3)
  )
  if sizes is not None:
    people, actions, truth = (
      table._replace(boxes=box_ops.to_annotated(table.boxes, np.asarray(sizes)[table.frame]))
      for table in (people, actions, truth)
    )
  if scoring == 'action':
    actions = Actions(*(column[actions.passing] for column in actions))
  else:
    actions = actions._replace(scores=actions.scores * actions.person_scores[:, None])
  return Tables(people, actions, truth, len(expected))


def person_average_precision(
  people: People, truth: Truth, iou_threshold: float = 0.5
) -> AveragePrecision:
  """All proposals by person score against all ground-truth boxes, whatever their labels."""
  return average_precision(*people, truth.frame, truth.boxes, iou_threshold)


def passing_proposals(person_scores: np.ndarray, threshold: float) -> np.ndarray:
  """(B, P) -> (B, P) bool: those that reach the threshold, or all of a frame where none does."""
  passing = person_scores >= threshold
  return passing | ~passing.any(axis=-1, keepdims=True)


def _check_finite(detections: Detections, keys: tuple[Hashable, ...]) -> None:
  finite = [np.isfinite(x).all(axis=tuple(range(1, x.ndim))) for x in detections]
  bad = np.flatnonzero(~np.all(finite, axis=0))
  if bad.size:
    raise InputError(
      f'the detections of frame {keys[bad[0]]} are NaN or infinite: the model has diverged, '
      'so evaluate an earlier checkpoint or train with a lower learning rate.'
    )


def _class_average_precision(
  action: int, actions: Actions, truth: Truth, pairs: Pairs, kept: np.ndarray | None
) -> AveragePrecision:
  true = truth.labels[:, action]
  pairs = box_pairs.select(pairs, true[pairs.truth])
  scores = actions.scores[:, action]
  if kept is not None:
    pairs = box_pairs.select(pairs, kept[pairs.detection, action])
    place = np.cumsum(kept[:, action]) - 1  # index among the rows kept
    pairs, scores = pairs._replace(detection=place[pairs.detection]), scores[kept[:, action]]
  best = box_pairs.best_of_each(pairs)
  return claims_average_precision(best.detection, best.truth, scores, int(true.sum()))


def _chunk(state: State, detections: Detections, targets: Targets, keys: tuple) -> Chunk:
  passing = passing_proposals(detections.person_scores, state.person_threshold)
  kept = passing if state.scorings == ('action',) else np.ones_like(passing)
  true, everyone = targets.box_mask.astype(bool), np.nonzero(np.ones_like(passing))
  return Chunk(
    frames=keys,
    people=People(everyone[0], detections.boxes[everyone], detections.person_scores[everyone]),
    actions=Actions(
      frame=np.nonzero(kept)[0],
      boxes=detections.boxes[kept],
      person_scores=detections.person_scores[kept],
      passing=passing[kept],
      scores=detections.action_scores[kept],
    ),
    truth=Truth(np.nonzero(true)[0], targets.boxes[true], targets.labels[true] > 0),
  )


def _only(chunk: Chunk, kept: set[Hashable]) -> Chunk:
  stays = np.array([key in kept for key in chunk.frames], bool)
  number = np.cumsum(stays) - 1

  def rows(table: NamedTuple) -> NamedTuple:
    mine = stays[table.frame]
    return type(table)(number[table.frame[mine]], *(column[mine] for column in table[1:]))

  frames = tuple(key for key in chunk.frames if key in kept)
  return Chunk(frames, rows(chunk.people), rows(chunk.actions), rows(chunk.truth))


def _join(parts: list[tuple[tuple, NamedTuple]], position: dict[Hashable, int]) -> NamedTuple:
  """(frame keys, table) of every chunk -> one table, whose `frame` is the expected index.

  Rows are sorted by it, because their order decides between equal scores.
  """
  columns = list(zip(*(table for _, table in parts), strict=True))
  places = [np.array([position[key] for key in keys], np.int64) for keys, _ in parts]
  frame = np.concatenate(
    [place[table.frame] for place, (_, table) in zip(places, parts, strict=True)]
  )
  joined = [frame, *(np.concatenate(column) for column in columns[1:])]
  if (np.diff(frame) < 0).any():
    order = np.argsort(frame, kind='stable')
    joined = [column[order] for column in joined]
  return type(parts[0][1])(*joined)


def _positions(chunks: tuple[Chunk, ...], expected: list[Hashable]) -> dict[Hashable, int]:
  """Key -> index in the expected list; checks that each of them was evaluated once."""
  if not expected:
    raise ValueError('there are no frames to evaluate: the list of expected frames is empty.')
  position = {}
  for key in expected:
    if key in position:
      raise ValueError(f'the list of expected frames names frame {key} twice.')
    position[key] = len(position)
  seen = set()
  for key in (key for chunk in chunks for key in chunk.frames):
    if key in seen:
      raise ValueError(f'frame {key} was evaluated twice; every frame must be evaluated once.')
    if key not in position:
      raise ValueError(f'frame {key} was evaluated, but is not one of the expected frames.')
    seen.add(key)
  missing = [key for key in expected if key not in seen]
  if missing:
    raise ValueError(
      f'frame {missing[0]} was not evaluated ({len(missing)} of {len(expected)} are missing); '
      'every frame must be evaluated once.'
    )
  return position
