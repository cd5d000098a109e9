"""The four files of a video: by hand, as the scorer reads them, and after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.formats import tube_csv
from evad_jax.inference import result_files
from evad_jax.inference.person_tracks import People
from evad_jax.inference.result_files import DetectionFiles
from tests.micro_checkpoint import CLASSES

ROOT = Path(__file__).resolve().parents[2]
NAMES = ['stand', 'walk', 'talk to (e.g., self)']
SIZE = (100, 200)  # height, width
# Writes until it is killed; prints a line after 200 keyframes.
ENDLESS = """
import itertools, sys
from pathlib import Path
from evad_jax.inference.result_files import DetectionFiles
from tests.inference.test_result_files import NAMES, SIZE, somebody
files = DetectionFiles(Path(sys.argv[1]), 'a.mp4', NAMES, 0.0)
for number in itertools.count():
  files.add(somebody(number, ended=(number - 1,) if number else ()), number / 25, SIZE)
  if number == 200:
    print('written', flush=True)
"""


def people_of(frame, *rows, ended=()):
  """Rows of id, box, person score, action scores."""
  ids, boxes, scores, actions = zip(*rows, strict=True) if rows else ((), (), (), ())
  return People(
    frame=frame,
    ids=np.array(ids, np.int64),
    boxes=np.array(boxes, np.float32).reshape(-1, 4),
    person_scores=np.array(scores, np.float32),
    action_scores=np.array(actions, np.float32).reshape(-1, 3),
    ended=ended,
  )


def somebody(number, **changes):
  return people_of(number, (number, (0.1, 0.2, 0.3, 0.4), 0.9, (0.1, 0.2, 0.3)), **changes)


@pytest.fixture
def written(tmp_path):
  """Person 4 on keyframes 0 and 8, person 9 on 8 alone; 4 is gone after 16."""
  with DetectionFiles(tmp_path / 'new' / 'a.b', 'a.mp4', NAMES, 0.05) as files:
    first = (4, (0.1, 0.2, 0.5, 1.0), 0.75, (0.5, 0.04, 0.25))
    files.add(people_of(0, first), 0.0, SIZE)
    second = (9, (0, 0, 0.25, 0.5), 0.875, (0.03, 0.02, 0.01))
    third = (4, (0.15, 0.2, 0.55, 1.0), 0.8125, (0.25, 0.0, 0.75))
    files.add(people_of(8, second, third), 0.26667, SIZE)
    files.add(people_of(16, ended=(4,)), 0.53333, SIZE)
    assert (files.num_people, files.num_keyframes) == (2, 3)
    early = (tmp_path / 'new' / 'a.b_tubes.jsonl').read_text()
  return tmp_path / 'new' / 'a.b', early


def text(prefix, name):
  return prefix.with_name(f'{prefix.name}_{name}').read_text()


def test_detections_by_hand(written):
  """Frames from 1, pixels of 100 x 200, actions from 0.05 on in falling score."""
  prefix, _ = written
  assert text(prefix, 'detections.csv').split('\n') == [
    'video,frame,seconds,person_id,x1,y1,x2,y2,person_score,label,action,score',
    'a.mp4,1,0.0,4,20.0,20.0,100.0,100.0,0.75,0,stand,0.5',
    'a.mp4,1,0.0,4,20.0,20.0,100.0,100.0,0.75,2,"talk to (e.g., self)",0.25',
    'a.mp4,9,0.2667,4,30.0,20.0,110.0,100.0,0.8125,2,"talk to (e.g., self)",0.75',
    'a.mp4,9,0.2667,4,30.0,20.0,110.0,100.0,0.8125,0,stand,0.25',
    '',
  ]
  assert [json.loads(line) for line in text(prefix, 'detections.jsonl').splitlines()] == [
    {
      'video': 'a.mp4',
      'frame': 1,
      'seconds': 0.0,
      'people': [
        {
          'id': 4,
          'box': [20.0, 20.0, 100.0, 100.0],
          'score': 0.75,
          'actions': {'stand': 0.5, 'talk to (e.g., self)': 0.25},
        }
      ],
    },
    {
      'video': 'a.mp4',
      'frame': 9,
      'seconds': 0.2667,
      'people': [
        {'id': 9, 'box': [0.0, 0.0, 50.0, 50.0], 'score': 0.875, 'actions': {}},
        {
          'id': 4,
          'box': [30.0, 20.0, 110.0, 100.0],
          'score': 0.8125,
          'actions': {'talk to (e.g., self)': 0.75, 'stand': 0.25},
        },
      ],
    },
    {'video': 'a.mp4', 'frame': 17, 'seconds': 0.5333, 'people': []},
  ]


def test_tubes_by_hand(written):
  """Every person has a row per keyframe, and a line with means and maxima at the end."""
  prefix, early = written
  assert text(prefix, 'tubes.csv').split('\n') == [
    'video,person_id,frame,seconds,x1,y1,x2,y2,person_score',
    'a.mp4,4,1,0.0,20.0,20.0,100.0,100.0,0.75',
    'a.mp4,9,9,0.2667,0.0,0.0,50.0,50.0,0.875',
    'a.mp4,4,9,0.2667,30.0,20.0,110.0,100.0,0.8125',
    '',
  ]
  gone = {
    'video': 'a.mp4',
    'id': 4,
    'first_frame': 1,
    'last_frame': 9,
    'first_seconds': 0.0,
    'last_seconds': 0.2667,
    'keyframes': 2,
    'score': 0.78125,
    'actions': {
      'talk to (e.g., self)': {'mean': 0.5, 'highest': 0.75},
      'stand': {'mean': 0.375, 'highest': 0.5},
    },
  }
  assert json.loads(early) == gone  # while the files were open
  lines = [json.loads(line) for line in text(prefix, 'tubes.jsonl').splitlines()]
  assert lines[0] == gone and len(lines) == 2
  assert (lines[1]['id'], lines[1]['keyframes'], lines[1]['actions']) == (9, 1, {})
  assert (lines[1]['first_frame'], lines[1]['last_frame']) == (9, 9)


def test_the_scorer_reads_the_detections(written):
  prefix, _ = written
  rows = tube_csv.read_detections(f'{prefix}_detections.csv', ['other.mp4', 'a.mp4'], 3)
  assert rows.video.tolist() == [1] * 4 and rows.frame.tolist() == [1, 1, 9, 9]
  assert rows.label.tolist() == [0, 2, 2, 0] and rows.score.tolist() == [0.5, 0.25, 0.75, 0.25]
  np.testing.assert_array_equal(rows.boxes[2], [30, 20, 110, 100])


@pytest.mark.parametrize('lowest, count', [(0.0, 5), (0.05, 4), (0.3, 2), (0.9, 0)])
def test_the_lowest_score(tmp_path, lowest, count):
  scores = np.array([0.3, 0.06, 0.5, 0.29, 0.0], np.float64)
  somewhere = np.array([[0, 0, 1, 1]], np.float32)
  people = People(0, np.array([0]), somewhere, np.array([0.9]), scores[None])
  with DetectionFiles(tmp_path / 'a', 'a.mp4', CLASSES, lowest) as files:
    files.add(people, 0.0, SIZE)
  rows = list(csv.DictReader((tmp_path / 'a_detections.csv').read_text().splitlines()))
  assert [float(row['score']) for row in rows] == sorted(scores, reverse=True)[:count]
  (line,) = map(json.loads, (tmp_path / 'a_tubes.jsonl').read_text().splitlines())
  assert len(line['actions']) == count


def test_scores_keep_all_their_digits(tmp_path):
  """Two scores that differ in the seventh digit, and the largest float32 below 1."""
  scores = np.array([0.1234567, 0.1234566, 1 - 2**-24], np.float32)
  people = People(0, np.array([0]), np.array([[0, 0, 1, 1]]), scores[:1], scores[None])
  with DetectionFiles(tmp_path / 'a', 'a.mp4', NAMES, 0.0) as files:
    files.add(people, 0.0, SIZE)
  rows = list(csv.DictReader((tmp_path / 'a_detections.csv').read_text().splitlines()))
  found = {int(row['label']): np.float32(row['score']) for row in rows}
  assert [found[label] for label in range(3)] == scores.tolist()
  assert {row['person_score'] for row in rows} == {'0.1234567'}
  (line,) = map(json.loads, (tmp_path / 'a_tubes.jsonl').read_text().splitlines())
  assert line['actions']['walk'] == {'mean': 0.1234566, 'highest': 0.1234566}


def test_ids_of_a_label_map(tmp_path):
  with DetectionFiles(tmp_path / 'a', 'a.mp4', NAMES, 0.15, [3, 27, 80]) as files:
    files.add(somebody(0), 0.0, SIZE)
  rows = list(csv.DictReader((tmp_path / 'a_detections.csv').read_text().splitlines()))
  found = [(row['label'], row['action'], row['action_id']) for row in rows]
  assert found == [('2', NAMES[2], '80'), ('1', 'walk', '27')]
  rows = tube_csv.read_detections(tmp_path / 'a_detections.csv', ['a.mp4'], 3)
  assert rows.label.tolist() == [2, 1]


def test_two_classes_of_one_name_are_kept_apart(tmp_path):
  people = People(0, np.array([0]), np.ones((1, 4)), np.ones(1), np.array([[0.9, 0.5, 0.1]]))
  with DetectionFiles(tmp_path / 'a', 'a.mp4', ['do', 'rest', 'do'], 0.0) as files:
    files.add(people, 0.0, SIZE)
  (line,) = map(json.loads, (tmp_path / 'a_detections.jsonl').read_text().splitlines())
  assert line['people'][0]['actions'] == {'do (0)': 0.9, 'rest': 0.5, 'do (2)': 0.1}
  (line,) = map(json.loads, (tmp_path / 'a_tubes.jsonl').read_text().splitlines())
  assert {name: each['mean'] for name, each in line['actions'].items()} == {
    'do (0)': 0.9,
    'rest': 0.5,
    'do (2)': 0.1,
  }


def test_every_line_is_whole_after_a_kill(tmp_path):
  """All of the 201 keyframes, and perhaps more: rows may be missing, but none is incomplete."""
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  words = [sys.executable, '-c', ENDLESS, str(tmp_path / 'a')]
  with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as process:
    assert process.stdout.readline() == b'written\n'
    process.kill()
  assert process.returncode == -signal.SIGKILL
  for path in result_files.paths(tmp_path / 'a'):
    content = path.read_text()
    assert content.endswith('\n')
    if path.suffix == '.jsonl':
      lines = [json.loads(line) for line in content.splitlines()]
      assert len(lines) >= 200
    else:
      rows = list(csv.reader(content.splitlines()))
      assert len(rows) > 201 and {len(row) for row in rows} == {len(rows[0])}
  rows = tube_csv.read_detections(tmp_path / 'a_detections.csv', ['a.mp4'], 3)
  assert rows.frame[:603].tolist() == [frame for frame in range(1, 202) for _ in range(3)]


def test_bad_input_before_anything_was_found_leaves_no_files(tmp_path):
  for count, error in ((0, InputError), (1, InputError), (0, KeyboardInterrupt)):
    with pytest.raises(error), DetectionFiles(tmp_path / 'a', 'a.mp4', NAMES, 0.0) as files:
      for number in range(count):
        files.add(somebody(number), 0.0, SIZE)
      raise error('broken')
    assert len(list(tmp_path.iterdir())) == (0 if (count, error) == (0, InputError) else 4)


def test_names_of_the_files(tmp_path):
  paths = result_files.paths(tmp_path / 'a.b')
  assert [path.name for path in paths] == [
    'a.b_detections.csv',
    'a.b_detections.jsonl',
    'a.b_tubes.csv',
    'a.b_tubes.jsonl',
  ]


@pytest.mark.parametrize(
  'output, prefix',
  [
    ('seen.mp4', 'seen'),
    ('seen.MKV', 'seen'),
    ('seen', 'seen'),
    ('cam.1', 'cam.1'),
    ('cam.2', 'cam.2'),
    ('cam.1.mov', 'cam.1'),
    ('2024-01-01T12.30.59', '2024-01-01T12.30.59'),
  ],
)
def test_the_end_of_a_video_alone_is_taken_from_a_name(output, prefix):
  assert result_files.prefix_of(Path('a.b', output)) == Path('a.b', prefix)


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('no folder')
  with pytest.raises(InputError, match='file/a: the results cannot be written'):
    DetectionFiles(tmp_path / 'file' / 'a', 'a.mp4', NAMES, 0.0)
