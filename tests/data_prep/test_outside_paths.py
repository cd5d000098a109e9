"""Names in annotation files stay below --videos or --frames; file names may be any bytes."""

import json
import os
import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data_prep import ava, custom, jhmdb
from data_prep.common.sources import find_frames
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.records import RecordReader
from evad_jax.errors import InputError
from evad_jax.formats.problems import Problems
from tests.video.tiny_videos import write_video

GOOD = {'normalised': True, 'boxes': [{'frame': 3, 'box': [0.1, 0.1, 0.6, 0.6], 'labels': ['a']}]}
CLIMBING = ['../private', 'in/../../private', 'in/..', '..']
NO_NAMES = ['', ' ', 'two\nlines', 'zero\0', 'x' * 256]


def prepare(root, videos, *more):
  """Prepares videos of root/videos; returns the problems of the manifest by name."""
  (root / 'a.json').write_text(json.dumps({'classes': ['a'], 'videos': videos}))
  flags = ['--annotations', str(root / 'a.json'), '--videos', str(root / 'videos')]
  custom.main([*flags, '--output', str(root / 'out'), *more])
  manifest = json.loads((root / 'out' / 'manifest.json').read_text())
  return {entry['name']: (entry['kind'], entry['detail']) for entry in manifest['problems']}


@pytest.fixture
def root(tmp_path):
  write_video(tmp_path / 'videos' / 'in' / 'good.mp4', 8)
  write_video(tmp_path / 'private' / 'private.mp4', 8)
  return tmp_path


@pytest.mark.parametrize('name', [*CLIMBING, *NO_NAMES])
def test_names_that_lead_elsewhere_are_left_out_and_told(root, name):
  videos = {'in/good': GOOD, 'by file': GOOD | {'file': name}, name: GOOD}
  found = prepare(root, videos)
  kinds = {kind for kind, _ in found.values()}
  assert kinds == {'bad annotation'} and len(found) == 2
  assert found['by file'][1].startswith(f'"file" {name[:100]!r} ')
  assert set(RecordIndex.open(root / 'out', 'train').record_video) == {'in/good'}


def test_absolute_paths_lead_below_the_directory_or_nowhere(root):
  inside, outside = root / 'videos' / 'in' / 'good.mp4', root / 'private' / 'private.mp4'
  beside = root / 'videos2'  # the same prefix, another directory
  write_video(beside / 'b.mp4', 8)
  videos = {
    'inside': GOOD | {'file': str(inside)},
    'outside': GOOD | {'file': str(outside)},
    'beside': GOOD | {'file': str(beside / 'b.mp4')},
    str(outside): GOOD,
  }
  found = prepare(root, videos)
  assert {kind for kind, _ in found.values()} == {'path outside'}
  assert sorted(found) == sorted(['outside', 'beside', str(outside)])
  assert (
    f"'{outside}' is elsewhere; it has to be the name of something below" in found['outside'][1]
  )
  assert set(RecordIndex.open(root / 'out', 'train').record_video) == {'inside'}


@pytest.mark.parametrize('name', [*CLIMBING, '/etc', *NO_NAMES])
def test_frame_folders_of_any_data_set_are_below_frames(root, name):
  with pytest.raises(InputError, match=f'something below {root}/videos'):
    find_frames([name], None, str(root / 'videos'))


def test_a_csv_and_a_pickle_that_climb(root):
  (root / 'train.csv').write_text('../private,0903,0.1,0.1,0.5,0.5,1,0\n')
  (root / 'labels.pbtxt').write_text('item { name: "a" id: 1 }')
  words = ['--train-csv', str(root / 'train.csv'), '--labels', str(root / 'labels.pbtxt')]
  words += ['--frames', str(root / 'videos'), '--output', str(root / 'out')]
  with pytest.raises(InputError, match=r"'../private' leaves its directory by .."):
    ava.main(words)
  name = 'catch/../../private'
  content = {
    'labels': list(jhmdb.CLASSES),
    'gttubes': {name: {1: [np.array([[1, 1, 1, 9, 9]], np.float32)]}},
    'nframes': {name: 8},
    'resolution': {name: (64, 96)},
    'train_videos': [[name]] * 3,
    'test_videos': [[name]] * 3,
  }
  (root / 'a.pkl').write_bytes(pickle.dumps(content))
  words = ['--annotations', str(root / 'a.pkl'), '--frames', str(root / 'videos')]
  with pytest.raises(InputError, match='leaves its directory by ..'):
    jhmdb.main([*words, '--output', str(root / 'out')])


