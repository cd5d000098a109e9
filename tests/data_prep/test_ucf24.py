"""UCF101-24: small generated videos with known faults, and two real ones."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import ucf24
from data_prep.common import clip_records
from evad_jax.data.records import RecordIndex, RecordReader
from evad_jax.data.tube_index import read_tubes
from evad_jax.errors import InputError
from tests import external
from tests.data_prep.killed import hashes
from tests.video.tiny_videos import SIZE, level, write_video

SHARED = external.DATA / 'ucf24_mini'


def entry(label: int, first: int, boxes, num_frames: int) -> dict:
  boxes = np.array(boxes, np.int16)
  tube = {'label': label, 'sf': first, 'ef': first + len(boxes), 'boxes': boxes}
  return {'annotations': [tube], 'numf': num_frames, 'label': label}


NAMES = [f'Biking/v_Biking_g0{group}_c01' for group in range(1, 9)]
GOOD, TEST, MISSING, UNANNOTATED, OUTSIDE, BROKEN, SHORT, EMPTY = NAMES
BOX = [80, 60, 160, 120]  # x, y, w, h: normalised corners 0.25 0.25 0.75 0.75


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
  """Videos, pyannot.pkl, and both lists, with one fault of each kind."""
  root = tmp_path_factory.mktemp('ucf24')
  videos = root / 'videos'
  for name in (GOOD, TEST, UNANNOTATED, OUTSIDE, EMPTY):
    write_video(videos / f'{name}.mp4', 20)
  write_video(videos / f'{SHORT}.avi', 18)
  (videos / f'{BROKEN}.avi').write_bytes(b'RIFF nonsense')
  annotations = {
    GOOD: entry(2, 4, [BOX] * 14, 20),
    TEST: entry(2, 0, [BOX] * 20, 20),
    MISSING: entry(2, 0, [BOX] * 20, 20),
    OUTSIDE: entry(2, 8, [[-32, 120, 64, 180], BOX, [10, 10, 0, 50]], 20),
    BROKEN: entry(2, 0, [BOX] * 20, 20),
    SHORT: entry(2, 15, [BOX] * 5, 20),
    EMPTY: entry(2, 0, [[10, 10, 0, 5]], 20),
  }
  (root / 'pyannot.pkl').write_bytes(pickle.dumps(annotations, 2))
  train = [name for name in NAMES if name != TEST]
  (root / 'train.txt').write_text(''.join(f'{name}.avi 11\n' for name in [*train, 'Archery/v_A']))
  (root / 'test.txt').write_text(TEST + '\n')
  return root


def arguments(source: Path, output: Path, *more: str) -> list[str]:
  flags = {'videos': 'videos', 'annotations': 'pyannot.pkl'}
  flags |= {'train-list': 'train.txt', 'test-list': 'test.txt'}
  given = [word for flag, name in flags.items() for word in (f'--{flag}', str(source / name))]
  return [*given, '--output', str(output), *more]


def test_faults_are_told_and_the_rest_is_prepared(source, tmp_path, capsys):
  output = tmp_path / 'out'
  ucf24.main(arguments(source, output, '--train-eval'))
  manifest = json.loads((output / 'manifest.json').read_text())
  told = {(problem['name'], problem['kind']) for problem in manifest['problems']}
  assert told == {
    (MISSING, 'missing video'),
    (UNANNOTATED, 'no annotation'),
    (OUTSIDE, 'box outside the frame'),
    (OUTSIDE, 'box without area'),
    (EMPTY, 'box without area'),
    (EMPTY, 'no usable box'),
    (BROKEN, 'undecodable video'),
    (SHORT, 'other number of frames'),
    (SHORT, 'annotation beyond the end'),
  }
  errors = capsys.readouterr().err
  assert all(f'problem: {name}: {kind}:' in errors for name, kind in told)
  assert '2 boxes dropped' in errors and 'expected 20, decoded 18' in errors
  # train: frames 4 8 12 16 of GOOD, 8 of OUTSIDE, 15 of SHORT; train_eval 14 + 2 + 3.
  examples = {split: counts['examples'] for split, counts in manifest['splits'].items()}
  assert examples == {'train': 6, 'test': 20, 'train_eval': 19}
  index = RecordIndex.open(output, 'train')
  assert index.keyframes.tolist() == [4, 8, 12, 16, 8, 15]
  assert index.videos.tolist() == [GOOD] * 4 + [OUTSIDE, SHORT]
  reader = RecordReader(index)
  np.testing.assert_allclose(reader[0].boxes, [[0.25, 0.25, 0.75, 0.75]])
  assert reader[0].labels.tolist() == [[0, 0, 1] + [0] * 21]
  np.testing.assert_allclose(reader[4].boxes, [[0, 0.5, 0.1, 1]])
  assert reader[5].num_frames == 18


def test_tubes_of_splits_whose_every_frame_is_a_keyframe(source, tmp_path):
  output = tmp_path / 'out'
  ucf24.main(arguments(source, output, '--train-eval'))
  assert read_tubes(RecordIndex.open(output, 'train')) is None  # every 4th frame
  tubes, trimmed, _ = read_tubes(RecordIndex.open(output, 'train_eval'))
  assert not trimmed
  found = {tube.video: (tube.label, tube.frames.tolist()) for tube in tubes}
  assert found == {
    GOOD: (2, list(range(4, 18))),
    OUTSIDE: (2, [8, 9]),  # the box without area is no part of it
    SHORT: (2, [15, 16, 17]),  # of 5 annotated frames, 3 exist
  }
  boxes = {tube.video: tube.boxes for tube in tubes}
  np.testing.assert_allclose(boxes[OUTSIDE], [[0, 0.5, 0.1, 1], [0.25, 0.25, 0.75, 0.75]])
  np.testing.assert_allclose(boxes[GOOD], [[0.25, 0.25, 0.75, 0.75]] * 14)


def test_every_frame_of_the_test_videos(source, tmp_path):
  """GOOD, of 20 frames, is annotated on 4 to 17; SHORT, of 18 and not 20, on 15 to 17."""
  (tmp_path / 'test.txt').write_text(f'{GOOD}.avi 3\n{SHORT}.avi\nArchery/v_A.avi 2\n')
  flags = ['--test-list', str(tmp_path / 'test.txt'), '--train-list', str(source / 'test.txt')]
  command = [*arguments(source, tmp_path / 'every'), *flags, '--short-side', '24']
  ucf24.main([*command, '--every-test-frame'])
  index = RecordIndex.open(tmp_path / 'every', 'test')
  assert index.videos.tolist() == [GOOD] * 20 + [SHORT] * 18
  assert index.keyframes.tolist() == [*range(20), *range(18)]
  annotated = [*range(4, 18), *range(20 + 15, 20 + 18)]
  assert index.annotated_examples.tolist() == annotated
  assert index.annotated_sizes.tolist() == [[240, 320]] * 38 and set(index.heights) == {24}
  reader = RecordReader(index)
  assert [len(reader[i].boxes) for i in range(38)] == [int(i in annotated) for i in range(38)]
  tubes, _, every_frame = read_tubes(index)
  assert every_frame and [tube.frames.tolist() for tube in tubes] == [
    list(range(4, 18)),
    [15, 16, 17],
  ]
  assert RecordIndex.open(tmp_path / 'every', 'train').keyframes.tolist() == [0, 4, 8, 12, 16]
  ucf24.main([*command[:-4], '--output', str(tmp_path / 'some'), *flags])
  some = RecordIndex.open(tmp_path / 'some', 'test')
  assert some.keyframes.tolist() == [*range(4, 18), 15, 16, 17]
  assert some.annotated_examples.tolist() == list(range(17)) and not read_tubes(some).every_frame


def test_videos_that_are_annotated_throughout_need_no_flag(source, tmp_path):
  ucf24.main(arguments(source, tmp_path / 'out'))
  assert read_tubes(RecordIndex.open(tmp_path / 'out', 'test')).every_frame


def test_a_plan_of_every_frame_is_another_plan(source, tmp_path, capsys):
  ucf24.main(arguments(source, tmp_path / 'out', '--dry-run'))
  before = capsys.readouterr().out
  ucf24.main(arguments(source, tmp_path / 'out', '--dry-run', '--every-test-frame'))
  assert 'keyframes' in before and capsys.readouterr().out == before  # TEST has boxes throughout
  ucf24.main(arguments(source, tmp_path / 'out'))
  with pytest.raises(InputError, match='of another plan .*other annotations'):
    ucf24.main(arguments(source, tmp_path / 'out', '--every-test-frame'))


def test_exactly_the_frames_of_the_clips_are_stored(source, tmp_path):
  """A clip of 4 frames, stride 2, has frames k - 4, k - 2, k, k + 2, kept inside the video."""
  output = tmp_path / 'out'
  ucf24.main(arguments(source, output, '--clip-frames', '4', '--frame-stride', '2'))
  record = RecordReader(RecordIndex.open(output, 'train')).read_record(0)
  assert record.video == GOOD and record.fps == 25 and record.num_frames == 20
  assert record.keyframes.tolist() == [4, 8, 12, 16]
  assert record.frame_numbers.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
  for number, data in zip(record.frame_numbers, record.frames, strict=True):
    picture = simplejpeg.decode_jpeg(data)
    assert picture.shape == (*SIZE, 3)
    assert abs(picture.mean() - level(number)) < 2.4  # half the step between two frames
  short = RecordReader(RecordIndex.open(output, 'train')).read_record(2)
  assert short.video == SHORT and short.frame_numbers.tolist() == [11, 13, 15, 17]


def test_bytes_do_not_depend_on_the_workers(source, tmp_path):
  for workers in ('1', '3'):
    ucf24.main(arguments(source, tmp_path / workers, '--workers', workers))
  one = hashes(tmp_path / '1')
  assert len(one) == 8 and hashes(tmp_path / '3') == one


def test_strict_stops_and_leaves_nothing_readable(source, tmp_path):
  with pytest.raises(InputError, match='--strict stops at the first problem'):
    ucf24.main(arguments(source, tmp_path / 'out', '--strict'))
  with pytest.raises(InputError, match='prepare it with'):
    RecordIndex.open(tmp_path, 'train')
  only = tmp_path / 'only.txt'
  only.write_text(BROKEN)  # this fault is seen only by decoding
  flags = ['--train-list', str(only), '--strict']
  (source / 'videos' / f'{UNANNOTATED}.mp4').rename(source / 'hidden')
  try:
    with pytest.raises(InputError, match='undecodable video.*v_Biking_g06_c01.avi: cannot be'):
      ucf24.main(arguments(source, tmp_path / 'out', *flags))
  finally:
    (source / 'hidden').rename(source / 'videos' / f'{UNANNOTATED}.mp4')
  with pytest.raises(InputError, match='did not finish'):
    RecordIndex.open(tmp_path / 'out', 'train')
  assert not list((tmp_path / 'out').glob('.writing-*'))


def test_overwriting_needs_the_flag(source, tmp_path):
  command = [*arguments(source, tmp_path), '--short-side', '32']
  ucf24.main(arguments(source, tmp_path))
  with pytest.raises(InputError, match='short_side None there, 32 now.; pass --overwrite'):
    ucf24.main(command)
  ucf24.main([*command, '--overwrite', '--keyframe-stride', '2'])
  index = RecordIndex.open(tmp_path, 'train')
  assert set(index.heights) == {32} and set(index.widths) == {48}
  assert index.keyframes.tolist()[:7] == [4, 6, 8, 10, 12, 14, 16]


def test_dry_run_counts_and_writes_nothing(source, tmp_path, capsys):
  output = tmp_path / 'out'
  ucf24.main(arguments(source, output, '--dry-run'))
  printed = capsys.readouterr().out
  assert 'test: 1 videos, 1 records, 20 keyframes, 20 boxes, 20 frames, about ' in printed
  assert not output.exists()
  ucf24.main(arguments(source, output))
  told = int(printed.split('test: ')[1].split('about ')[1].split()[0])
  real = json.loads((output / 'manifest.json').read_text())['splits']['test']['bytes']
  assert 0.6 < told / real < 1.1


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-be'])
def test_lists_of_any_encoding_give_the_same_plan(source, tmp_path, capsys, encoding):
  """A mark does not hide the first video, and --strict finds nothing to stop at."""
  write_video(tmp_path / 'videos' / f'{GOOD}.mp4', 20)
  flags = ['--videos', str(tmp_path / 'videos'), '--annotations', str(source / 'pyannot.pkl')]
  flags += ['--output', str(tmp_path / 'out'), '--dry-run', '--strict']
  lists = {'plain': GOOD.encode(), 'encoded': f'{GOOD}\r\n'.encode(encoding)}
  printed = []
  for name, data in lists.items():
    (tmp_path / name).write_bytes(data)
    ucf24.main([*flags, '--train-list', str(tmp_path / name)])
    printed.append(capsys.readouterr().out)
  assert printed[0] == printed[1] and 'train: 1 videos' in printed[0]


@pytest.mark.parametrize(
  ('train', 'test', 'message'),
  [
    (GOOD, GOOD, 'is in the training and in the test list, .*train.txt and .*test.txt'),
    ('Archery/v_A', GOOD, 'lists no video of the 24 classes'),
    (None, None, 'holds no split; give --train-list'),
  ],
)
def test_wrong_lists(source, tmp_path, train, test, message):
  command = ['--videos', str(source / 'videos'), '--annotations', str(source / 'pyannot.pkl')]
  command += ['--output', str(tmp_path / 'out')]
  for split, names in (('train', train), ('test', test)):
    if names is not None:
      (tmp_path / f'{split}.txt').write_text(names)
      command += [f'--{split}-list', str(tmp_path / f'{split}.txt')]
  with pytest.raises(InputError, match=message):
    ucf24.main(command)


def test_runs_share_frames():
  """64 keyframes, 4 apart, clips of 16 x 4: two records of 32 + 15 frames, none unused."""
  keyframes = np.arange(100, 356, 4)
  first, second = clip_records.plan_runs(keyframes, 1000, clip_records.Settings())
  assert first.keyframes.tolist() == keyframes[:32].tolist()
  assert first.frame_numbers.tolist() == list(range(100 - 32, 224 + 28 + 1, 4))
  assert len(second.frame_numbers) == 47


@pytest.mark.skipif(not SHARED.is_dir(), reason=external.missing(SHARED))
def test_real_videos(tmp_path):
  """A clip of the usual size and one of 340 x 256, whose header says 0 frames."""
  train, test = 'Biking/v_Biking_g01_c03', 'HorseRiding/v_HorseRiding_g01_c03'
  (tmp_path / 'train.txt').write_text(train)
  (tmp_path / 'test.txt').write_text(test)
  output = tmp_path / 'out'
  command = ['--videos', str(SHARED / 'videos'), '--annotations', str(SHARED / 'pyannot_mini.pkl')]
  command += ['--train-list', str(tmp_path / 'train.txt'), '--output', str(output)]
  ucf24.main([*command, '--test-list', str(tmp_path / 'test.txt')])
  manifest = json.loads((output / 'manifest.json').read_text())
  truth = json.loads((SHARED / 'annotations.json').read_text())['videos']
  assert manifest['problem_counts'] == {'header without frame count': 1}
  assert manifest['problems'][0]['name'] == test
  assert manifest['classes'] == list(ucf24.CLASSES)
  for split, name, every in (('train', train, 4), ('test', test, 1)):
    reader = RecordReader(RecordIndex.open(output, split))
    boxes = {}
    for tube in truth[name]['tubes']:
      for frame, box in enumerate(tube['boxes_xyxy'], tube['start']):
        boxes.setdefault(frame, []).append(np.array(box) / [320, 240, 320, 240])
    frames = sorted(boxes)[::every]
    assert reader.index.keyframes.tolist() == frames
    for frame, example in zip(frames, (reader[i] for i in range(len(reader))), strict=True):
      np.testing.assert_allclose(example.boxes, boxes[frame], atol=1e-6)
      assert example.num_frames == truth[name]['num_frames']
      assert (example.height, example.width) == ((240, 320) if split == 'train' else (256, 340))
