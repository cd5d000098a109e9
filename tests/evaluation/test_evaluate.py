"""The metrics of an evaluation: perfect detections, shifted ones, classes that are not scored."""

import dataclasses

import numpy as np
import pytest

from configs import common
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.record_writer import write_dataset_metadata, write_split
from evad_jax.data.records import Record
from evad_jax.data.tube_index import TrueTube, write_tubes
from evad_jax.distributed import sharding
from evad_jax.evaluation import evaluate
from evad_jax.structures import Detections, Targets
from tests.evaluation.batches import collected

FRAMES, CLASSES = 20, ['sit', 'stand', 'wave']
VIDEOS = ['one', 'two']
BOX = np.array([0.25, 0.25, 0.75, 0.75], np.float32)


@pytest.fixture(scope='module')
def index(tmp_path_factory):
  """Two videos of 20 frames of 40 x 80, all keyframes; a person sits in one, waves in two."""
  directory = tmp_path_factory.mktemp('evaluate')
  numbers = np.arange(FRAMES)
  records = []
  for video, label in zip(VIDEOS, (0, 2), strict=True):
    boxes, labels = np.tile(BOX, (FRAMES, 1)), np.eye(3, dtype=np.uint8)[[label] * FRAMES]
    head = (video, 25.0, FRAMES, 40, 80, [b'not decoded here'] * FRAMES)
    records.append(Record(*head, numbers, numbers, boxes, numbers, labels))
  write_split(directory, 'toy', 'test', len(CLASSES), 1, records)
  tubes = [
    TrueTube(video, label, numbers, np.tile(BOX, (FRAMES, 1)))
    for video, label in zip(VIDEOS, (0, 2), strict=True)
  ]
  write_tubes(directory, 'test', tubes, trimmed=False, every_frame=True)
  write_dataset_metadata(directory, 'toy', CLASSES, clip_frames=4, frame_stride=2)
  return RecordIndex.open(directory, 'test')


def state_of(index, box):
  """One detected box on every frame, with score 1 for its class and 0 for the others."""
  count = len(index)
  labels = np.eye(3, dtype=np.float32)[np.where(index.videos == 'one', 0, 2)][:, None]
  true = np.tile(BOX, (count, 1, 1))
  detections = Detections(
    np.tile(np.asarray(box, np.float32), (count, 1, 1)), np.ones((count, 1), np.float32), labels
  )
  targets = Targets(true, labels, np.ones((count, 1), bool))
  return collected(detections, targets, np.random.default_rng(0).permutation(count))


@pytest.mark.parametrize('linking', ['greedy', 'viterbi', 'multisports'])
def test_a_perfect_detector_scores_one(index, linking):
  config = common.get_config()
  config.eval.linking = linking
  frames, video = evaluate.score(config, state_of(index, BOX), index)
  assert frames.mean_ap == frames.person.value == 1.0
  assert {figure: video.mean_ap(figure) for figure in video.figures} == dict.fromkeys(
    ('0.2', '0.5', '0.75', '0.5:0.95', '0.1:0.9'), 1.0
  )
  assert (video.num_videos, video.num_truth_tubes) == (2, 2)


def test_boxes_that_overlap_by_less_than_half_score_nothing(index):
  shift = 0.5 * (1 - 0.49) / (1 + 0.49)  # of a box of width 0.5: an IoU of 0.49
  frames, video = evaluate.score(
    common.get_config(), state_of(index, BOX + [shift, 0, shift, 0]), index
  )
  assert frames.mean_ap == frames.person.value == 0.0
  assert video.mean_ap('0.5') == video.mean_ap('0.75') == video.mean_ap('0.5:0.95') == 0.0
  assert video.mean_ap('0.2') == 1.0
  assert video.mean_ap('0.1:0.9') == pytest.approx(4 / 9)  # 0.1 to 0.4


def test_only_scored_classes_count(index):
  config = common.get_config()
  state = state_of(index, BOX)
  some = dataclasses.replace(index, scored_classes=['stand', 'wave'])
  frames, _ = evaluate.score(config, state, some)
  assert frames.classes == (1, 2)
  assert [ap.num_truth for ap in frames.per_class] == [0, FRAMES] and frames.mean_ap == 1.0
  evaluation = evaluate.Evaluation(frames, None, None, [], CLASSES)
  assert list(evaluation.metrics()['per_class']) == ['stand', 'wave']
  assert 'mean of 1 classes' in evaluation.table()


def test_figures_of_tubes_are_in_the_report(index):
  frames, video = evaluate.score(common.get_config(), state_of(index, BOX), index)
  evaluation = evaluate.Evaluation(frames, video, None, [], CLASSES)
  figures = evaluation.metrics()
  assert figures['frame_mAP@0.5'] == figures['video_mAP@0.2'] == figures['video_mAP@0.5:0.95'] == 1
  assert figures['video']['per_class']['wave']['truth_tubes'] == 1
  assert 'linked by the rule greedy' in evaluation.table()


def test_a_split_without_tubes_has_no_video_figures(index, tmp_path):
  (index.directory / 'tubes-test.npz').rename(tmp_path / 'tubes.npz')
  try:
    _, video = evaluate.score(common.get_config(), state_of(index, BOX), index)
  finally:
    (tmp_path / 'tubes.npz').rename(index.directory / 'tubes-test.npz')
  assert video is None


def test_the_next_batch_is_computed_before_the_former_is_scored():
  mesh, done = sharding.make_mesh(), []

  def predict(params, batch):
    done.append(f'dispatch {int(batch[0])}')
    return params * batch

  def batches():
    for number in range(3):
      done.append(f'read {number}')
      yield np.full(1, number)

  found = []
  for local, computed in evaluate._computed(batches(), 10, predict, mesh):
    done.append(f'score {int(local[0])}')
    found.append(int(computed[0]))
  assert found == [0, 10, 20]
  assert done == [
    *('read 0', 'dispatch 0', 'read 1', 'dispatch 1', 'score 0'),
    *('read 2', 'dispatch 2', 'score 1', 'score 2'),
  ]
  assert list(evaluate._computed(iter(()), 10, predict, mesh)) == []
