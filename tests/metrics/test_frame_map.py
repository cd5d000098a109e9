"""Frame-mAP: a hand-worked evaluation, both scorings, merging, and frames missing or met twice."""

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.formats.box_table import NOT_SCORED, BoxTable
from evad_jax.metrics import frame_map, scored_boxes
from evad_jax.metrics.average_precision import average_precision
from evad_jax.structures import Detections, Targets

LEFT, RIGHT, ALL = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def made_up(seed, num_frames, proposals=6, truths=3, actions=4):
  """Random detections near random ground truth; some classes and some boxes are missing."""
  rng = np.random.default_rng(seed)
  low = rng.random((num_frames, truths, 2)) * 0.5
  boxes = np.concatenate([low, low + 0.2 + 0.3 * rng.random(low.shape)], axis=-1)
  targets = Targets(
    boxes=boxes.astype(np.float32),
    labels=(rng.random((num_frames, truths, actions)) < [0.6, 0.3, 0.2, 0.0]).astype(np.float32),
    box_mask=rng.random((num_frames, truths)) < 0.8,
  )
  near = np.take_along_axis(boxes, rng.integers(truths, size=(num_frames, proposals, 1)), axis=1)
  detections = Detections(
    boxes=(near + rng.normal(0, 0.02, near.shape)).astype(np.float32),
    person_scores=rng.random((num_frames, proposals)).astype(np.float32),
    action_scores=rng.random((num_frames, proposals, actions)).astype(np.float32),
  )
  return detections, targets


def evaluated(detections, targets, frames, **kwargs):
  mask = np.ones(len(frames), bool)
  return frame_map.update(frame_map.start(**kwargs), detections, targets, mask, frames)


def part(tree, rows):
  return type(tree)(*(x[rows] for x in tree))


def figures(result):
  """Everything of a result as one array, for exact comparison with NaN equal to NaN."""
  table = [*result.per_class, result.person]
  return np.array([*np.ravel(table), result.mean_ap, result.num_frames, result.num_boxes])


def hand_worked():
  """Two frames, two proposals each, classes 0 to 2; nothing is ever labelled 2."""
  detections = Detections(
    boxes=np.array([[LEFT, RIGHT], [LEFT, ALL]], np.float32),
    person_scores=np.array([[0.9, 0.8], [0.6, 0.4]], np.float32),
    action_scores=np.array(
      [[[0.9, 0.1, 0.5], [0.2, 0.7, 0.5]], [[0.3, 0.6, 0.5], [0.8, 0.9, 0.5]]], np.float32
    ),
  )
  targets = Targets(
    boxes=np.array([[LEFT, RIGHT], [LEFT, ALL]], np.float32),
    labels=np.array([[[1, 0, 0], [0, 1, 0]], [[1, 1, 0], [1, 1, 1]]], np.float32),
    box_mask=np.array([[True, True], [True, False]]),
  )
  return detections, targets


def test_hand_worked_action():
  # Class 0, truth LEFT of both frames, ranked .9 hit, .8 miss, .3 hit, .2 miss: (1 + 2/3) / 2.
  # Class 1, RIGHT of frame 0, LEFT of frame 1: .9 miss, .7 hit, .6 hit, .1: (2/3 + 2/3) / 2.
  # In frame 1 no person reaches 0.7, so that both boxes count.
  result = frame_map.compute(evaluated(*hand_worked(), [0, 1]), [0, 1])
  values = [ap.value for ap in result.per_class]
  np.testing.assert_allclose(values, [5 / 6, 2 / 3, np.nan], atol=1e-15)
  assert result.mean_ap == pytest.approx((5 / 6 + 2 / 3) / 2, abs=1e-15)  # without class 2
  assert [ap.num_truth for ap in result.per_class] == [2, 2, 0]
  assert [ap.num_detections for ap in result.per_class] == [4, 4, 4]
  assert (result.num_frames, result.num_truth_boxes, result.num_boxes) == (2, 3, 4)
  assert result.num_detections == 12


