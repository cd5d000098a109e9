"""Linking by hand, online against offline, and the path of largest value against all paths."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evad_jax.tubes import offline, online
from evad_jax.tubes.overlap import Tube, tube_iou
from evad_jax.tubes.rules import PEOPLE, RULES
from tests.metrics import slow_map

GREEDY, VITERBI, MULTISPORTS = (RULES[name] for name in ('greedy', 'viterbi', 'multisports'))
ANY_LENGTH = {'min_frames': 1, 'min_score': 0.0, 'tube_iou': None}


def moving(start, step, number):
  """Boxes of 10 x 10 pixels that move to the right."""
  return [(start + step * i, 0, start + step * i + 10, 10) for i in range(number)]


def link(frames, boxes, scores, rule, labels=None):
  labels = np.zeros(len(frames), int) if labels is None else np.array(labels)
  return offline.link(
    np.array(frames), labels, np.array(boxes, float), np.array(scores, float), rule
  )


def test_two_people_in_two_classes():
  frames = [*range(1, 21), *range(1, 21), *range(5, 21)]
  boxes = moving(0, 1, 20) + moving(100, -1, 20) + moving(0, 1, 16)
  scores, labels = [0.8] * 20 + [0.6] * 20 + [0.4] * 16, [1] * 40 + [0] * 16
  tubes = link(frames, boxes, scores, GREEDY, labels)
  assert [(t.label, t.frames[0], t.frames[-1]) for t in tubes] == [
    (0, 5, 20),
    (1, 1, 20),
    (1, 1, 20),
  ]
  assert [round(t.score, 12) for t in tubes] == [0.4, 0.8, 0.6]
  np.testing.assert_array_equal(tubes[1].boxes, boxes[:20])


@pytest.mark.parametrize('rule', [GREEDY, VITERBI])
def test_gaps_are_filled_and_long_ones_end_a_tube(rule):
  boxes = np.array(moving(0, 0.5, 50))
  frames = [f for f in range(50) if f not in (3, 4, 5, 6, 7) and not 20 <= f <= 25]
  tubes = link(frames, boxes[frames], [0.5] * len(frames), rule)
  assert [(t.frames[0], t.frames[-1]) for t in tubes] == [(0, 19), (26, 49)]
  np.testing.assert_allclose(tubes[0].boxes, boxes[:20], atol=1e-12)
  tubes = link(frames, boxes[frames], [0.5] * len(frames), MULTISPORTS)
  assert [(t.frames[0], t.frames[-1]) for t in tubes] == [(26, 49)]


def test_weak_and_short_tubes_are_dropped():
  boxes = moving(0, 1, 15)
  assert len(link(range(15), boxes, [0.005] * 15, GREEDY)) == 1
  assert not link(range(15), boxes, [0.0049] * 15, GREEDY)
  assert not link(range(14), boxes[:14], [0.9] * 14, GREEDY)
  assert not link([], np.zeros((0, 4)), [], GREEDY)


def test_the_better_tube_takes_the_highest_box():
  # The .8 of frame 1 overlaps both tubes; the better one gets it, and the .5 is too far for the
  # other, so it starts a tube.
  frames = [0, 0, 1, 1]
  boxes = [(0, 0, 10, 10), (4, 0, 14, 10), (2, 0, 12, 10), (7, 0, 17, 10)]
  rule = GREEDY._replace(**ANY_LENGTH, suppression_iou=0.9)
  tubes = link(frames, boxes, [0.6, 0.9, 0.8, 0.5], rule)
  assert [t.boxes[:, 0].tolist() for t in tubes] == [[4, 2], [0], [7]]
  assert [t.score for t in tubes] == pytest.approx([0.85, 0.6, 0.5], abs=1e-15)


def test_doubles_are_dropped():
  boxes = moving(0, 1, 20)
  twice = [*boxes, *[(x1, y1 - 3, x2, y2 - 3) for x1, y1, x2, y2 in boxes]]  # IoU 7/13
  frames, scores = [*range(20)] * 2, [0.5] * 20 + [0.6] * 20
  assert [t.score for t in link(frames, twice, scores, GREEDY)] == pytest.approx([0.6])
  assert len(link(frames, twice, scores, GREEDY._replace(tube_iou=0.54))) == 2


side = st.integers(0, 3)
scene = st.lists(
  st.tuples(st.integers(0, 9), st.tuples(side, side), st.integers(1, 4)), max_size=30
)


def scene_arrays(rows):
  rows = sorted(rows, key=lambda row: row[0])
  frames = np.array([f for f, _, _ in rows], np.int64)
  boxes = np.reshape(np.array([(x, y, x + 5, y + 5) for _, (x, y), _ in rows], float), (-1, 4))
  return frames, boxes, np.array([s / 5 for _, _, s in rows])


@settings(max_examples=200, deadline=None)
@given(scene, st.sampled_from(['greedy', 'multisports']), st.integers(0, 2))
def test_online_equals_offline(rows, name, max_missing):
  rule = RULES[name]._replace(**ANY_LENGTH, max_missing=max_missing, max_boxes=3)
  frames, boxes, scores = scene_arrays(rows)
  state, seen, ended, places = online.start(rule), set(), [], {}
  for frame in range(12):
    here = np.flatnonzero(frames == frame)
    state, links = online.step(state, frame, boxes[here], scores[here])
    assert len(state.tracks) <= rule.max_boxes * (rule.max_missing + 1)
    for row, number, score in zip(here, links.ids.tolist(), links.scores, strict=True):
      if number >= 0:
        assert number not in ended
        places.setdefault(number, []).append((frame, boxes[row].tolist(), float(score)))
    seen |= set(places)
    ended += links.ended
    assert {track.id for track in state.tracks} == seen - set(ended)
  assert len(ended) == len(set(ended))
  tubes = offline.link(frames, np.zeros(len(frames), int), boxes, scores, rule)
  assert len(tubes) == len(places)
  for tube, number in zip(tubes, sorted(places), strict=True):
    assert tube.score == pytest.approx(np.mean([s for _, _, s in places[number]]), abs=1e-12)
    assert (tube.frames[0], tube.frames[-1]) == (places[number][0][0], places[number][-1][0])
    for frame, box, _ in places[number]:
      assert tube.boxes[frame - tube.frames[0]].tolist() == box


def test_a_stream_needs_no_more_memory_than_it_says():
  rng = np.random.default_rng(0)
  rule = GREEDY._replace(max_boxes=4, max_missing=2)
  state, most = online.start(rule), 0
  for frame in range(400):
    low = rng.random((9, 2)) * 300
    state, _ = online.step(state, frame, np.concatenate([low, low + 20], 1), rng.random(9))
    most = max(most, len(state.tracks))
  assert most == rule.max_boxes * (rule.max_missing + 1) == 12
  assert state.next_id > 1000


def test_frames_must_rise_and_rules_look_back():
  state, _ = online.step(online.start(GREEDY), 3, np.zeros((0, 4)), np.zeros(0))
  with pytest.raises(ValueError, match='3 came after 3'):
    online.step(state, 3, np.zeros((0, 4)), np.zeros(0))
  with pytest.raises(ValueError, match='looks ahead'):
    online.start(VITERBI)


def slow_paths(frames, boxes, scores, rule):
  """All paths, the best taken and its boxes removed, until none is long enough."""
  left = set(range(len(frames)))
  found = []

  def follows(a, b):
    gap = frames[b] - frames[a]
    near = slow_map.iou(boxes[a], boxes[b]) >= rule.link_iou
    return 1 <= gap <= rule.max_missing + 1 and near

  def value(path):
    overlaps = sum(slow_map.iou(boxes[a], boxes[b]) for a, b in itertools.pairwise(path))
    return sum(scores[i] for i in path) + overlaps

  def all_paths():
    open_paths = [[i] for i in left]
    while open_paths:
      path = open_paths.pop()
      yield path
      open_paths += [[*path, i] for i in left if follows(path[-1], i)]

  while True:
    paths = list(all_paths())
    long = {i for p in paths if frames[p[-1]] - frames[p[0]] + 1 >= rule.min_frames for i in p}
    paths = [p for p in paths if set(p) <= long]
    if not paths:
      return found
    best = max(paths, key=value)
    found.append((value(best), best))
    left -= set(best)


@settings(max_examples=60, deadline=None)
@given(
  st.lists(st.tuples(st.integers(0, 5), st.tuples(side, side)), max_size=9),
  st.randoms(use_true_random=True),
)
def test_paths_of_largest_value(rows, random):
  # Scores that differ make the best path unique.
  frames, boxes, _ = scene_arrays([(f, xy, 1) for f, xy in rows])
  scores = np.array([random.uniform(0.1, 1) for _ in frames])
  rule = VITERBI._replace(
    min_frames=3, min_score=0.0, tube_iou=None, max_missing=1, suppression_iou=1.0
  )
  tubes = offline.link(frames, np.zeros(len(frames), int), boxes, scores, rule)
  paths = [p for _, p in slow_paths(frames, boxes, scores, rule)]
  expected = sorted(
    (frames[p[0]], frames[p[-1]], round(float(np.mean(scores[p])), 9))
    for p in paths
    if frames[p[-1]] - frames[p[0]] + 1 >= 3
  )
  assert sorted((t.frames[0], t.frames[-1], round(t.score, 9)) for t in tubes) == expected


def test_looking_ahead_avoids_a_trap():
  # In frame 1 the higher box leads nowhere; the path over the lower one is worth more.
  frames = [0, 1, 1, *range(2, 6)]
  boxes = [(0, 0, 10, 10), (0, 3, 10, 13), (0, -2, 10, 8), *[(0, -3, 10, 7)] * 4]
  scores = [0.9, 0.8, 0.3, *[0.5] * 4]
  rules = (r._replace(**ANY_LENGTH, max_missing=0, link_iou=0.5) for r in (GREEDY, VITERBI))
  greedy, viterbi = (link(frames, boxes, scores, rule) for rule in rules)
  assert [len(t.frames) for t in greedy] == [2, 5]
  assert [len(t.frames) for t in viterbi] == [6, 1]


def test_tube_overlaps_by_hand():
  a = Tube(0, np.arange(1, 11), np.tile([0.0, 0, 2, 1], (10, 1)))
  b = Tube(0, np.arange(6, 16), np.tile([0.0, 0, 1, 1], (10, 1)))
  assert tube_iou(a, b) == pytest.approx(5 / 15 * 1 / 2, abs=1e-15)
  assert tube_iou(a, b, counts_frames=False) == pytest.approx(4 / 14 * 1 / 2, abs=1e-15)
  assert tube_iou(a, b, spatial_only=True) == 1 / 2
  assert tube_iou(a, a) == 1.0
  later = Tube(0, np.arange(11, 13), np.tile([0.0, 0, 2, 1], (2, 1)))
  assert tube_iou(a, later) == 0.0
  odd = Tube(0, np.array([2, 4, 12]), np.tile([0.0, 0, 2, 1], (3, 1)))
  even = Tube(0, np.array([1, 3, 13]), np.tile([0.0, 0, 2, 1], (3, 1)))
  assert tube_iou(odd, even) == 0.0  # no frame in common


def follow(frames_of_boxes, scores=None):
  """PEOPLE over frames 0, 1, ...: the ids of every frame's boxes, and which ended with it."""
  state, ids, ended = online.start(PEOPLE), [], []
  for frame, boxes in enumerate(frames_of_boxes):
    here = np.full(len(boxes), 0.9) if scores is None else np.array(scores[frame])
    state, links = online.step(state, frame, np.reshape(boxes, (-1, 4)), here)
    ids.append(links.ids.tolist())
    ended.append(links.ended)
  return ids, ended


