"""AVA: its seconds, rows and faults, from trimmed videos, full films and extracted frames."""

import json
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import ava
from data_prep.common import clip_records
from evad_jax.data.records import RecordIndex, RecordReader
from evad_jax.errors import InputError
from evad_jax.video import decode
from evad_jax.video.jpeg import encode_frame
from tests import external
from tests.data_prep.killed import hashes
from tests.video.tiny_videos import level, write_video

SHARED = external.DATA / 'ava_eval'
LABELS = ''.join(
  f'label {{ name: "{name}" label_id: {number} }}\n'
  for number, name in ((3, 'sit'), (1, 'bend'), (12, 'stand'), (80, 'watch'))
)
TRAIN = """\
cut,0901,0.25,0.25,0.75,0.75,12,0
cut,0901,0.25,0.25,0.75,0.75,80,0
cut,0901,0.250,0.25,0.75,0.75,80,1
cut,0901,0,0,0.5,1,1,1
cut,902,0.1,0.1,0.5,1.2,3,0
cut,903,0.1,0.1,0.5,0.9,9,0
cut,904
cut,0905,0.1,0.1,0.5,0.9,3,0
cut,0990,0.1,0.1,0.5,0.9,3,0
cut,0899,0.1,0.1,0.5,0.9,3,0
gone,0905,0.1,0.1,0.5,0.9,3,0
broken,0905,0.1,0.1,0.5,0.9,3,0
"""
VAL = """\
film,0902,0.1,0.1,0.5,0.9,12,-1
film,0903,,,,,,
film,0905,0.1,0.1,0.5,0.9,1
"""


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
  """A cut video of 8 s at 30 a second, and a film of 1,210 s at 2 a second."""
  root = tmp_path_factory.mktemp('ava')
  write_video(root / 'videos' / 'cut.mp4', 240, rate=30)
  write_video(root / 'videos' / 'below' / 'film.mkv', 2420, rate=2, size=(32, 32))
  (root / 'videos' / 'broken.mp4').write_bytes(b'nonsense')
  (root / 'labels.pbtxt').write_text(LABELS)
  (root / 'scored.pbtxt').write_text('item { name: "stand" id: 12 } item { name: "sit" id: 3 }')
  (root / 'train.csv').write_text(TRAIN)
  (root / 'excluded.csv').write_text('cut,0905\ncut,1000\n')
  (root / 'val.csv').write_text(VAL)
  return root


def prepare(source: Path, output: Path, *more: str, videos: str = '--videos') -> dict:
  command = [videos, str(source / videos.strip('-')), '--labels', str(source / 'labels.pbtxt')]
  ava.main([*command, '--output', str(output), *more])
  return json.loads((output / 'manifest.json').read_text())


def test_rows_seconds_and_faults(source, tmp_path, capsys):
  flags = [
    '--train-csv',
    str(source / 'train.csv'),
    '--scored-labels',
    str(source / 'scored.pbtxt'),
  ]
  flags += ['--train-excluded', str(source / 'excluded.csv')]
  manifest = prepare(source, tmp_path / 'out', *flags)
  told = {(problem['name'], problem['kind']) for problem in manifest['problems']}
  assert told == {
    ('cut', 'duplicate row'),
    ('cut', 'box outside the frame'),
    ('cut', 'unknown label'),
    ('cut', 'empty keyframe'),
    ('cut', 'second out of range'),
    ('cut', 'annotation beyond the end'),
    ('cut', 'other number of frames'),
    ('gone', 'missing video'),
    ('broken', 'undecodable video'),
  }
  errors = capsys.readouterr().err
  assert all(f'problem: {name}: {kind}:' in errors for name, kind in told)
  assert 'expected 27030, decoded 240' in errors and 'action ids 9 dropped' in errors
  assert manifest['missing_videos'] == ['gone'] and manifest['excluded_keyframes'] == {'train': 1}
  assert manifest['video_time'] == {'cut': 'cut'}
  index = RecordIndex.open(tmp_path / 'out', 'train')
  assert index.classes == ['bend', 'sit', 'stand', 'watch']  # by id
  assert index.scored_classes == ['sit', 'stand']
  assert index.timestamps.tolist() == [901, 902] and index.keyframes.tolist() == [30, 60]
  assert len(index.record_shard) == 2  # a record a keyframe
  reader = RecordReader(index)
  assert reader[0].boxes.tolist() == [[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 1]]
  assert reader[0].labels.tolist() == [[0, 0, 1, 1], [1, 0, 0, 0]]
  np.testing.assert_allclose(reader[1].boxes, [[0.1, 0.1, 0.5, 1]])
  assert reader[1].frame_numbers.tolist() == list(range(28, 89, 4))
  for number, data in zip(reader[1].frame_numbers, reader[1].frames, strict=True):
    assert abs(simplejpeg.decode_jpeg(data).mean() - level(number)) < 2.4


