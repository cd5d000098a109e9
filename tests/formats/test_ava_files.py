"""AVA's text files: rows by hand, the published files, and every fault by file and line."""

import re

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.formats.ava_files import read_exclusions, read_label_map, read_truth
from tests import external

AVA_EVAL = external.DATA / 'ava_eval'
published = pytest.mark.skipif(not AVA_EVAL.exists(), reason=external.missing(AVA_EVAL))
GOOD = '1j20qq1JyX4,0902,0.002,0.118,0.714,0.977,12,1'


def written(tmp_path, text):
  path = tmp_path / 'file.txt'
  path.write_text(text)
  return path


def test_rows_of_every_width(tmp_path):
  path = written(
    tmp_path,
    'a_,0902,0.1,0.2,0.3,0.4,12,7\r\n'
    '\n'
    '"b, c",903,0,0.25,1,1,80\n'
    '"b, c",1798\n'
    'a_,0904,,,,,,\n'
    'a_,905,0.5,0.5,0.5,0.5,1,\n',
  )
  rows = read_truth(path)
  assert rows.video.tolist() == ['a_', 'b, c', 'b, c', 'a_', 'a_']
  assert rows.frame.tolist() == [902, 903, 1798, 904, 905]
  assert rows.boxes.tolist() == [
    [0.1, 0.2, 0.3, 0.4],
    [0, 0.25, 1, 1],
    [0] * 4,
    [0] * 4,
    [0.5] * 4,
  ]
  assert rows.label.tolist() == [12, 80, 0, 0, 1]


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('v,902,0,0,1', '5 columns instead of 2, 7 or 8'),
    ('v,902,0,0,1,1,12,3,0.5', '9 columns'),
    ('v', '1 columns'),
    ('v,902,0,nan,1,1,12,3', "y1 is 'nan'; write a finite number"),
    ('v,902,0,0,1,inf,12,3', "y2 is 'inf'"),
    ('v,902,0,0,one,1,12,3', "x2 is 'one'"),
    ('v,902.5,0,0,1,1,12,3', "second is '902.5'; write a whole number"),
    ('v,902,0,0,1,1,1_2,3', "action_id is '1_2'"),
    ('v,902,0.5,0,0.4,1,12,3', 'the box ends before it starts'),
    ('v,902,10,20,300,200,12,3', 'the box is not normalised'),
    ('v,902,0,0,1,1,0,3', 'action_id is 0, but action ids start at 1'),
    ('v,-1,0,0,1,1,12,3', 'second is -1'),
    (',902,0,0,1,1,12,3', 'the video cell is empty'),
    ('"v,902,0,0,1,1,12,3', 'close its quotes'),
  ],
)
def test_bad_truth_names_file_and_line(tmp_path, row, message):
  path = written(tmp_path, f'{GOOD}\n\n{GOOD}\n{row}\n{GOOD}\n')
  with pytest.raises(InputError, match=re.escape(message)) as error:
    read_truth(path)
  assert str(error.value).startswith(f'{path}, line 4: ')


@pytest.mark.parametrize('read', [read_truth, read_exclusions, read_label_map])
def test_files_that_cannot_be_read(tmp_path, read):
  with pytest.raises(InputError, match='nowhere.csv cannot be read'):
    read(tmp_path / 'nowhere.csv')
  if read is not read_exclusions:  # which may be none
    with pytest.raises(InputError, match='file.txt is empty'):
      read(written(tmp_path, '\n  \n'))
  (tmp_path / 'binary.csv').write_bytes(b'\x89PNG\r\n\x1a\n\x00')
  with pytest.raises(InputError, match='binary.csv is not UTF-8'):
    read(tmp_path / 'binary.csv')


@pytest.mark.parametrize('text', ['', '\n', '\ufeff', 'video,second\n', '"video","timestamp"\n'])
def test_nothing_is_excluded(tmp_path, text):
  assert read_exclusions(written(tmp_path, text)) == set()


@pytest.mark.parametrize(
  'text',
  [
    'v,0902,0,0.5,1,1,12,3\nv,0903\n',
    'v,902.000000,0,0.5,1,1,12,3\nv,903.000000\n',
    'video,second,x1,y1,x2,y2,action_id,person_id\nv,902,0,0.5,1,1,12,3\nv,903,,,,,,\n',
    '"","person_id","video","timestamp","action_id","x1","y1","x2","y2"\n'
    '"1","3","v","902","12","0","0.5","1","1"\n"2","","v","903","","","","",""\n',
  ],
)
def test_truth_with_headers_quotes_and_decimal_seconds(tmp_path, text):
  rows = read_truth(written(tmp_path, text))
  assert rows.video.tolist() == ['v', 'v'] and rows.frame.tolist() == [902, 903]
  assert rows.boxes.tolist() == [[0, 0.5, 1, 1], [0] * 4]
  assert rows.label.tolist() == [12, 0]


