"""Files of the frame and video protocols: forms of rows, which frames count, faults by line."""

import re

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.formats import tube_csv
from evad_jax.formats.box_table import BoxTable
from evad_jax.formats.tube_csv import frame_set, read_detections, read_truth

OTHER = 'detections_on_other_frames'
TRUTH = """\
b,3,0,0,10,10,1,0
a,2,0,0,10,12,0,left
a,1,0,0,10,11,0,left
a,1,5,5,10,10,0,right
a,2,0,0,10,12,2,left
"""
DETECTION = 'a,1,0,0,10,10,0,0.5'


def written(tmp_path, text):
  path = tmp_path / 'file.csv'
  path.write_text(text)
  return path


def test_truth(tmp_path):
  truth = read_truth(written(tmp_path, TRUTH))
  assert list(truth.tubes) == ['b', 'a']
  found = [(t.label, t.frames.tolist(), t.boxes[:, 3].tolist()) for t in truth.tubes['a']]
  assert found == [(0, [1, 2], [11, 12]), (0, [1], [10]), (2, [2], [12])]
  assert (truth.num_frames, truth.class_names) == (None, None)


@pytest.mark.parametrize(
  'text',
  [
    'b,7,1,2,3.5,4,2,0.25\na,1,0,0,9,9,0,1e-3\n',
    'video,frame,x1,y1,x2,y2,label,score\nb,7,1,2,3.5,4,2,0.25\na,1,0,0,9,9,0,1e-3\n',
    'score,label,video,note,frame,x1,y1,x2,y2,\n0.25,2,b,,7,1,2,3.5,4,\n1e-3,0,a,x,1,0,0,9,9,\n',
    'video_index,frame,label,score,x1,y1,x2,y2\n1,7,2,0.25,1,2,3.5,4\n0,1,0,0.001,0,0,9,9\n',
  ],
)
def test_detections_in_every_form(tmp_path, text):
  rows = read_detections(written(tmp_path, text), ['a', 'b'], 3)
  assert [column.tolist() for column in rows] == [
    [7, 1],
    [[1, 2, 3.5, 4], [0, 0, 9, 9]],
    [2, 0],
    [0.25, 0.001],
    [1, 0],
  ]


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('a,1,0,0,10,10,0', '7 columns instead of 8'),
    ('a,1,0,nan,10,10,0,0.5', "y1 is 'nan'; write a finite number"),
    ('a,1,0,0,10,10,0,high', "score is 'high'"),
    ('a,1,10,0,0,10,0,0.5', 'the box ends before it starts'),
    ('a,0,0,0,10,10,0,0.5', 'there is no frame 0; frames are counted from 1'),
    ('a,9,0,0,10,10,0,0.5', 'there is no frame 9 in a, which has 8 frames'),
    ('c,1,0,0,10,10,0,0.5', "video 'c' is not one of the 2 that are scored"),
    ('a,1,0,0,10,10,3,0.5', 'there is no class 3; the labels go from 0 to 2'),
    ('a,1,0,0,10,10,-1,0.5', 'there is no class -1'),
  ],
)
def test_bad_detection_names_file_and_line(tmp_path, row, message):
  path = written(tmp_path, f'{DETECTION}\n\n{row}\n{DETECTION}\n')
  with pytest.raises(InputError, match=re.escape(message)) as error:
    read_detections(path, ['a', 'b'], 3, {'a': 8, 'b': 8})
  assert str(error.value).startswith(f'{path}, line 3: ')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'is empty'),
    ('video,frame,x1,y1,x2,y2,label,score\n', 'has a header and no rows'),
    ('video,frame,x1,y1,x2,y2,label\n', 'the header names score 0 times'),
    ('video,frame,x1,y1,x2,y2,label,score,label\n', 'the header names label 2 times'),
    ('video_index,frame,label,score,x1,y1,x2,y2\n2,1,0,0.5,0,0,1,1\n', 'there is no video 2'),
  ],
)
def test_bad_file_of_detections(tmp_path, text, message):
  with pytest.raises(InputError, match=message):
    read_detections(written(tmp_path, text), ['a', 'b'], 3)


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('a,1,0,0,10,10,0', '7 columns instead of 8'),
    ('a,1,0,0,10,10,0,', 'the tube_id cell is empty'),
    ('a,1,0,12,10,10,0,0', 'the box ends before it starts'),
    ('a,2,0,0,10,10,0,left', 'the tube has another box in this frame already'),
  ],
)
def test_bad_truth_names_file_and_line(tmp_path, row, message):
  path = written(tmp_path, f'{TRUTH}{row}\n')
  with pytest.raises(InputError, match=re.escape(message)) as error:
    read_truth(path)
  assert str(error.value).startswith(f'{path}, line 6: ')


def test_frames_that_count(tmp_path):
  truth = read_truth(written(tmp_path, TRUTH))
  rows = read_detections(
    written(tmp_path, 'b,4,0,0,1,1,0,0.5\na,1,0,0,1,1,1,0.6\nb,3,0,0,1,1,2,0.7\n'), ['b', 'a'], 3
  )
  some = frame_set(truth, rows)
  assert (some.num_frames, some.left_out) == (3, {OTHER: 1})
  assert some.detections.score.tolist() == [0.6, 0.7]
  assert len(some.truth.frame) == 5 and np.isin(some.detections.frame, some.truth.frame).all()
  every = frame_set(truth, rows, all_frames=True)
  assert (every.num_frames, every.left_out) == (4, {OTHER: 0})
  assert every.detections.score.tolist() == [0.5, 0.6, 0.7]
  known = truth._replace(num_frames={'a': 20, 'b': 30})
  assert frame_set(known, rows, all_frames=True).num_frames == 50


def test_excluded_frames_and_the_highest_of_a_frame(tmp_path):
  truth = read_truth(written(tmp_path, TRUTH))
  rows = BoxTable(
    frame=np.array([1, 3, 2, 1, 1]),
    boxes=np.zeros((5, 4)),
    label=np.array([0, 1, 2, 1, 2]),
    score=np.array([0.3, 0.1, 0.9, 0.5, 0.3]),
    video=np.array([1, 0, 1, 1, 1]),
  )
  truth, left = tube_csv.exclude(truth, rows, {('a', 2), ('b', 3), ('c', 1)})
  assert [t.frames.tolist() for t in truth.tubes['a']] == [[1], [1]]
  assert truth.tubes['b'] == []
  assert left.score.tolist() == [0.3, 0.5, 0.3]
  highest = rows.select(rows.highest_per_frame(2))
  assert highest.score.tolist() == [0.3, 0.1, 0.9, 0.5]
  assert highest.label.tolist() == [0, 1, 2, 1]
