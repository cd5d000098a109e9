"""Online linking, one step per frame: for streams, and for the greedy rules on files.

    state = start(RULES['greedy'])
    for frame, boxes, scores in stream:
      state, links = step(state, frame, boxes, scores)

`links.ids` gives the tube of every box. Ids are never reused. Memory does not grow with the stream:
for each tube that can still be continued, only the last box is kept.
"""

from typing import NamedTuple

import numpy as np

from evad_jax import boxes as box_ops
from evad_jax.tubes.rules import SCORE_DIGITS, Rule
from evad_jax.tubes.suppression import suppress


class Track(NamedTuple):
  """A tube that can still be continued."""

  id: int
  frame: int  # of its last box
  box: np.ndarray  # (4,) float64 xyxy
  score_sum: float  # of all its boxes
  num_boxes: int

  def with_box(self, frame: int, box: np.ndarray, score: float) -> 'Track':
    """The same tube, continued by one box."""
    return Track(self.id, frame, box, self.score_sum + score, self.num_boxes + 1)


class State(NamedTuple):
  """State of the linking of one class of one video."""

  rule: Rule
  frame: int  # the last one seen; -1 before the first
  next_id: int
  tracks: tuple[Track, ...]  # by id; at most max_boxes * (max_missing + 1) of the rule


class Links(NamedTuple):
  """The links of one frame."""

  ids: np.ndarray  # (n,) int64, the tube of every box; -1 for suppressed ones
  scores: np.ndarray  # (n,) float64, lowered by soft suppression
  ended: tuple[int, ...]  # tubes that can no longer be continued


def start(rule: Rule) -> State:
  """The state before the first frame. Raises ValueError for a rule that looks ahead."""
  if rule.look_ahead:
    raise ValueError(f'the rule {rule.name!r} looks ahead, so it cannot link frame by frame.')
  return State(rule, -1, 0, ())


def step(
  state: State,
  frame: int,  # above the last one; skipped frames had no boxes
  boxes: np.ndarray,  # (n, 4) xyxy, in pixels if the rule has an extra pixel
  scores: np.ndarray,  # (n,)
) -> tuple[State, Links]:
  """Links the boxes of the next frame, possibly none.

  The tubes, in falling mean score (for ties, the oldest first), each take the highest-scored free
  box that overlaps their last one enough. If the rule links by overlap, the tube and the box that
  overlap most are joined first. Remaining boxes start tubes.
  """
  if frame <= state.frame:
    raise ValueError(f'frames must rise, but {frame} came after {state.frame}.')
  rule = state.rule
  rows, kept_scores = suppress(np.zeros(len(scores), np.int64), boxes, scores, rule)
  kept = np.asarray(boxes, np.float64)[rows]
  alive = [track for track in state.tracks if frame - track.frame <= rule.max_missing + 1]
  chosen = _choose(alive, kept, rule)
  taken = set(chosen.values())
  starting = [place for place in range(len(rows)) if place not in taken]
  new = [Track(state.next_id + i, frame, kept[0], 0.0, 0) for i in range(len(starting))]
  owners = {place: track for track, place in zip(new, starting, strict=True)}
  owners |= {place: alive[number] for number, place in chosen.items()}
  continued = {
    owner.id: owner.with_box(frame, kept[place], float(kept_scores[place]))
    for place, owner in owners.items()
  }
  tracks = [continued.get(track.id, track) for track in (*alive, *new)]
  tracks = tuple(track for track in tracks if frame - track.frame <= rule.max_missing)
  ids, new_scores = np.full(len(scores), -1), np.array(scores, np.float64)
  for place, row in enumerate(rows):
    ids[row], new_scores[row] = owners[place].id, kept_scores[place]
  living = {track.id for track in tracks}
  ended = tuple(track.id for track in state.tracks if track.id not in living)
  return State(rule, frame, state.next_id + len(new), tracks), Links(ids, new_scores, ended)


def _choose(tracks: list[Track], boxes: np.ndarray, rule: Rule) -> dict[int, int]:
  """Index of a track -> index of the box that it takes, among boxes in falling score."""
  if not tracks or not len(boxes):
    return {}
  iou = box_ops.pairwise_iou(np.stack([track.box for track in tracks]), boxes)
  if rule.by_overlap:
    return _nearest_first(iou, rule.link_iou)
  means = [round(track.score_sum / track.num_boxes, SCORE_DIGITS) for track in tracks]
  near = iou >= rule.link_iou
  free, chosen = list(range(len(boxes))), {}
  for number in sorted(range(len(tracks)), key=lambda number: -means[number]):
    place = next((place for place in free if near[number, place]), None)
    if place is not None:
      free.remove(place)
      chosen[number] = place
  return chosen


def _nearest_first(iou: np.ndarray, link_iou: float) -> dict[int, int]:
  """(tracks, boxes) IoU -> {index of a track: index of its box}, largest overlaps first."""
  chosen: dict[int, int] = {}
  taken: set[int] = set()
  order = np.argsort(-iou, axis=None, kind='stable')  # for ties, the oldest track and the best box
  for number, place in zip(*np.unravel_index(order, iou.shape), strict=True):
    if iou[number, place] < link_iou:
      break
    if number not in chosen and place not in taken:
      chosen[int(number)] = int(place)
      taken.add(int(place))
  return chosen