def test_a_header_without_people_ids_and_one_without_seconds(tmp_path):
  rows = read_truth(written(tmp_path, 'action_id,x1,y1,x2,y2,video,second\n5,0,0,1,1,v,9\n'))
  assert (rows.label.tolist(), rows.boxes.tolist()) == ([5], [[0, 0, 1, 1]])
  with pytest.raises(InputError, match='line 1: the header names second 0 times'):
    read_truth(written(tmp_path, 'video,x1,y1,x2,y2,action_id\nv,0,0,1,1,5\n'))
  with pytest.raises(InputError, match="line 2: second is '902.5'; write a whole number"):
    read_truth(written(tmp_path, 'video,second\nv,902.5\n'))


def test_exclusions(tmp_path):
  path = written(tmp_path, 'a,0902\nb,1798\na,0902\n')
  assert read_exclusions(path) == {('a', 902), ('b', 1798)}
  with pytest.raises(InputError, match='line 2: 1 columns instead of 2; write video,second'):
    read_exclusions(written(tmp_path, 'a,0902\nb\n'))


def test_label_map_in_both_spellings(tmp_path):
  path = written(
    tmp_path,
    '# the 2.2 spelling\n'
    'label {\n  name: "talk to (e.g., self, a \\"person\\")"\n  label_id: 79\n'
    '  label_type: PERSON_INTERACTION\n}\n'
    "item { name: 'bend #1' id: 1 }  # on one line\n"
    'item {\n  id: 3\n  name: "bend #1"\n}',
  )
  expected = {79: 'talk to (e.g., self, a "person")', 1: 'bend #1', 3: 'bend #1'}
  assert list(read_label_map(path).items()) == list(expected.items())


@pytest.mark.parametrize(
  ('text', 'line', 'message'),
  [
    ('item {\n  name: "a"\n  id: 1\n}\nwalk\n', 5, "'walk' does not belong here"),
    ('item {\n  name "a"\n  id: 1\n}\n', 2, '\'name "a"\' does not belong here'),
    ('item {\n  id: 1\n}\n', 3, 'has no name'),
    ('item {\n  name: "a"\n}\n', 3, 'has no id'),
    ('item {\n  name: a\n  id: 1\n}\n', 4, 'the name a is not in quotes'),
    ('item {\n  name: "a"\n  id: one\n}\n', 4, 'the id one is not a whole number'),
    ('item { name: "a" id: 1 }\nitem { name: "b" id: 1 }\n', 2, 'the id 1 was given before'),
    ('item {\n  name: "a"\n  id: 1\n', 3, 'the last entry is not closed'),
    ('}\n', 1, "'}' does not belong here"),
    ('# nothing\n', 1, 'the list ends without an entry'),
  ],
)
def test_bad_label_map_names_file_and_line(tmp_path, text, line, message):
  path = written(tmp_path, text)
  with pytest.raises(InputError, match=re.escape(message)) as error:
    read_label_map(path)
  assert str(error.value).startswith(f'{path}, line {line}: ')


@published
def test_published_files():
  every = read_label_map(AVA_EVAL / 'ava_action_list_v2.2.pbtxt')
  assert list(every) == list(range(1, 81))
  for name in ('v2.2_for_activitynet_2019', 'v2.1_for_activitynet_2018'):
    scored = read_label_map(AVA_EVAL / f'ava_action_list_{name}.pbtxt')
    assert len(scored) == 60
    assert all(every[number] == name for number, name in scored.items())
  assert read_label_map(AVA_EVAL / 'mmaction2_fixture' / 'action_list.txt')[3] == 'action3'
  excluded = read_exclusions(AVA_EVAL / 'ava_val_excluded_timestamps_v2.2.csv')
  assert len(excluded) == 37 and ('5BDj0ow5hnA', 1038) in excluded
  rows = read_truth(AVA_EVAL / 'ava_val_v2.1_pose_only.csv')
  assert len(rows.video) == 93400 and len(set(rows.video.tolist())) == 64
  assert np.isin(rows.label, range(1, 15)).all()