def test_people_who_cross_keep_their_ids():
  """Two people walk past each other, 4 pixels a frame, one 2 pixels lower than the other.

  Everybody overlaps his or her last box by 60/140; where they meet, the other's by 48/152.
  """
  right = [(4 * i, 0, 4 * i + 10, 10) for i in range(7)]
  left = [(24 - 4 * i, 2, 34 - 4 * i, 12) for i in range(7)]
  # The order of the boxes changes and the scores are equal: neither identifies a person.
  frames = [
    (a, b) if i % 2 == 0 else (b, a) for i, (a, b) in enumerate(zip(right, left, strict=True))
  ]
  ids, ended = follow(frames)
  assert ids == [[0, 1], [1, 0]] * 3 + [[0, 1]]
  assert ended == [()] * 7


def test_the_nearest_pair_is_joined_first_whatever_the_scores():
  # Boxes of 10 x 10; IoUs of 10 - d by d pixels moved are (10 - d) / (10 + d). The first tube
  # overlaps the box at 4 with 6/14 and that at -3 with 7/13; the second, which is at 6, overlaps
  # the box at 4 with 8/12 and takes it, although the first tube and that box score highest.
  first = [(0, 0, 10, 10), (6, 0, 16, 10)]
  then = [(4, 0, 14, 10), (-3, 0, 7, 10)]
  ids, _ = follow([first, then], [[0.95, 0.8], [0.99, 0.75]])
  assert ids == [[0, 1], [1, 0]]
  # By score, the better tube would take the higher box.
  state, links = online.step(online.start(GREEDY), 0, np.array(first, float), np.array([0.95, 0.8]))
  _, links = online.step(state, 1, np.array(then, float), np.array([0.99, 0.75]))
  assert links.ids.tolist() == [0, 2]


