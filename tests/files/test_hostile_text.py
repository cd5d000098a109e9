"""JSON, csv and label maps with impossible numbers: every command answers with one sentence.

The check comes before any memory is allocated.
"""

import json

import pytest

from evad_jax import command_line
from evad_jax.errors import LONGEST_SENTENCE, InputError
from evad_jax.files import text_files
from evad_jax.formats import ava_files, class_lists, detections_csv, tube_csv
from evad_jax.formats.annotations import read_annotations
from evad_jax.tools import score


def own(**entry):
  return {'classes': ['a', 'b'], 'videos': {'v': {'width': 176, 'height': 144, **entry}}}


def box(**item):
  return own(boxes=[{'frame': 5, 'box': [1, 1, 50, 50], 'labels': ['a'], **item}])


def act(**change):
  content = {
    'labels': ['a'],
    'gttubes': {'v': {'0': [[[1, 1, 1, 5, 5]]]}},
    'nframes': {'v': 3},
    'resolution': {'v': [240, 320]},
  }
  return content | change


ANNOTATIONS = {
  'a tube that starts at 10**30': (
    own(tubes=[{'labels': ['a'], 'start': 10**30, 'boxes': [[1, 1, 5, 5]]}]),
    '"start" is 10{30}, not a whole number',
  ),
  'a box at frame 2**62': (box(frame=2**62), '"frame" is 4611686018427387904, not a whole number'),
  'a coordinate of 10**400': (box(box=[1, 1, 10**400, 5]), '"box" is not .x1, y1, x2, y2'),
  'a coordinate of 1e300': (box(box=[1, 1, 1e300, 5]), '"box" is not .x1, y1, x2, y2'),
  'a coordinate that is none': (box(box=[1, 1, float('nan'), 5]), '"box" is not'),
  'a coordinate that is true': (box(box=[True, 1, 5, 5]), '"box" is not'),
  'a width of 10**400': (own(width=10**400), '"width" is 10{59}.*, not a whole number'),
  '10**30 frames': (own(num_frames=10**30), '"num_frames" is 10{30}, not a whole number'),
  '10**8 frames a second': (own(fps=10**8), '"fps" is 100000000, not a number from 0.001 to'),
  'a label that is a list': (box(labels=[['a']]), '"labels" are not all names'),
  'time without end': (
    own(boxes=[{'time': 1e6, 'labels': []}]),
    '"time" is 1000000.0, beyond the end',
  ),
  'lengths in a list': (act(nframes=[]), 'unexpected form'),
  'a list as an entry': (act(gttubes={'v': []}), 'unexpected form'),
  '10**30 frames of ACT': (act(nframes={'v': 10**30}), 'v: has 10{30} frames, not 0 to'),
  'a label that is no class': (
    act(gttubes={'v': {'3': [[[1, 1, 1, 5, 5]]]}}),
    'v: bad tube: there is no class 3',
  ),
  'a label of words': (act(gttubes={'v': {'x': [[[1, 1, 1, 5, 5]]]}}), 'unexpected form'),
  'a label of -1': (act(gttubes={'v': {'-1': [[[1, 1, 1, 5, 5]]]}}), 'there is no class -1'),
  'frame 1e18': (act(gttubes={'v': {'0': [[[1e18, 1, 1, 5, 5]]]}}), 'no video has a frame 1e'),
  'boxes without end': (act(gttubes={'v': {'0': [[[1, 1, 1, 5, 1e9]]]}}), 'a box is not finite'),
  'frames of words': (act(nframes={'v': 'x'}), 'unexpected form'),
  'a resolution of one': (act(resolution={'v': 5}), 'unexpected form'),
}


