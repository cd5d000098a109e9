"""Detections as text: exact round trip, atomic writing, bad rows by file and line."""

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.formats.detections_csv import (
  COLUMNS,
  ScoredDetections,
  read_with_lines,
  write_detections,
)

GOOD = '1j20qq1JyX4,0902,0.426,0.051,0.986,0.979,12,0.829'


def found(columns, videos, timestamps, boxes, numbers, scores):
  return ScoredDetections(
    tuple(columns), np.array(videos), np.array(timestamps), boxes, np.array(numbers), scores
  )


def read_rows(path):
  return read_with_lines(path)[0]


def test_text_of_a_table(tmp_path):
  boxes = np.array([[0, 0.25, 0.5, 1], [0.1, 0.2, 0.3, 0.4]])
  scores = np.array([[0.75, 0.5], [1e-7, 1.0]])
  table = found(COLUMNS, ['clip, one', 'b'], [7, 1234], boxes, [3, 80], scores)
  assert write_detections(tmp_path / 'd.csv', table) == 4
  assert (tmp_path / 'd.csv').read_text() == (
    'video,timestamp,x1,y1,x2,y2,action_id,score\n'
    '"clip, one",0007,0,0.25,0.5,1,3,0.75\n'
    '"clip, one",0007,0,0.25,0.5,1,80,0.5\n'
    'b,1234,0.1,0.2,0.3,0.4,3,1e-07\n'
    'b,1234,0.1,0.2,0.3,0.4,80,1.0\n'
  )


def test_round_trip_keeps_every_score(tmp_path):
  rng = np.random.default_rng(0)
  boxes = np.sort(rng.random((50, 2, 2)), axis=1).reshape(50, 4).astype(np.float32)
  scores = (rng.random((50, 3)) ** 8).astype(np.float32)
  names = [f'v{i % 7}' for i in range(50)]
  table = found(COLUMNS, names, range(50), boxes, [1, 2, 9], scores)
  assert write_detections(tmp_path / 'new' / 'd.csv', table) == 150
  back = read_rows(tmp_path / 'new' / 'd.csv')
  np.testing.assert_array_equal(back.video, np.repeat(names, 3))
  np.testing.assert_array_equal(back.frame, np.repeat(np.arange(50), 3))
  np.testing.assert_array_equal(back.boxes.astype(np.float32), np.repeat(boxes, 3, axis=0))
  np.testing.assert_array_equal(back.label, np.tile([1, 2, 9], 50))
  np.testing.assert_array_equal(back.score, scores.ravel().astype(np.float64))


def test_failed_write_leaves_the_old_file(tmp_path):
  path = tmp_path / 'd.csv'
  path.write_text(GOOD)
  table = found(COLUMNS, ['a', 'b'], [1, 2], np.zeros((2, 4)), [1], np.zeros((3, 1)))
  with pytest.raises(ValueError):
    write_detections(path, table)  # three scores for two boxes
  assert path.read_text() == GOOD
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  'text',
  [
    'video,timestamp,x1,y1,x2,y2,action_id,score\nv,902,0,0.1,1,1,12,0.5\n',
    # pandas, quoting everything, with its index
    '"","score","x1","y1","x2","y2","action_id","video","timestamp"\n'
    '"0","0.5","0.0","0.1","1.0","1.0","12","v","902"\n',
    # R, whose whole numbers may be doubles
    '"video","timestamp","x1","y1","x2","y2","action_id","score"\n"v",902,0,0.1,1,1,1.2e+01,0.5\n',
    '\ufeffvideo,timestamp,x1,y1,x2,y2,action_id,score\nv,902.000000,0,0.1,1,1,12.0,0.5\n',
    'v,902.000000,0,0.1,1,1,12,0.5\n',
  ],
)
def test_headers_quotes_and_decimal_seconds(tmp_path, text):
  (tmp_path / 'd.csv').write_text(text)
  table = read_rows(tmp_path / 'd.csv')
  assert [column.tolist() for column in table] == [[902], [[0, 0.1, 1, 1]], [12], [0.5], ['v']]
  assert table.frame.dtype == table.label.dtype == np.int64


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('video,frame,x1,y1,x2,y2,label,score\nv,1,0,0,9,9,0,0.5\n', 'has frame numbers and pixels'),
    ('video,timestamp,x1,y1,x2,y2,score\nv,1,0,0,1,1,0.5\n', 'the header names action_id 0 times'),
    ('video,timestamp,x1,y1,x2,y2,action_id,score\n', 'has a header and no rows'),
  ],
)
def test_headers_that_do_not_fit(tmp_path, text, message):
  (tmp_path / 'd.csv').write_text(text)
  with pytest.raises(InputError, match=message):
    read_rows(tmp_path / 'd.csv')


def test_empty_lines_are_skipped_and_an_empty_file_is_an_error(tmp_path):
  path = tmp_path / 'd.csv'
  path.write_text(f'\n{GOOD}\n\n')
  table = read_rows(path)
  assert (table.video[0], table.frame[0], table.label[0]) == ('1j20qq1JyX4', 902, 12)
  path.write_text('\n')
  with pytest.raises(InputError, match='d.csv is empty'):
    read_rows(path)


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('v,1,0,0,1,1,1', '7 columns instead of 8'),
    ('v,1,0,0,1,1,1,0.5,9', '9 columns'),
    ('v,1.5,0,0,1,1,1,0.5', "timestamp is '1.5'; write a whole number"),
    ('v,1,0,0,1,one,1,0.5', "y2 is 'one'; write a finite number"),
    ('v,1,0,nan,1,1,1,0.5', "y1 is 'nan'"),
    ('v,1,0,0,1,1,1,inf', "score is 'inf'"),
    ('v,1,0.5,0,0.4,1,1,0.5', 'ends before it starts'),
    ('v,1,10,20,300,200,1,0.5', 'not normalised'),
    ('v,1,0,0,1,1,0,0.5', 'action ids start at 1'),
    (',1,0,0,1,1,1,0.5', 'the video cell is empty'),
  ],
)
def test_bad_row_names_file_and_line(tmp_path, row, message):
  path = tmp_path / 'detections.csv'
  path.write_text(f'{GOOD}\n{GOOD}\n{row}\n')
  with pytest.raises(InputError) as error:
    read_rows(path)
  assert message in str(error.value)
  assert str(error.value).startswith(f'{path}, line 3: ')


def test_unreadable_files(tmp_path):
  with pytest.raises(InputError, match='nowhere.csv cannot be read'):
    read_rows(tmp_path / 'nowhere.csv')
  with pytest.raises(InputError, match='cannot be read'):
    read_rows(tmp_path)
  (tmp_path / 'binary.csv').write_bytes(b'\x89PNG\r\n\x1a\n\x00')
  with pytest.raises(InputError, match='binary.csv is not UTF-8'):
    read_rows(tmp_path / 'binary.csv')
