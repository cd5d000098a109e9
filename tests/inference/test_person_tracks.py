"""Person tracks by hand: thresholds, ids, and the rows that belong to them."""

import numpy as np

from evad_jax.inference import person_tracks
from evad_jax.structures import Detections


def detections(*rows):
  """Rows of (x, score): boxes of width 0.2 from x on; the action scores identify the row."""
  boxes = [(x, 0.2, x + 0.2, 0.8) for x, _ in rows]
  return Detections(
    boxes=np.array(boxes, np.float32).reshape(-1, 4),
    person_scores=np.array([score for _, score in rows], np.float32),
    action_scores=np.array([(i / 10, 0.5) for i in range(len(rows))], np.float32).reshape(-1, 2),
  )


def follow(*keyframes, stride=4, threshold=0.7):
  """(frame, detections), one after another -> the people of each, and the last state."""
  state, found = person_tracks.start(), []
  for frame, some in keyframes:
    state, present = person_tracks.follow(state, some, frame, stride, threshold)
    found.append(present)
  return found, state


def test_people_keep_their_ids_and_their_rows():
  first = detections((0.1, 0.8), (0.3, 0.2), (0.6, 0.9), (0.61, 0.95))
  second = detections((0.65, 0.7), (0.0, 0.69), (0.3, 0.75), (0.12, 0.9))
  (a, b), state = follow((0, first), (4, second))
  # Best first, of those that coincide the best; the second row is below 0.7.
  assert (a.frame, a.ids.tolist(), a.ended) == (0, [1, 0], ())
  np.testing.assert_array_equal(a.boxes, first.boxes[[0, 3]])
  np.testing.assert_array_equal(a.person_scores, first.person_scores[[0, 3]])
  np.testing.assert_array_equal(a.action_scores, first.action_scores[[0, 3]])
  # A score of exactly 0.7 passes. The person at 0.3 is new.
  assert (b.frame, b.ids.tolist()) == (4, [0, 2, 1])
  np.testing.assert_array_equal(b.boxes, second.boxes[[0, 2, 3]])
  np.testing.assert_array_equal(b.action_scores, second.action_scores[[0, 2, 3]])
  assert b.ids.dtype == np.int64 and b.boxes.dtype == np.float32
  assert [track.id for track in state.tracks] == [0, 1, 2]


def test_misses_are_counted_in_keyframes():
  """Five keyframes may be missing, whether processed or skipped."""
  here, nobody = detections((0.1, 0.9)), detections()
  for stride in (1, 3, 25):
    looks = [(n * stride, nobody if 0 < n < 6 else here) for n in range(7)]
    looked, _ = follow(*looks, stride=stride)
    assert looked[-1].ids.tolist() == [0] and all(p.ended == () for p in looked)
    skipped, _ = follow((0, here), (6 * stride, here), stride=stride)
    assert skipped[-1].ids.tolist() == [0]
    gone, _ = follow((0, here), (7 * stride, here), stride=stride)
    assert gone[-1].ids.tolist() == [1] and gone[-1].ended == (0,)


def test_nobody():
  (a, b), state = follow((0, detections()), (4, detections((0.5, 0.5))))
  for present in (a, b):
    assert present.ids.shape == (0,) and present.boxes.shape == (0, 4)
    assert present.person_scores.shape == (0,) and present.action_scores.shape == (0, 2)
  assert state.next_id == 0 and state.tracks == ()


def test_an_id_is_never_given_twice():
  rng = np.random.default_rng(0)
  state, seen, ended = person_tracks.start(), set(), set()
  for frame in range(0, 800, 4):
    some = detections(*((x, 0.9) for x in rng.uniform(0, 0.8, rng.integers(0, 3))))
    state, present = person_tracks.follow(state, some, frame, 4, 0.7)
    assert not ended & set(present.ids.tolist())
    assert len(set(present.ids.tolist())) == len(present.ids)
    assert not ended & set(present.ended)
    seen |= set(present.ids.tolist())
    ended |= set(present.ended)
    assert len(state.tracks) <= 6 * 2
  assert seen == set(range(state.next_id)) and len(seen) > 20
  assert ended == seen - {track.id for track in state.tracks}