def test_hand_worked_person():
  # Ranked .9 hit, .8 hit, .6 hit, .4 false: every person is found before the false positive.
  person = frame_map.compute(evaluated(*hand_worked(), [0, 1]), [0, 1]).person
  assert person == (1.0, 3, 4)


def test_hand_worked_person_times_action():
  # Class 0: .81 hit, .32 miss, .18 hit, .16: as before. Class 1: .56 hit, .36 miss, .36 hit, .09.
  # The equal products decide by proposal, and float32 puts 0.6 * 0.6 above 0.4 * 0.9.
  state = evaluated(*hand_worked(), [0, 1])
  result = frame_map.compute(state, [0, 1], 'person_times_action')
  detections, targets = hand_worked()
  products = detections.action_scores * detections.person_scores[..., None]
  expected = average_precision(
    np.array([0, 0, 1, 1]),
    detections.boxes.reshape(-1, 4),
    products[..., 1].reshape(-1),
    np.array([0, 1]),
    targets.boxes[[0, 1], [1, 0]],
  )
  assert result.per_class[0].value == pytest.approx(5 / 6, abs=1e-15)
  assert result.per_class[1] == expected


def test_action_counts_the_confident_people_only():
  detections, targets = hand_worked()
  detections = detections._replace(person_scores=np.array([[0.9, 0.69], [0.7, 0.1]], np.float32))
  # RIGHT of frame 0 and ALL of frame 1 are dropped: class 1 hits once, at rank 1, of two.
  result = frame_map.compute(evaluated(detections, targets, [0, 1]), [0, 1])
  assert result.num_boxes == 2
  assert [ap.value for ap in result.per_class[:2]] == [1.0, 0.5]
  both = frame_map.compute(evaluated(detections, targets, [0, 1]), [0, 1], 'person_times_action')
  assert both.num_boxes == 4


def test_keeping_action_only_changes_nothing():
  args = (*made_up(0, 20), range(20))
  lean, full = evaluated(*args, scorings=('action',)), evaluated(*args)
  np.testing.assert_array_equal(
    figures(frame_map.compute(lean, range(20))), figures(frame_map.compute(full, range(20)))
  )
  with pytest.raises(ValueError, match='person_times_action'):
    frame_map.compute(lean, range(20), 'person_times_action')


def test_perfect_detector_scores_exactly_one():
  _, targets = made_up(1, 30)
  found = targets.box_mask.astype(np.float32)
  detections = Detections(targets.boxes, found, targets.labels * found[..., None])
  state = evaluated(detections, targets, range(30))
  result = frame_map.compute(state, range(30), 'person_times_action')
  assert result.mean_ap == result.person.value == 1.0


@pytest.mark.parametrize('scoring', frame_map.SCORINGS)
def test_batches_in_any_order_equal_the_whole(scoring):
  detections, targets = made_up(2, 24)
  # A coarse score makes ties, which the order of batches must not decide.
  detections = detections._replace(action_scores=np.round(detections.action_scores, 1))
  keys = [('video_a' if i < 10 else 'video_b', i) for i in range(24)]
  whole = frame_map.compute(evaluated(detections, targets, keys), keys, scoring)
  assert 0.02 < whole.mean_ap < 0.98
  halves = [np.arange(0, 24, 2), np.arange(23, 0, -2)]
  for order in (halves, halves[::-1]):
    state = frame_map.start()
    for rows in order:
      some, true = part(detections, rows), part(targets, rows)
      state = frame_map.update(state, some, true, np.ones(12, bool), [keys[i] for i in rows])
    np.testing.assert_array_equal(figures(frame_map.compute(state, keys, scoring)), figures(whole))


def test_update_leaves_the_old_state_alone():
  detections, targets = made_up(3, 4)
  first = evaluated(detections, targets, range(4))
  frame_map.update(first, detections, targets, np.ones(4, bool), range(4, 8))
  assert frame_map.compute(first, range(4)).num_frames == 4