@pytest.mark.parametrize(('content', 'message'), ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_annotations(tmp_path, content, message):
  message = message.replace('frame 1e', 'frame 10{16}|no video has a frame 9{18}')
  (tmp_path / 'a.json').write_text(json.dumps(content))
  with pytest.raises(InputError, match=f'a.json: .*({message})'):
    read_annotations(tmp_path / 'a.json')
  with pytest.raises(SystemExit) as stopped:  # the command that scores refuses them too
    words = ['--groundtruth', str(tmp_path / 'a.json'), '--detections', 'd.csv']
    command_line.run(score.main, ['--protocol', 'frame', *words])
  assert stopped.value.code == 2


CSV = {
  'label 10**8': (tube_csv.read_truth, 'v,1,1,1,5,5,100000000,0', 'no class 100000000'),
  'label 20000': (tube_csv.read_truth, 'v,1,1,1,5,5,20000,0', 'no class 20000'),
  'frame 10**8': (tube_csv.read_truth, 'v,100000000,1,1,5,5,0,0', 'no frame 100000000'),
  'huge boxes': (tube_csv.read_truth, 'v,1,-1e308,-1e308,1e308,1e308,0,0', 'beyond 1000000'),
  'action 10**12': (ava_files.read_truth, 'v,902,0,0,1,1,1000000000000,0', 'action_id is 10+,'),
  'second 2**52': (ava_files.read_truth, 'v,4503599627370496,0,0,1,1,1,0', 'second is 45035'),
  'excluded second': (ava_files.read_exclusions, 'v,4503599627370496', 'second is 45035'),
  'score 1e400': (detections_csv.read_with_lines, 'v,902,0,0,1,1,1,1e400', "score is '1e400'"),
  'a name of 1,000 letters': (tube_csv.read_truth, 'v' * 1000 + ',1,1,1,5,5,0,0', '300 characters'),
}


@pytest.mark.parametrize(('read', 'row', 'message'), CSV.values(), ids=CSV)
def test_csv(tmp_path, read, row, message):
  (tmp_path / 'a.csv').write_text(f'{row}\n')
  with pytest.raises(InputError, match=f'a.csv, line 1: .*{message}'):
    read(tmp_path / 'a.csv')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('item { name: "a" id: 1000000000000 }', 'the id 1000000000000 is not a whole number from 0'),
    (f'item {{ name: "a" id: {"9" * 5000} }}', 'is not a whole number from 0 to'),
    ('item { name: "a\\x" id: 1 }', r'the name "a\\x" has an invalid \\ escape'),
    ('item { name: "a\\N{nothing}" id: 1 }', r'has an invalid \\ escape'),
  ],
)
def test_label_maps(tmp_path, text, message):
  (tmp_path / 'a.pbtxt').write_text(text)
  with pytest.raises(InputError, match=f'a.pbtxt, line 1: .*{message}'):
    class_lists.read(tmp_path / 'a.pbtxt')


def test_many_names_are_told_apart_in_no_time(within):
  """Three by hand; then 5,000 of the same name, which a quadratic search takes seconds for."""
  assert class_lists.distinct(['a', 'b', 'a'], [1, 2, 3]) == ['a (1)', 'b', 'a (3)']
  with within(0.5):
    found = class_lists.distinct(['a'] * 4999 + ['a (7)'], range(5000))
  assert len(set(found)) == 5000


def test_a_name_that_stands_twice_is_found_in_no_time(tmp_path, within):
  names = [f'"n{i}": 0' for i in range(50_000)]
  (tmp_path / 'a.json').write_text('{' + ','.join([*names, '"n49999": 1']) + '}')
  with within(1), pytest.raises(InputError, match="'n49999' occurs twice"):
    text_files.read_json(tmp_path / 'a.json', 'x')


def test_devices_are_no_files(tmp_path):
  (tmp_path / 'manifest.json').symlink_to('/dev/zero')
  with pytest.raises(InputError, match='manifest.json is a device, not a file; give x'):
    text_files.read_json(tmp_path / 'manifest.json', 'x')


def test_what_a_sentence_quotes_has_an_end():
  told = str(InputError('a' * 10**6 + '; do this'))
  assert len(told) < LONGEST_SENTENCE + 10 and told.endswith('a; do this')