def test_people_may_be_missing_for_five_frames():
  box = [(0, 0, 10, 10)]
  ids, ended = follow([box, *[[]] * 5, box])
  assert ids[-1] == [0] and ended == [()] * 7
  ids, ended = follow([box, *[[]] * 6, box])
  assert ids[-1] == [1] and ended == [(), (), (), (), (), (), (0,), ()]


def test_somebody_too_far_is_somebody_new():
  # 6 pixels: IoU 4/16 links, 7 pixels: 3/17 does not; the least is 0.2.
  assert follow([[(0, 0, 10, 10)], [(6, 0, 16, 10)]])[0] == [[0], [0]]
  assert follow([[(0, 0, 10, 10)], [(7, 0, 17, 10)]])[0] == [[0], [1]]


def test_nearly_the_same_box_is_the_same_person():
  # A pixel apart: IoU 9/11 is above 0.7; two apart: 8/12 is not.
  assert follow([[(0, 0, 10, 10), (1, 0, 11, 10)]], [[0.8, 0.9]])[0] == [[-1, 0]]
  assert follow([[(0, 0, 10, 10), (2, 0, 12, 10)]], [[0.8, 0.9]])[0] == [[1, 0]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.tuples(side, side), max_size=3), min_size=1, max_size=6))
def test_pairs_in_falling_overlap_against_a_slow_search(frames_of_corners):
  """No pair that is left overlaps more than the pairs that stood in its way."""
  rule = PEOPLE._replace(suppression_iou=1.0)
  state = online.start(rule)
  for frame, corners in enumerate(frames_of_corners):
    boxes = np.array([(x, y, x + 5, y + 5) for x, y in corners], float).reshape(-1, 4)
    before = {track.id: track.box for track in state.tracks}
    state, links = online.step(state, frame, boxes, np.full(len(boxes), 0.9))
    ids = links.ids.tolist()
    joined = {number: place for place, number in enumerate(ids) if number in before}
    assert len(set(ids)) == len(ids)
    for number, old in before.items():
      for place, box in enumerate(boxes):
        iou = slow_map.iou(old, box)
        if joined.get(number) == place:
          assert iou >= rule.link_iou
          continue
        ways = [slow_map.iou(old, boxes[joined[number]])] if number in joined else []
        if ids[place] in before:
          ways.append(slow_map.iou(before[ids[place]], box))
        assert iou < rule.link_iou or max(ways) >= iou


def test_people_are_linked_online_alone():
  with pytest.raises(ValueError, match="the rule 'people' only links online, frame by frame"):
    link([0], [(0, 0, 1, 1)], [0.9], PEOPLE)