def test_filler_is_not_counted():
  detections, targets = made_up(4, 6)
  index = np.array([0, 1, 2, 3, 3, 3], np.int32)
  mask = np.array([True] * 4 + [False] * 2)
  state = frame_map.update(frame_map.start(), detections, targets, mask, index)
  state = frame_map.update(state, detections, targets, np.zeros(6, bool), index)
  rows = np.arange(4)
  expected = evaluated(part(detections, rows), part(targets, rows), range(4))
  np.testing.assert_array_equal(
    figures(frame_map.compute(state, range(4))), figures(frame_map.compute(expected, range(4)))
  )


def test_padded_truth_is_not_counted():
  detections, targets = made_up(5, 5)
  targets = targets._replace(box_mask=np.zeros((5, 3), bool))
  result = frame_map.compute(evaluated(detections, targets, range(5)), range(5))
  assert np.isnan(result.mean_ap)
  assert result.num_truth_boxes == 0


def test_frames_twice_missing_or_unknown_are_errors():
  state = evaluated(*made_up(6, 3), [('v', 1), ('v', 2), ('w', 7)])
  with pytest.raises(ValueError, match=r"\('v', 3\) was not evaluated"):
    frame_map.compute(state, [('v', 1), ('v', 2), ('w', 7), ('v', 3)])
  with pytest.raises(ValueError, match=r"\('w', 7\) was evaluated, but"):
    frame_map.compute(state, [('v', 1), ('v', 2)])
  with pytest.raises(ValueError, match=r"\('v', 1\) was evaluated twice"):
    twice = state._replace(chunks=2 * state.chunks)
    frame_map.compute(twice, [('v', 1), ('v', 2), ('w', 7)])
  with pytest.raises(ValueError, match=r'expected frames names frame 4 twice'):
    frame_map.compute(state, [4, 4])
  with pytest.raises(ValueError, match='no frames to evaluate'):
    frame_map.compute(state, [])
  with pytest.raises(ValueError, match='frame 0 was not evaluated'):
    frame_map.compute(frame_map.start(), range(2))


def test_unknown_scorings_are_errors():
  with pytest.raises(InputError, match='nonsense'):
    frame_map.start(['nonsense'])


def test_diverged_model_is_an_error_that_names_the_frame():
  detections, targets = made_up(7, 3)
  detections.action_scores[2, 1, 0] = np.nan
  with pytest.raises(InputError, match='frame 12 are NaN'):
    evaluated(detections, targets, [10, 11, 12])


def rows_of(detections, targets, classes):
  """The counted boxes as rows of the scored classes, and the ground truth."""
  passing = frame_map.passing_proposals(detections.person_scores, 0.7)
  frame, proposal = np.nonzero(passing)
  scores = detections.action_scores[frame, proposal][:, classes]
  scored = BoxTable(
    frame=np.repeat(frame, len(classes)),
    boxes=np.repeat(detections.boxes[frame, proposal], len(classes), axis=0),
    label=np.tile(np.arange(len(classes)), len(frame)),
    score=scores.ravel(),
  )
  frame, person, label = np.nonzero(targets.box_mask[:, :, None] & (targets.labels > 0))
  listed = np.isin(label, classes)
  frame, person, label = frame[listed], person[listed], label[listed]
  label = np.array([classes.index(c) for c in label], np.int64)
  return scored, BoxTable(frame, targets.boxes[frame, person], label)


@pytest.mark.parametrize('max_per_frame', [None, 5, 1])
def test_scored_classes_and_the_highest_of_a_frame_equal_rows(max_per_frame):
  detections, targets = made_up(8, 25)
  detections = detections._replace(action_scores=np.round(detections.action_scores, 1))
  classes = [2, 0]
  result = frame_map.compute(
    evaluated(detections, targets, range(25), scorings=('action',)),
    range(25),
    scored_classes=classes,
    max_per_frame=max_per_frame,
  )
  scored, truth = rows_of(detections, targets, classes)
  if max_per_frame is not None:
    highest = scored.highest_per_frame(max_per_frame)
    scored = scored._replace(label=np.where(highest, scored.label, NOT_SCORED))
  expected = scored_boxes.compute(scored, truth, 2, 25)
  assert result.per_class == expected.per_class
  assert 0.01 < result.mean_ap == expected.mean_ap < 0.9
  assert result.classes == (2, 0)
