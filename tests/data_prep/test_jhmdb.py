"""JHMDB: three splits in one directory, from folders of pictures or from videos."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from data_prep import jhmdb
from evad_jax.data.records import RecordIndex, RecordReader
from evad_jax.data.tube_index import read_tubes
from evad_jax.errors import InputError
from tests import external
from tests.sample_annotations import in_act_layout
from tests.video.tiny_videos import level, write_video

SHARED = external.DATA / 'jhmdb_mini'
NAMES = ['wave/one', 'wave/two', 'jump/three']
PARTS = {'wave/one': 'aab', 'wave/two': 'aba', 'jump/three': 'baa'}  # a: train, b: test, by split


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
  """Three videos of 6 frames, 240 x 320, as folders and as files, and their annotations."""
  root = tmp_path_factory.mktemp('jhmdb')
  tubes = {}
  for place, name in enumerate(NAMES):
    (root / 'frames' / name).mkdir(parents=True)
    for number in range(6):
      picture = np.full((240, 320, 3), level(10 * place + number), np.uint8)
      cv2.imwrite(str(root / 'frames' / name / f'{number + 1:05d}.png'), picture)
    write_video(root / 'videos' / f'{name}.avi', 6, size=(240, 320))
    rows = [[frame, 32 * place, 24, 160, 120] for frame in range(1, 7)]
    tubes[name] = {jhmdb.CLASSES.index(name.split('/')[0]): [np.array(rows, np.float32)]}
  tubes['wave/one'][20][0][5, 0] = 5  # frame 5 stands twice, frame 6 has nothing
  content = {
    'labels': list(jhmdb.CLASSES),
    'gttubes': tubes,
    'nframes': dict.fromkeys(NAMES, 6),
    'resolution': dict.fromkeys(NAMES, (240, 320)),
    'train_videos': [[n for n in NAMES if PARTS[n][split] == 'a'] for split in range(3)],
    'test_videos': [[n for n in NAMES if PARTS[n][split] == 'b'] for split in range(3)],
  }
  (root / 'gt.pkl').write_bytes(pickle.dumps(content, 2))
  return root


def prepare(source: Path, output: Path, *more: str, kind: str = 'frames') -> dict:
  command = [f'--{kind}', str(source / kind), '--annotations', str(source / 'gt.pkl')]
  jhmdb.main([*command, '--output', str(output), *more])
  return json.loads((output / 'manifest.json').read_text())


def test_three_splits_against_a_table(source, tmp_path):
  manifest = prepare(source, tmp_path / 'out')
  assert manifest['problem_counts'] == {'duplicate row': 1}
  assert list(manifest['splits']) == ['test1', 'test2', 'test3', 'train1', 'train2', 'train3']
  for split, counts in manifest['splits'].items():
    videos = [
      n for n in NAMES if PARTS[n][int(split[-1]) - 1] == ('a' if 'train' in split else 'b')
    ]
    reader = RecordReader(RecordIndex.open(tmp_path / 'out', split))
    examples = [reader[i] for i in range(len(reader))]
    frames = {name: range(5 if name == 'wave/one' else 6) for name in sorted(videos)}
    expected = [(name, frame) for name, mine in frames.items() for frame in mine]
    assert [(e.video, e.keyframe) for e in examples] == expected
    assert counts['boxes'] == len(expected) and counts['videos'] == len(videos)
    for example in examples:
      place = NAMES.index(example.video)
      assert example.boxes.tolist() == [pytest.approx([place / 10, 0.1, 0.5, 0.5])]
      label = jhmdb.CLASSES.index(example.video.split('/')[0])
      assert np.flatnonzero(example.labels[0]).tolist() == [label]
      assert example.frame_numbers.tolist() == [0, 1, 2, 3, 4, 5]
      for number, data in zip(example.frame_numbers, example.frames, strict=True):
        grey = simplejpeg.decode_jpeg(data).mean()
        assert abs(grey - level(10 * place + number)) < 1


def test_tubes_of_trimmed_clips(source, tmp_path):
  prepare(source, tmp_path / 'out')
  tubes, trimmed, every_frame = read_tubes(RecordIndex.open(tmp_path / 'out', 'test1'))
  assert every_frame and read_tubes(RecordIndex.open(tmp_path / 'out', 'test2')).every_frame
  assert not read_tubes(RecordIndex.open(tmp_path / 'out', 'test3')).every_frame  # frame 6
  assert trimmed and [tube.video for tube in tubes] == ['jump/three']
  assert tubes[0].frames.tolist() == list(range(6)) and tubes[0].label == 5
  np.testing.assert_allclose(tubes[0].boxes, [[0.2, 0.1, 0.5, 0.5]] * 6)
  (tmp_path / 'out/tubes-test1.npz').write_bytes(b'PK nonsense')
  with pytest.raises(InputError, match='tubes-test1.npz: the file is damaged'):
    read_tubes(RecordIndex.open(tmp_path / 'out', 'test1'))


def test_videos_serve_as_well_and_splits_are_chosen(source, tmp_path):
  manifest = prepare(
    source, tmp_path / 'out', '--splits', '3', '--keyframe-stride', '2', kind='videos'
  )
  assert list(manifest['splits']) == ['test3', 'train3']
  train = RecordIndex.open(tmp_path / 'out', 'train3')
  assert train.videos.tolist() == ['jump/three'] * 3 + ['wave/two'] * 3
  assert train.keyframes.tolist() == [0, 2, 4, 0, 2, 4]
  assert RecordIndex.open(tmp_path / 'out', 'test3').keyframes.tolist() == [0, 1, 2, 3, 4]
  with pytest.raises(InputError, match='holds no split 4'):
    prepare(source, tmp_path / 'no', '--splits', '4')


def test_other_classes_are_refused(source, tmp_path):
  content = pickle.loads((source / 'gt.pkl').read_bytes())
  content['labels'][0] = 'sleep'
  (tmp_path / 'gt.pkl').write_bytes(pickle.dumps(content))
  with pytest.raises(InputError, match='not the 21 of JHMDB'):
    prepare(source, tmp_path / 'out', '--annotations', str(tmp_path / 'gt.pkl'))


@pytest.mark.skipif(not SHARED.is_dir(), reason=external.missing(SHARED))
def test_real_frames_of_which_most_are_missing(tmp_path, capsys):
  """Four of 928 videos are there; JSON and pickle give the same records."""
  mini = in_act_layout(SHARED / 'annotations.json', tmp_path / 'mini.json')
  for name, path in {'full': SHARED / 'annotations_full/JHMDB-GT.pkl', 'mini': mini}.items():
    flags = ['--annotations', str(path), '--output', str(tmp_path / name), '--splits', '3']
    jhmdb.main(['--frames', str(SHARED / 'frames'), *flags])
  manifest = json.loads((tmp_path / 'full' / 'manifest.json').read_text())
  assert manifest['problem_counts'] == {'missing video': 924}
  assert len(manifest['missing_videos']) == 924
  assert capsys.readouterr().err.count('missing video:') == 20  # then one line about the rest
  counts = {split: mine['examples'] for split, mine in manifest['splits'].items()}
  assert counts == {'train3': 60, 'test3': 80}
  shards = list((tmp_path / 'full').glob('*.tfrecord-*'))
  assert len(shards) >= 2
  for path in shards:
    assert path.read_bytes() == (tmp_path / 'mini' / path.name).read_bytes()
