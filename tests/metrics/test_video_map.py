"""Video-mAP by hand, against the rule word by word, from an evaluation's state, and published."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evad_jax.errors import InputError
from evad_jax.formats import ground_truth, tube_csv
from evad_jax.formats.box_table import BoxTable
from evad_jax.metrics import frame_map, video_map
from evad_jax.structures import Detections, Targets
from evad_jax.tubes.overlap import Tube, tube_iou
from evad_jax.tubes.rules import RULES
from tests import external
from tests.metrics import slow_map

AVA_EVAL = external.DATA / 'ava_eval'
GREEDY = RULES['greedy']


def tube(label, first, last, score=1.0, height=10.0):
  frames = np.arange(first, last + 1)
  return Tube(label, frames, np.tile([0.0, 0.0, 10.0, height], (len(frames), 1)), score)


def test_thresholds():
  assert video_map.thresholds('0.5') == [0.5]
  assert video_map.thresholds('0.5:0.95') == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
  assert video_map.thresholds('0.1:0.9') == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
  assert video_map.thresholds('0.05:0.45')[:2] == [0.05, 0.1]
  for wrong in ('0', '1.5', 'half', '0.5:0.2', '0.1:0.2:0.3', '0.123', 'nan', 'inf', ''):
    with pytest.raises(InputError, match='not an IoU threshold'):
      video_map.thresholds(wrong)


def test_by_hand():
  truth = {'a': [tube(0, 1, 20), tube(1, 1, 20)], 'b': [tube(0, 1, 20)], 'c': []}
  detected = {
    'a': [
      tube(0, 1, 20, 0.9),  # IoU 1
      tube(0, 1, 20, 0.8),  # again: a false positive
      tube(1, 1, 10, 0.7),  # half of the time
    ],
    'b': [tube(0, 1, 16, 0.6, 7.5)],  # 16/20 * 3/4 = 0.6
    'c': [tube(0, 1, 20, 0.85)],
  }
  result = video_map.compute(detected, truth, 3, GREEDY)
  values = {figure: [ap.value for ap in aps] for figure, aps in result.figures.items()}
  # Class 0 is ranked .9 hit, .85 miss, .8 miss, .6: a hit up to 0.6.
  assert values['0.5'] == pytest.approx([(1 + 2 / 4) / 2, 1.0, np.nan], nan_ok=True)
  assert values['0.75'] == pytest.approx([1 / 2, 0.0, np.nan], nan_ok=True)
  assert values['0.5:0.95'][0] == pytest.approx((3 * 0.75 + 7 * 0.5) / 10)
  assert values['0.1:0.9'][1] == pytest.approx(5 / 9)
  assert result.mean_ap('0.75') == pytest.approx(1 / 4)
  counts = [(ap.num_truth, ap.num_detections) for ap in result.figures['0.5']]
  assert counts == [(2, 4), (1, 1), (0, 0)]
  assert (result.num_videos, result.num_truth_tubes, result.num_tubes) == (3, 3, 5)
  trimmed = video_map.compute(detected, truth, 3, GREEDY, ['0.75'], spatial_only=True)
  assert trimmed.mean_ap('0.75') == pytest.approx(((1 + 2 / 4) / 2 + 1) / 2)
  with pytest.raises(ValueError, match="'d', which has no ground truth"):
    video_map.compute({'d': []}, truth, 3, GREEDY)


extent = st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(1, 3))
some = st.lists(st.tuples(st.sampled_from('ab'), st.integers(0, 1), extent), max_size=7)


@settings(max_examples=120, deadline=None)
@given(some, some, st.lists(st.integers(1, 4), min_size=7, max_size=7))
def test_equals_the_rule_word_by_word(detected, truth, scores):
  def grouped(rows, scores):
    videos = {'a': [], 'b': []}
    for (video, label, (first, more, height)), score in zip(rows, scores, strict=False):
      videos[video].append(tube(label, first, first + more, score / 4, height))
    return videos

  found, true = grouped(detected, scores), grouped(truth, [4] * 7)
  result = video_map.compute(found, true, 2, GREEDY, ['0.5'])
  for label, ap in enumerate(result.figures['0.5']):
    expected = slow_map.average_precision(
      [(v, t, t.score) for v in found for t in found[v] if t.label == label],
      [(v, t) for v in true for t in true[v] if t.label == label],
      tube_iou,
    )
    expected = np.nan if expected is None else expected
    assert ap.value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def generated(seed):
  """One tube a class and video, 15 frames or more, slow enough to be followed."""
  rng = np.random.default_rng(seed)
  truth = {}
  for number in range(6):
    tubes = []
    for label in range(4):
      frames = np.arange(rng.integers(1, 30), rng.integers(45, 60))
      start, size = rng.uniform(0, 200, 2), rng.uniform(40, 80, 2)
      low = start + np.outer(frames, rng.uniform(-1, 1, 2))
      tubes.append(Tube(label, frames, np.concatenate([low, low + size], axis=1)))
    truth[f'v{number}'] = tubes
  return truth


def rows_of(truth, share=0.0):
  """Every truth box as a detection, moved down by a share of its height."""
  names = list(truth)
  parts = [(names.index(v), t) for v in names for t in truth[v]]
  height = [t.boxes[:, 3] - t.boxes[:, 1] for _, t in parts]
  boxes = [
    t.boxes + np.outer(h * share, [0, 1, 0, 1]) for (_, t), h in zip(parts, height, strict=True)
  ]
  rng = np.random.default_rng(1)
  columns = (
    [t.frames for _, t in parts],
    boxes,
    [np.full(len(t.frames), t.label) for _, t in parts],
    [np.full(len(t.frames), rng.uniform(0.1, 1)) for _, t in parts],
    [np.full(len(t.frames), v) for v, t in parts],
  )
  return BoxTable(*(np.concatenate(column) for column in columns)), names


@pytest.mark.parametrize('name', RULES)
@pytest.mark.parametrize('spatial_only', [False, True])
def test_perfect_detector_and_shifted_boxes(name, spatial_only):
  rule, truth = RULES[name], generated(0)
  tubes = dict(video_map.link_rows(*rows_of(truth), rule))
  result = video_map.compute(tubes, truth, 4, rule, spatial_only=spatial_only)
  assert [result.mean_ap(figure) for figure in result.figures] == [1.0] * 5
  # A box moved by a share s of its height overlaps the truth by (1 - s) / (1 + s).
  moved = dict(video_map.link_rows(*rows_of(truth, (1 - 0.49) / (1 + 0.49)), rule))
  figures = ['0.45', '0.5', '0.75', '0.5:0.95']
  result = video_map.compute(moved, truth, 4, rule, figures, spatial_only)
  assert [result.mean_ap(figure) for figure in figures] == [1.0, 0.0, 0.0, 0.0]


def test_an_evaluation_equals_its_rows():
  # 3 videos of 20 frames, 2 proposals, 2 classes; scores alike in float32 and float64.
  rng = np.random.default_rng(3)
  places = [(f'v{i // 20}', i % 20) for i in range(60)]
  left = np.stack([np.full(60, 0.1), np.full(60, 0.6)], axis=1) + rng.normal(0, 0.01, (60, 2))
  boxes = np.stack([left, np.full((60, 2), 0.2), left + 0.3, np.full((60, 2), 0.8)], axis=2)
  detections = Detections(
    boxes.astype(np.float32),
    np.full((60, 2), 0.9, np.float32),
    rng.integers(1, 1000, (60, 2, 2)).astype(np.float32) / 1024,
  )
  targets = Targets(np.zeros((60, 1, 4)), np.zeros((60, 1, 2)), np.zeros((60, 1), bool))
  state = frame_map.update(
    frame_map.start(), detections, targets, np.ones(60, bool), np.arange(60)[::-1]
  )
  actions = frame_map.tables(state, range(60), sizes=np.tile([240, 320], (60, 1))).actions
  order = np.arange(60)[::-1]  # the frames were evaluated in this order
  boxes = detections.boxes[order].reshape(-1, 4).astype(np.float64) * [320, 240, 320, 240]
  boxes = boxes.round(3)  # of a pixel, as files have them
  rows = BoxTable(
    frame=np.repeat(np.repeat(np.arange(60) % 20, 2), 2),
    boxes=np.repeat(boxes, 2, axis=0),
    label=np.tile([0, 1], 120),
    score=detections.action_scores[order].ravel(),
    video=np.repeat(np.repeat(np.arange(60) // 20, 2), 2),
  )
  for rule in RULES.values():
    found = dict(video_map.link_actions(actions, places, rule))
    expected = dict(video_map.link_rows(rows, ['v0', 'v1', 'v2'], rule))
    assert list(found) == list(expected) == ['v0', 'v1', 'v2']
    assert sum(map(len, found.values())) >= 6
    for video, tubes in expected.items():
      for a, b in zip(found[video], tubes, strict=True):
        assert (a.label, a.score) == (b.label, b.score)
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.boxes, b.boxes)


@pytest.mark.skipif(not AVA_EVAL.exists(), reason=external.missing(AVA_EVAL))
@pytest.mark.parametrize('file', ['gt.pkl', 'gt.json'])
@pytest.mark.parametrize(
  ('equal_scores', 'expected'),
  [
    (False, {'0.2': 50.0, '0.5': 50.0, '0.75': 37.5, '0.1:0.9': 40.2778, '0.5:0.95': 32.5}),
    (True, {'0.2': 37.5, '0.5': 37.5, '0.1:0.9': 29.1667, '0.5:0.95': 21.25}),
  ],
)
def test_multisports(file, equal_scores, expected):
  fixture = AVA_EVAL / 'multisports_fixture'
  truth = ground_truth.read(fixture / file)
  rows = tube_csv.read_detections(
    fixture / 'detections.csv', list(truth.tubes), len(truth.class_names), truth.num_frames
  )
  if equal_scores:
    rows = rows._replace(score=np.full_like(rows.score, rows.score[-1]))
  rule = RULES['multisports']
  tubes = dict(video_map.link_rows(rows, list(truth.tubes), rule))
  result = video_map.compute(tubes, truth.tubes, len(truth.class_names), rule)
  found = {figure: round(100 * result.mean_ap(figure), 4) for figure in expected}
  assert found == expected
