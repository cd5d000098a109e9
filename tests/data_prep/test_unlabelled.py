"""Videos without annotation: what is stored of them, odd and broken ones, splits, interruptions."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import inspect_records, unlabelled
from evad_jax.data import data_set_directory, pretraining
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.records import RecordReader
from evad_jax.errors import InputError
from evad_jax.video.decode import VideoFile
from evad_jax.video.jpeg import encode_frame, frame_size
from tests.data_prep.killed import hashes, run
from tests.video import numbered
from tests.video.tiny_videos import UNEVEN, break_metadata, level, write_video

SHORT_CLIPS = ('--clip-frames', '4', '--frame-stride', '2')  # a clip spans 8 frames


def prepare(videos: Path, output: Path, *flags: str) -> dict:
  """Prepares a folder; the manifest."""
  unlabelled.main(['--videos', str(videos), '--output', str(output), *SHORT_CLIPS, *flags])
  return json.loads((output / 'manifest.json').read_text())


def keyframes_of(output: Path, split: str = 'train') -> dict[str, list[int]]:
  index = RecordIndex.open(output, split)
  return {name: index.keyframes[index.videos == name].tolist() for name in set(index.videos)}


def records_of(output: Path, split: str = 'train') -> list:
  reader = RecordReader(RecordIndex.open(output, split))
  return [reader.read_record(number) for number in range(len(reader.index.record_shard))]


def test_whole_videos_are_stored_as_the_decoder_shows_them(tmp_path):
  (tmp_path / 'in' / 'deep' / 'er').mkdir(parents=True)
  path = numbered.write(tmp_path / 'in' / 'deep' / 'er' / 'v.mp4', 160)
  manifest = prepare(tmp_path / 'in', tmp_path / 'out')
  assert manifest['problems'] == [] and manifest['splits'].keys() == {'train'}
  # A clip starts at each of 0 to F - T * stride; its keyframe is the third of its four frames.
  assert keyframes_of(tmp_path / 'out') == {'deep/er/v.mp4': [s + 4 for s in range(160 - 8 + 1)]}
  shown = list(VideoFile(path).frames())
  one, two = records_of(tmp_path / 'out')
  assert one.frame_numbers.tolist() == list(range(128 - 1 + 6 + 1))
  assert two.frame_numbers.tolist() == list(range(128, 160 - 2 + 1))
  for record in (one, two):
    assert record.num_frames == 160 and not len(record.boxes)
    for number, jpeg in zip(record.frame_numbers, record.frames, strict=True):
      assert jpeg == shown[number].jpeg(None, 95)


@pytest.mark.parametrize('length', [1, 5, 7, 8])
def test_short_videos(tmp_path, length):
  write_video(tmp_path / 'in' / 'v.mp4', length)
  prepare(tmp_path / 'in', tmp_path / 'out')
  (record,) = records_of(tmp_path / 'out')
  whole = length >= 8
  assert record.frame_numbers.tolist() == ([0, 2, 4, 6] if whole else list(range(length)))
  prepare(tmp_path / 'in', tmp_path / 'few', '--clips-per-video', '3')
  (record,) = records_of(tmp_path / 'few')
  assert set(range(0, min(length, 7), 2)) <= set(record.frame_numbers.tolist())


def test_a_few_clips_are_spread_evenly(tmp_path):
  (tmp_path / 'in').mkdir()
  numbered.write(tmp_path / 'in' / 'v.mp4', 49)
  prepare(tmp_path / 'in', tmp_path / 'out', '--clips-per-video', '2')
  # Starts go from 0 to 41; these are the middles of the halves.
  records = records_of(tmp_path / 'out')
  stored = [record.frame_numbers.tolist() for record in records]
  assert stored == [[start, start + 2, start + 4, start + 6] for start in (10, 31)]
  for record in records:
    pictures = [numbered.number_of(simplejpeg.decode_jpeg(jpeg)) for jpeg in record.frames]
    assert pictures == record.frame_numbers.tolist()
  prepare(tmp_path / 'in', tmp_path / 'many', '--clips-per-video', '1000')
  assert keyframes_of(tmp_path / 'many') == {'v.mp4': [start + 4 for start in range(42)]}


def test_the_short_side(tmp_path):
  write_video(tmp_path / 'in' / 'v.mp4', 9)
  prepare(tmp_path / 'in', tmp_path / 'out', '--short-side', '32')
  (record,) = records_of(tmp_path / 'out')
  assert (record.height, record.width) == (32, 48) == frame_size(record.frames[0])


def test_folders_of_pictures(tmp_path, capsys):
  for name in ('a', 'b/c'):
    (tmp_path / 'in' / name).mkdir(parents=True)
    for number in range(1, 11):
      data = encode_frame(np.full((64, 96, 3), level(number - 1), np.uint8), None, 95)
      (tmp_path / 'in' / name / f'{number:05d}.jpg').write_bytes(data)
  (tmp_path / 'in' / 'bad').mkdir()
  (tmp_path / 'in' / 'bad' / '0.jpg').write_bytes(b'')
  out = tmp_path / 'out'
  unlabelled.main(['--frames', str(tmp_path / 'in'), '--output', str(out), *SHORT_CLIPS])
  assert keyframes_of(out) == {'a': [4, 5, 6], 'b/c': [4, 5, 6]}
  assert 'problem: bad: unusable folder: left out' in capsys.readouterr().err
  with pytest.raises(InputError, match='holds no folder of numbered pictures'):
    (tmp_path / 'none').mkdir()
    unlabelled.main(['--frames', str(tmp_path / 'none'), '--output', str(out)])


# Odd and broken videos

FAULTS = {
  'nonsense.mp4': 'undecodable video',
  'empty.webm': 'undecodable video',
  'sound.mp4': 'undecodable video',
  'link.mkv': 'missing video',
  'zero_frames.mkv': 'header without frame count',
  'uneven.mp4': 'variable frame rate',
  'sub/metadata.avi': 'broken metadata',
  'sub/lost.avi': 'lost pictures',
}
LOST = {'nonsense.mp4', 'empty.webm', 'sound.mp4', 'link.mkv'}


@pytest.fixture(scope='module')
def faulty(tmp_path_factory) -> Path:
  """A folder with a video for each fault, two good ones, and files that are no videos."""
  root = tmp_path_factory.mktemp('faulty')
  write_video(root / 'good.mp4', 12)
  write_video(root / 'good.avi', 14)
  write_video(root / 'zero_frames.mkv', 12, options={'live': '1'})
  write_video(root / 'uneven.mp4', 10, times=UNEVEN)
  write_video(root / 'sub' / 'metadata.avi', 12, metadata={'title': 'cafebar'})
  break_metadata(root / 'sub' / 'metadata.avi')
  numbered.write(root / 'sub' / 'lost.avi', 30)
  numbered.overwrite(root / 'sub' / 'lost.avi', lambda number, keys: number == 11)
  (root / 'nonsense.mp4').write_bytes(b'\0\0\0 ftypisom nonsense')
  (root / 'empty.webm').write_bytes(b'')
  _write_sound(root / 'sound.mp4')
  (root / 'link.mkv').symlink_to(root / 'nowhere.mkv')
  (root / 'sub' / 'circle').symlink_to(root)
  (root / 'twice').symlink_to(root / 'sub')
  (root / '._good.mp4').write_bytes(b'written by a file manager')
  (root / '.hidden').mkdir()
  (root / '.hidden' / 'v.mp4').write_bytes(b'also left out')
  (root / 'notes.txt').write_text('no video')
  return root


def _write_sound(path: Path) -> None:
  import av

  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=8000, layout='mono')
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
    frame.sample_rate = 8000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


@pytest.mark.parametrize('flags', [(), ('--clips-per-video', '2')])
def test_every_fault_is_told_by_name_and_the_rest_is_prepared(faulty, tmp_path, capsys, flags):
  manifest = prepare(faulty, tmp_path / 'out', *flags)
  told = {(problem['name'], problem['kind']) for problem in manifest['problems']}
  expected = set(FAULTS.items())
  lost = ('sub/lost.avi', 'unreadable frame')
  assert told - {lost} == expected
  assert lost in told or flags
  captured = capsys.readouterr()
  assert all(f'problem: {name}: {kind}:' in captured.err for name, kind in told)
  assert 'problems: 3 undecodable video' in captured.out
  found = keyframes_of(tmp_path / 'out')
  assert set(found) == {'good.mp4', 'good.avi'} | (FAULTS.keys() - LOST)
  if not flags:
    assert found['good.avi'] == list(range(4, 11))
    assert found['sub/lost.avi'] == [k for k in range(4, 27) if 11 not in range(k - 4, k + 3, 2)]
  inspect_records.main([str(tmp_path / 'out'), '--check', '--output', str(tmp_path / 'sheet.png')])
  assert 'undecodable video: 3' in capsys.readouterr().out
  assert (tmp_path / 'sheet.png').stat().st_size > 1000
  # Pre-training reads what was prepared, damaged videos included.
  index = RecordIndex.open(tmp_path / 'out', 'train')
  clips = pretraining.PretrainingClips(4, 2, 32)
  with pretraining.train_clips(index, clips, seed=0, batch_size=6, threads=1) as batches:
    assert all(next(batches).example_mask.all() for _ in range(3))


def test_strict_stops_at_the_first_problem(faulty, tmp_path):
  with pytest.raises(InputError, match='--strict stops at the first problem'):
    prepare(faulty, tmp_path / 'out', '--strict')


def test_a_dry_run_writes_nothing(faulty, tmp_path, capsys):
  arguments = ['--videos', str(faulty), '--output', str(tmp_path / 'out'), '--dry-run']
  unlabelled.main([*arguments, *SHORT_CLIPS])
  assert capsys.readouterr().out.startswith('train: 6 videos, ')
  assert list(tmp_path.iterdir()) == []


def test_names_that_cannot_be_written(tmp_path):
  write_video(tmp_path / 'in' / 'good.mp4', 9)
  good = (tmp_path / 'in' / 'good.mp4').read_bytes()
  for name in (b'line\nbreak.mp4', b'caf\xe9.mp4'):
    try:
      (tmp_path / 'in' / os.fsdecode(name)).write_bytes(good)
    except OSError:
      pytest.skip('the file system has no such names')
  manifest = prepare(tmp_path / 'in', tmp_path / 'out')
  assert manifest['problem_counts'] == {'unusable name': 2}
  assert set(keyframes_of(tmp_path / 'out')) == {'good.mp4'}


def test_a_folder_without_videos(tmp_path):
  with pytest.raises(InputError, match='holds no video .* that can be used; check the path'):
    prepare(tmp_path, tmp_path / 'out')
  with pytest.raises(InputError, match='no such directory; give the directory'):
    prepare(tmp_path / 'none', tmp_path / 'out')
  (tmp_path / 'v.mp4').write_bytes(b'nonsense')
  with pytest.raises(InputError, match="'train': none of its videos can be prepared .1 problems"):
    prepare(tmp_path, tmp_path / 'out')


# Splits


@pytest.fixture(scope='module')
def dozen(tmp_path_factory) -> Path:
  root = tmp_path_factory.mktemp('dozen')
  data = write_video(root / 'v00.mp4', 12).read_bytes()
  for number in range(1, 12):
    (root / f'v{number:02d}.mp4').write_bytes(data)
  return root


def test_a_fraction_is_held_out_by_name_and_seed(dozen, tmp_path):
  prepare(dozen, tmp_path / 'out', '--test-fraction', '0.3')
  test = set(keyframes_of(tmp_path / 'out', 'test'))
  train = set(keyframes_of(tmp_path / 'out'))
  names = {f'v{number:02d}.mp4' for number in range(12)}
  assert test | train == names and not test & train
  assert test == {name for name in names if unlabelled.draw(name, 0) < 0.3}
  drawn = np.array([unlabelled.draw(f'v{number}', 0) for number in range(4000)])
  assert 0 <= drawn.min() and drawn.max() < 1 and abs((drawn < 0.3).mean() - 0.3) < 0.03
  others = np.array([unlabelled.draw(f'v{number}', 1) for number in range(4000)])
  assert abs(np.corrcoef(drawn, others)[0, 1]) < 0.07


def test_held_out_by_a_list(dozen, tmp_path, capsys):
  (tmp_path / 'held.txt').write_text('v03.mp4\nv07.mp4 9\ngone.mp4\n')
  manifest = prepare(dozen, tmp_path / 'out', '--test-list', str(tmp_path / 'held.txt'))
  assert set(keyframes_of(tmp_path / 'out', 'test')) == {'v03.mp4', 'v07.mp4'}
  assert manifest['splits']['train']['videos'] == 10
  assert manifest['problem_counts'] == {'missing video': 1}


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (
      ('--test-fraction', '0.00001'),
      'none of the 12 videos would be in the split test by --test-f',
    ),
    (('--test-fraction', '0.99999'), 'all of the 12 videos'),
  ],
)
def test_an_empty_split_is_refused(dozen, tmp_path, flags, message):
  with pytest.raises(InputError, match=message):
    prepare(dozen, tmp_path / 'out', *flags)


@pytest.mark.parametrize('value', ['1', '-0.1', 'nan', 'x'])
def test_wrong_fractions(dozen, tmp_path, value, capsys):
  with pytest.raises(SystemExit) as stopped:
    prepare(dozen, tmp_path / 'out', '--test-fraction', value)
  assert stopped.value.code == 2 and '--test-fraction' in capsys.readouterr().err


# Interruptions


@pytest.fixture(scope='module')
def undisturbed(dozen, tmp_path_factory) -> dict[str, str]:
  output = tmp_path_factory.mktemp('undisturbed') / 'out'
  prepare(dozen, output, *FOUR_SHARDS)
  return hashes(output)


FOUR_SHARDS = ('--test-fraction', '0.3', '--shard-frames', '40')


@pytest.mark.parametrize('count', [4, 9])
def test_a_killed_preparation_resumes(dozen, undisturbed, tmp_path, count, capsys):
  output = tmp_path / 'out'
  arguments = ['--videos', str(dozen), '--output', str(output), *SHORT_CLIPS, *FOUR_SHARDS]
  arguments += ['--workers', '1']
  assert run('rename', 'after', count, arguments, 'unlabelled') == -signal.SIGKILL
  assert list(output.glob('.part-*')) and not (output / 'manifest.json').exists()
  prepare(dozen, output, *FOUR_SHARDS, '--workers', '2')
  assert 'resuming: ' in capsys.readouterr().out
  assert hashes(output) == undisturbed
  prepare(dozen, output, *FOUR_SHARDS)
  assert 'is already prepared' in capsys.readouterr().out


def test_another_plan_needs_overwrite(dozen, undisturbed, tmp_path):
  output = tmp_path / 'out'
  prepare(dozen, output, '--clips-per-video', '1')
  first = hashes(output)
  with pytest.raises(InputError, match='another plan .*pass --overwrite to replace it'):
    prepare(dozen, output, *FOUR_SHARDS)
  assert hashes(output) == first
  prepare(dozen, output, *FOUR_SHARDS, '--overwrite')
  assert hashes(output) == undisturbed
  with data_set_directory.alone_in(output, 'unlabelled'):
    with pytest.raises(InputError, match='another process is preparing a data set here'):
      prepare(dozen, output, *FOUR_SHARDS)