NAMES = {
  'colons': 'a:b',
  'a protocol': 'file:x',
  'quotes': '"a", \'b\'',
  'dots': 'a.b.c',
  'a question': 'a?b#c',
  'letters of the world': 'ü 画 😀',
}


@pytest.mark.parametrize('name', NAMES.values(), ids=NAMES)
def test_videos_of_any_name_are_prepared(root, name):
  (root / 'videos' / f'{name}.mp4').write_bytes((root / 'videos/in/good.mp4').read_bytes())
  assert prepare(root, {name: GOOD, 'by file': GOOD | {'file': f'{name}.mp4'}}) == {}
  index = RecordIndex.open(root / 'out', 'train')
  assert sorted(index.record_video) == sorted([name, 'by file'])
  assert {RecordReader(index)[i].video for i in range(2)} == {name, 'by file'}


@pytest.mark.parametrize('written, searched', [('NFD', 'NFC'), ('NFC', 'NFD')])
def test_accents_may_be_letters_of_their_own(root, written, searched):
  """As on file systems of Macs: é and e + ´ are the same name."""
  on_disk, asked = (unicodedata.normalize(form, 'café') for form in (written, searched))
  assert on_disk != asked
  data = (root / 'videos/in/good.mp4').read_bytes()
  (root / 'videos' / 'in' / f'{on_disk}.mp4').write_bytes(data)
  by_file = GOOD | {'file': f'in/{asked}.mp4'}
  assert prepare(root, {asked: GOOD, 'by file': by_file}) == {}


def test_bytes_that_are_no_text_lie_beside(root):
  """Files that are not annotated are ignored; messages about such names can be printed."""
  (root / 'videos' / os.fsdecode(b'caf\xe9.mp4')).write_bytes(b'no video')
  assert prepare(root, {'good': GOOD}) == {}
  problems = Problems()
  problems.report('no annotation', os.fsdecode(b'caf\xe9'), os.fsdecode(b'of caf\xe9'))
  json.dumps(problems.entries, ensure_ascii=False).encode()
  assert problems.names('no annotation') == [r'caf\xe9']
  assert problems.entries[0]['detail'] == r'of caf\xe9'


def test_a_directory_of_any_bytes(root):
  """For input and output."""
  place = Path(os.fsdecode(os.fsencode(root) + b'/caf\xe9:1'))
  (root / 'videos').rename(place)
  (root / 'a.json').write_text(json.dumps({'classes': ['a'], 'videos': {'in/good': GOOD}}))
  flags = ['--annotations', str(root / 'a.json'), '--videos', str(place)]
  custom.main([*flags, '--output', str(place / 'out')])
  assert len(RecordIndex.open(place / 'out', 'train')) == 1


def test_what_is_missing_is_told_with_where_it_was_looked_for(root):
  videos = {
    'in/good': GOOD,
    'gone': GOOD,
    'gone too': GOOD | {'file': 'in/gone.mp4'},
  }
  found = prepare(root, videos)
  assert found['gone'] == (
    'missing video',
    f'annotated, but there is no gone.avi, .mp4, .mkv, .webm, .mov below {root}/videos; left out',
  )
  assert f'there is no file or folder {root}/videos/in/gone.mp4;' in found['gone too'][1]
  with pytest.raises(InputError, match=f'split .test.: .*gone: missing video: .*{root}/videos'):
    prepare(root, {'in/good': GOOD, 'gone': GOOD | {'split': 'test'}}, '--overwrite')
  folders = find_frames(['in/gone'], None, str(root / 'videos'))
  assert folders.looked_for('in/gone') == f'folder {root}/videos/in/gone of numbered pictures'