def test_a_film_is_read_from_minute_15(source, tmp_path):
  """Two pictures a second: frame n shows picture 1800 + n / 15, the later of two halves."""
  manifest = prepare(source, tmp_path / 'out', '--val-csv', str(source / 'val.csv'))
  assert manifest['video_time'] == {'film': 'uncut'}
  kinds = [problem['kind'] for problem in manifest['problems']]
  assert kinds == ['empty keyframe', 'other number of frames']  # 310 s are left of the film
  reader = RecordReader(RecordIndex.open(tmp_path / 'out', 'val'))
  assert reader.index.timestamps.tolist() == [902, 903, 905]
  assert reader.index.scored_classes == ['bend', 'sit', 'stand', 'watch']
  assert [len(reader[i].boxes) for i in range(3)] == [1, 0, 1]
  assert reader[0].num_frames == 310 * 30
  for example in (reader[i] for i in range(3)):
    for number, data in zip(example.frame_numbers, example.frames, strict=True):
      assert abs(simplejpeg.decode_jpeg(data).mean() - level(1800 + number // 15)) < 2.4


def test_the_flags_decide_against_the_duration(source, tmp_path):
  val = ['--val-csv', str(source / 'val.csv')]
  manifest = prepare(source, tmp_path / 'out', *val, '--cut')
  assert manifest['video_time'] == {'film': 'cut'}
  example = RecordReader(RecordIndex.open(tmp_path / 'out', 'val'))[0]
  position = example.frame_numbers.tolist().index(60)
  assert abs(simplejpeg.decode_jpeg(example.frames[position]).mean() - level(4)) < 2.4
  assert example.num_frames == 27030
  with pytest.raises(InputError, match="split 'train': none of its videos"):
    prepare(source, tmp_path / 'no', '--train-csv', str(source / 'train.csv'), '--uncut')


def test_only_needed_frames_are_converted(source, tmp_path, monkeypatch):
  """The clips of three keyframes need 3 x 16 of the film's 9,300 frames, at 2 pictures a second."""
  converted = []
  rgb = decode.Picture.rgb

  def count(picture):
    converted.append(picture)
    return rgb(picture)

  monkeypatch.setattr(decode.Picture, 'rgb', count)
  prepare(source, tmp_path / 'out', '--val-csv', str(source / 'val.csv'))
  # The clips span frames 28 to 178, hence pictures 1 to 11; and the last frame is kept in reserve.
  assert len(converted) == 11 + 1


def test_a_long_video_waits_in_a_file_with_the_same_result(source, tmp_path, monkeypatch):
  val = ['--val-csv', str(source / 'val.csv')]
  prepare(source, tmp_path / 'one', *val)
  monkeypatch.setattr(clip_records, 'IN_MEMORY', 100)
  prepare(source, tmp_path / 'two', *val)
  one, two = hashes(tmp_path / 'one'), hashes(tmp_path / 'two')
  assert one == two and len(one) > 4


@pytest.fixture(scope='module')
def folders(source) -> Path:
  """The first 200 frames of `cut` as pictures; number 130 is missing."""
  directory = source / 'frames' / 'cut'
  directory.mkdir(parents=True)
  for number in range(200):
    picture = np.full((64, 96, 3), level(number), np.uint8)
    if number != 130:
      (directory / f'cut_{number + 1:06d}.jpg').write_bytes(encode_frame(picture, None, 90))
  return source


def test_extracted_frames_are_stored_as_they_are(folders, tmp_path):
  flags = ['--train-csv', str(folders / 'train.csv')]
  manifest = prepare(folders, tmp_path / 'out', *flags, videos='--frames')
  kinds = {problem['kind'] for problem in manifest['problems'] if problem['name'] == 'cut'}
  assert {'unreadable frame', 'other number of frames'} <= kinds and manifest['video_time'] == {}
  reader = RecordReader(RecordIndex.open(tmp_path / 'out', 'train'))
  # Second 905 is frame 150, whose clip from 118 on needs 130.
  assert reader.index.timestamps.tolist() == [901, 902]
  for example in (reader[0], reader[1]):
    assert example.num_frames == 200
    for number, data in zip(example.frame_numbers, example.frames, strict=True):
      path = folders / 'frames' / 'cut' / f'cut_{number + 1:06d}.jpg'
      assert data == path.read_bytes()
  prepare(folders, tmp_path / 'small', *flags, '--short-side', '32', videos='--frames')
  assert set(RecordIndex.open(tmp_path / 'small', 'train').heights) == {32}


def test_dry_run(source, tmp_path, capsys):
  val = [
    '--val-csv',
    str(source / 'val.csv'),
    '--dry-run',
    '--labels',
    str(source / 'labels.pbtxt'),
  ]
  ava.main(['--videos', str(source / 'videos'), '--output', str(tmp_path / 'out'), *val])
  printed = capsys.readouterr().out
  assert 'val: 1 videos, 3 records, 3 keyframes, 2 boxes, 48 frames, about ' in printed
  assert not (tmp_path / 'out').exists()
  told = int(printed.split('val: ')[1].split('about ')[1].split()[0])
  prepare(source, tmp_path / 'out', '--val-csv', str(source / 'val.csv'))
  frames = RecordReader(RecordIndex.open(tmp_path / 'out', 'val'))
  assert told == pytest.approx(sum(len(d) for i in range(3) for d in frames[i].frames), rel=0.3)


def test_other_input_is_refused(source, tmp_path):
  with pytest.raises(InputError, match='give --train-csv, --val-csv'):
    prepare(source, tmp_path / 'out')
  (tmp_path / 'scored.pbtxt').write_text('item { name: "fly" id: 5 }')
  val = ['--val-csv', str(source / 'val.csv')]
  with pytest.raises(InputError, match='scores id 5, which --labels does not have'):
    prepare(source, tmp_path / 'out', *val, '--scored-labels', str(tmp_path / 'scored.pbtxt'))
  with pytest.raises(SystemExit) as error:
    prepare(source, tmp_path / 'out', *val, '--cut', '--uncut')
  assert error.value.code == 2


def test_two_classes_of_one_name_are_told_apart():
  assert ava.class_names({7: 'a', 2: 'b', 3: 'a'}) == ('b', 'a (3)', 'a (7)')


@pytest.mark.skipif(not SHARED.is_dir(), reason=external.missing(SHARED))
def test_real_rows(tmp_path):
  """110 keyframes of the first validation video, 341 rows, 148 boxes; 60 of 80 classes scored."""
  name = '1j20qq1JyX4'
  write_video(tmp_path / 'videos' / f'{name}.mp4', 116, rate=1, size=(32, 32))
  truth = SHARED / 'gt_pred_slice' / f'gt_{name}_0902-1014.csv'
  command = ['--videos', str(tmp_path / 'videos'), '--val-csv', str(truth)]
  for flag, stem in (('labels', 'v2.2'), ('scored-labels', 'v2.2_for_activitynet_2019')):
    command += [f'--{flag}', str(SHARED / f'ava_action_list_{stem}.pbtxt')]
  command += ['--val-excluded', str(SHARED / 'ava_val_excluded_timestamps_v2.2.csv')]
  ava.main([*command, '--output', str(tmp_path / 'out')])
  index = RecordIndex.open(tmp_path / 'out', 'val')
  assert len(index.classes) == 80 and len(index.scored_classes) == 60
  rows = [line.split(',') for line in truth.read_text().split()]
  seconds = sorted({int(row[1]) for row in rows})
  assert index.timestamps.tolist() == seconds and len(seconds) == 110
  reader, boxes = RecordReader(index), 0
  for second, example in zip(seconds, (reader[i] for i in range(110)), strict=True):
    mine = [row for row in rows if int(row[1]) == second]
    corners = [[float(x) for x in row[2:6]] for row in mine]
    found = [corners.index(pytest.approx(box.tolist(), abs=1e-6)) for box in example.boxes]
    assert len(found) == len({tuple(corner) for corner in corners})
    for box, label in zip(found, example.labels, strict=True):
      ids = {int(row[6]) for row, c in zip(mine, corners, strict=True) if c == corners[box]}
      assert set((np.flatnonzero(label) + 1).tolist()) == ids  # the list has the ids 1 to 80
    boxes += len(found)
  assert boxes == 148
