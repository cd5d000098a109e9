"""The summary of a prepared data set, against counts of the annotations, and its picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import custom, inspect_records
from evad_jax.data.records import RecordIndex, RecordReader
from evad_jax.errors import InputError
from evad_jax.visualization.contact_sheet import TRUTH_COLOUR
from tests.damage import flip_bit
from tests.video.tiny_videos import level, write_video


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> Path:
  """Two videos: in `train` 3 frames of two people and 2 of one, in `test` one person, one empty."""
  root = tmp_path_factory.mktemp('inspect')
  one, two = [0.25, 0.25, 0.75, 0.75], [0, 0, 0.25, 1]
  videos = {
    'a': {
      'normalised': True,
      'tubes': [
        {'labels': ['run', 'shout'], 'start': 2, 'boxes': [one] * 5},
        {'labels': ['run'], 'start': 2, 'boxes': [two] * 3},
      ],
    },
    'b': {
      'normalised': True,
      'split': 'test',
      'boxes': [{'frame': 1, 'box': one, 'labels': ['shout']}, {'frame': 3, 'labels': []}],
    },
    'gone': {'split': 'test', 'tubes': []},
  }
  write_video(root / 'a.mp4', 12)
  write_video(root / 'b.mp4', 12, size=(48, 32))
  path = root / 'all.json'
  path.write_text(json.dumps({'classes': ['run', 'sit', 'shout'], 'videos': videos}))
  custom.main(['--annotations', str(path), '--output', str(root / 'out')])
  return root / 'out'


@pytest.mark.parametrize('flags', [[], ['--check']])
def test_the_summary_counts(prepared, capsys, flags):
  inspect_records.main([str(prepared), *flags])
  lines = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
  assert lines[0] == f'{prepared}: custom, 3 classes'
  assert 'clips of up to 16 frames, 4 apart' in lines
  assert any(line.startswith('train 1 5 1 1 ') and line.endswith('96 x 64') for line in lines)
  assert any(line.startswith('test 1 2 1 1 ') and line.endswith('32 x 48') for line in lines)
  table = lines[lines.index('boxes per keyframe test train') :]
  assert table[1:5] == ['0 1 0', '1 1 2', '2 0 3', 'all boxes 1 8']
  table = lines[lines.index('label test train') :]
  assert table[1:4] == ['run 0 8', 'sit 0 0', 'shout 1 5']
  assert 'missing video: 1 (gone)' in lines and 'empty keyframe: 1 (b)' in lines


def test_the_summary_counts_for_itself_what_the_manifest_does_not_say(prepared, tmp_path, capsys):
  for path in prepared.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  manifest = json.loads((prepared / 'manifest.json').read_text())
  for key in ('label_counts', 'boxes_per_keyframe', 'settings', 'problems'):
    del manifest[key]
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  inspect_records.main([str(tmp_path), '--split', 'train'])
  lines = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
  table = lines[lines.index('label train') :]
  assert table[1:4] == ['run 8', 'sit 0', 'shout 5'] and 'problems: none' in lines


def test_checking_finds_damage(prepared, tmp_path):
  for path in prepared.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (shard,) = tmp_path.glob('*test.tfrecord-*')
  flip_bit(shard)
  inspect_records.main([str(tmp_path)])
  with pytest.raises(InputError, match='test.tfrecord-00000-of-00001: the record at byte 0 is'):
    inspect_records.main([str(tmp_path), '--check'])
  text = (prepared / 'manifest.json').read_text()
  (tmp_path / 'manifest.json').write_text(text.replace('"shout": 5', '"shout": 6'))
  with pytest.raises(InputError, match="split 'train' do not match the counts in manifest.json"):
    inspect_records.main([str(tmp_path), '--check', '--split', 'train'])


def test_the_picture_shows_keyframes_and_true_boxes(prepared, tmp_path):
  inspect_records.main([str(prepared), '--output', str(tmp_path / 'sheet.png'), '--clips', '4'])
  sheet = np.array(Image.open(tmp_path / 'sheet.png').convert('RGB'))
  assert (sheet == TRUTH_COLOUR).all(-1).sum() > 500
  index = RecordIndex.open(prepared, 'train')
  tile = inspect_records.tile_of(RecordReader(index)[4], index, name_split=True)
  assert tile.title == 'train frame 6: a'
  assert abs(tile.frame.mean() - level(6)) < 2.4
  # The clip is -26, -22, ..., 2, 6, 10, 11, ..., kept inside the video; five of its 16 are shown.
  greys = [strip.mean() for strip in tile.strip]
  np.testing.assert_allclose(greys, [level(n) for n in (0, 0, 6, 11, 11)], atol=2.4)
  assert tile.truth_labels.tolist() == [[1, 0, 1]]
  with pytest.raises(InputError, match="nothing is prepared for split 'val'"):
    inspect_records.main([str(prepared), '--split', 'val'])
