"""Annotation pickles and JSON as ground truth: both layouts by hand, splits, and faults."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.formats import ground_truth, tube_csv
from evad_jax.formats.box_table import BoxTable
from evad_jax.formats.video_lists import Listed
from tests import external

SHARED = external.DATA
ACT = {
  'labels': ['catch', 'run'],
  'gttubes': {
    'catch/a': {0: [np.array([[1, 1, 2, 3, 4], [2, 1, 2, 3, 5]], np.float32)]},
    'run/b': {1: [np.array([[4, 0, 0, 9, 9]], np.float32)]},
  },
  'nframes': {'catch/a': 20, 'run/b': 30, 'run/c': 40},
  'train_videos': [['run/b'], ['catch/a']],
  'test_videos': [['catch/a', 'run/c'], ['run/b', 'run/c']],
  'resolution': {name: (240, 320) for name in ('catch/a', 'run/b', 'run/c')},
}


def pickled(tmp_path, content):
  path = tmp_path / 'annotations.pkl'
  path.write_bytes(pickle.dumps(content, protocol=2))
  return path


def as_json(tmp_path, content):
  path = tmp_path / 'annotations.json'
  tubes = {
    video: {str(label): [rows.tolist() for rows in some] for label, some in by_label.items()}
    for video, by_label in content['gttubes'].items()
  }
  path.write_text(json.dumps({**content, 'gttubes': tubes}))
  return path


@pytest.mark.parametrize('write', [pickled, as_json])
def test_act_layout(tmp_path, write):
  path = write(tmp_path, ACT)
  truth = ground_truth.read(path)
  assert list(truth.tubes) == ['catch/a', 'run/c'] and truth.tubes['run/c'] == []
  (tube,) = truth.tubes['catch/a']
  assert (tube.label, tube.frames.tolist()) == (0, [1, 2])
  assert tube.boxes.tolist() == [[1, 2, 3, 4], [1, 2, 3, 5]]
  assert truth.num_frames == {'catch/a': 20, 'run/c': 40}
  assert truth.class_names == ('catch', 'run')
  assert truth.sizes['run/c'] == (240, 320)
  assert list(ground_truth.read(path, split=2).tubes) == ['run/b', 'run/c']
  with pytest.raises(InputError, match='has 2 splits; give --split from 1 to 2'):
    ground_truth.read(path, split=3)


def test_pyannot(tmp_path):
  entry = {
    'label': 7,
    'sf': 3,
    'ef': 5,
    'boxes': np.array([[250, 9, 60, 5], [8, 9, 4, 5]], np.uint8),
  }
  content = {'Diving/v': {'numf': 90, 'label': 7, 'annotations': [entry]}}
  truth = ground_truth.read(pickled(tmp_path, content))
  (tube,) = truth.tubes['Diving/v']
  # Frames 3 and 4 from 0 are 4 and 5 from 1.
  assert (tube.label, tube.frames.tolist()) == (7, [4, 5])
  assert tube.boxes.tolist() == [[250, 9, 310, 14], [8, 9, 12, 14]]
  assert (truth.num_frames, truth.class_names) == ({'Diving/v': 90}, None)
  only = ground_truth.only(truth, Listed(['Diving/v'], ['Rowing/w']), Path('list.txt'))
  assert list(only.tubes) == ['Diving/v']
  with pytest.raises(InputError, match="list.txt: video 'Diving/w' has no ground truth"):
    ground_truth.only(truth, Listed([], ['Diving/w']), Path('list.txt'))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'gttubes': {'catch/a': {0: [np.zeros((2, 4))]}}}, 'catch/a: bad tube: .* shape'),
    ({'gttubes': {'catch/a': {0: [np.array([[1, 5, 5, 4, 9]])]}}}, 'a box of catch/a ends before'),
    ({'gttubes': {'catch/a': {0: [np.array([[0, 5, 5, 9, 9]])]}}}, 'frames do not increase from 0'),
    ({'gttubes': {'catch/a': {0: [np.array([[1.5, 5, 5, 9, 9]])]}}}, 'not whole numbers'),
    ({'gttubes': {'catch/a': {0: [np.array([[1e18, 5, 5, 9, 9]])]}}}, 'no video has a frame'),
    ({'gttubes': {'catch/a': {0: [np.array([[1, 5, 5, 9, np.nan]])]}}}, 'a box is not finite'),
    ({'gttubes': {'catch/a': {2: [np.array([[1, 5, 5, 9, 9]])]}}}, 'there is no class 2'),
    ({'gttubes': {'catch/a': {-1: [np.array([[1, 5, 5, 9, 9]])]}}}, 'there is no class -1'),
    ({'test_videos': [['run/d']]}, "no annotation of 'run/d'"),
    ({'nframes': {}}, "unexpected form.*'catch/a'"),
  ],
)
def test_bad_annotations_are_named(tmp_path, change, message):
  with pytest.raises(InputError, match=f'annotations.pkl: .*{message}'):
    ground_truth.read(pickled(tmp_path, {**ACT, **change}))


def test_unreadable_files(tmp_path):
  with pytest.raises(InputError, match='nowhere.json cannot be read'):
    ground_truth.read(tmp_path / 'nowhere.json')
  (tmp_path / 'a.json').write_text('{')
  with pytest.raises(InputError, match='a.json is not JSON'):
    ground_truth.read(tmp_path / 'a.json')
  (tmp_path / 'a.json').write_text('[]')
  with pytest.raises(InputError, match='a.json: the file is not an object'):
    ground_truth.read(tmp_path / 'a.json')


@pytest.mark.skipif(not SHARED.exists(), reason=external.missing(SHARED))
def test_published_annotations():
  jhmdb = SHARED / 'jhmdb_mini' / 'annotations_full' / 'JHMDB-GT.pkl'
  numbers = [len(ground_truth.read(jhmdb, split).tubes) for split in (1, 2, 3)]
  assert numbers == [268, 270, 265]
  ucf24 = ground_truth.read(SHARED / 'ucf24_mini' / 'annotations_full' / 'pyannot.pkl')
  assert len(ucf24.tubes) == 3194
  assert sum(len(tube.frames) for some in ucf24.tubes.values() for tube in some) > 500_000


def test_json_of_own_data(tmp_path):
  """Frames from 1; the split `test`; a repeated label counts once; single boxes are not tubes."""
  content = {
    'classes': ['walk', 'wave'],
    'videos': {
      'a': {
        'split': 'test',
        'width': 80,
        'height': 40,
        'num_frames': 9,
        'tubes': [{'labels': ['walk', 'wave', 'walk'], 'start': 2, 'boxes': [[1, 2, 30, 20]] * 3}],
        'boxes': [
          {'frame': 7, 'box': [5, 5, 9, 9], 'labels': ['wave', 'wave']},
          {'frame': 8, 'labels': []},
        ],
      },
      'b': {'split': 'train', 'width': 80, 'height': 40, 'num_frames': 9, 'tubes': []},
    },
  }
  path = tmp_path / 'own.json'
  path.write_text(json.dumps(content))
  truth = ground_truth.read(path)
  assert list(truth.tubes) == ['a'] and tuple(truth.class_names) == ('walk', 'wave')
  found = sorted(
    (tube.label, tube.frames.tolist(), tube.boxes[0].tolist()) for tube in truth.tubes['a']
  )
  assert found == [
    (0, [3, 4, 5], [1, 2, 30, 20]),
    (1, [3, 4, 5], [1, 2, 30, 20]),
  ]
  (alone,) = truth.single_boxes['a']
  assert (alone.label, alone.frames.tolist(), alone.boxes.tolist()) == (1, [8], [[5, 5, 9, 9]])
  # Detections on a frame that is annotated as empty, and on one that is not annotated.
  number = np.zeros(2, np.int64)
  seen = BoxTable(np.array([9, 1]), np.ones((2, 4)), number, np.ones(2), number)
  counted = tube_csv.frame_set(truth, seen)
  assert (counted.num_frames, len(counted.truth.frame)) == (5, 7)
  assert counted.detections.frame.tolist() == [9] and counted.left_out == {
    'detections_on_other_frames': 1
  }
  truth, _ = tube_csv.exclude(truth, seen, {('a', 9), ('a', 8), ('a', 3)})
  assert tube_csv.frame_set(truth, seen).num_frames == 2
