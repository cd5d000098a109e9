"""The command from end to end: files that agree, nothing lost to Ctrl-C, bad input in one line."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from evad_jax import command_line
from evad_jax.formats import tube_csv
from evad_jax.inference import result_files
from evad_jax.inference.detector import Detector
from evad_jax.tools import detect_video
from tests.micro_checkpoint import CLASSES
from tests.tools.broken_video import break_off
from tests.video import numbered
from tests.video.tiny_videos import SIZE, read_video, write_video
from tests.video.turned_videos import write_pictures

ROOT = Path(__file__).resolve().parents[2]
NUM_FRAMES = 23  # keyframes 0, 4, ..., 20
ENLARGED = 7  # 64 x 96 is too small to be read
SOON = 600  # seconds: only guards against waiting forever
# The random model is sure of no one: a threshold of 0 reports all.
EVERYBODY = ['--keyframe-stride', '4', '--person-threshold', '0']


@pytest.fixture(scope='module')
def video(tmp_path_factory):
  return write_video(tmp_path_factory.mktemp('video') / 'a.mp4', NUM_FRAMES)


def read_files(prefix):
  """Rows and lines of the four files, in the order of their names."""
  found = []
  for path in result_files.paths(prefix):
    lines = path.read_text().splitlines()
    found.append(
      list(csv.DictReader(lines)) if path.suffix == '.csv' else list(map(json.loads, lines))
    )
  return found


def command(video, checkpoint, output, *flags):
  return [str(video), '--checkpoint', str(checkpoint), '--output', str(output), *flags]


def assert_agree(files):
  """The four files agree with each other."""
  rows, lines, tube_rows, tube_lines = files
  box = ('x1', 'y1', 'x2', 'y2')
  listed = [(line, person) for line in lines for person in line['people']]
  assert listed
  assert [
    (line['frame'], line['seconds'], person['id'], *person['box'], person['score'])
    for line, person in listed
  ] == [
    tuple(float(row[key]) for key in ('frame', 'seconds', 'person_id', *box, 'person_score'))
    for row in tube_rows
  ]
  assert [
    (line['frame'], person['id'], *person['box'], name, score)
    for line, person in listed
    for name, score in person['actions'].items()
  ] == [
    (
      int(row['frame']),
      int(row['person_id']),
      *(float(row[key]) for key in box),
      row['action'],
      float(row['score']),
    )
    for row in rows
  ]
  assert all(CLASSES[int(row['label'])] == row['action'] for row in rows)
  counts = {line['id']: line['keyframes'] for line in tube_lines}
  ids = [person['id'] for _, person in listed]
  assert counts == {number: ids.count(number) for number in set(ids)}


def test_from_end_to_end(checkpoint, video, tmp_path, capsys):
  output = tmp_path / 'new' / 'seen.mp4'
  flags = [*EVERYBODY, '--lowest-score', '0']
  assert detect_video.main(command(video, checkpoint, output, *flags)) == 0
  told = capsys.readouterr().out
  assert told.startswith(f'{NUM_FRAMES} frames, 6 keyframes, ') and 'skipped' not in told
  assert sorted(path.name for path in output.parent.iterdir()) == [
    'seen.mp4',
    'seen_detections.csv',
    'seen_detections.jsonl',
    'seen_tubes.csv',
    'seen_tubes.jsonl',
  ]
  frames, seconds = read_video(output)
  assert {frame.shape for frame in frames} == {(ENLARGED * SIZE[0], ENLARGED * SIZE[1], 3)}
  assert seconds == pytest.approx([number / 25 for number in range(NUM_FRAMES)], abs=1e-4)
  assert len(frames) == NUM_FRAMES
  files = read_files(tmp_path / 'new' / 'seen')
  assert_agree(files)
  # And they are what the detector finds.
  detector = Detector.from_checkpoint(checkpoint)
  found = detector.stream(
    read_video(video)[0], keyframe_stride=4, person_threshold=0.0, batch_size=4
  )
  for people, line in zip(found, files[1], strict=True):
    assert line['frame'] == people.frame + 1 and line['video'] == 'a.mp4'
    assert line['seconds'] == pytest.approx(people.frame / 25, abs=1e-4)
    assert [person['id'] for person in line['people']] == people.ids.tolist()
    boxes = np.array([person['box'] for person in line['people']])
    np.testing.assert_allclose(boxes, people.boxes * [96, 64, 96, 64], atol=0.0051)
    assert all(len(person['actions']) == len(CLASSES) for person in line['people'])
  assert f'{len(files[3])} people in' in told and len(files[3]) >= 2


def test_without_a_video_for_the_scorer(checkpoint, video, tmp_path):
  labels = tmp_path / 'labels.txt'
  labels.write_text('sit\n\n lie \nrun\nfall\nfly\n')
  flags = [*EVERYBODY, '--no-video', '--labels', str(labels), '--seconds', '0.5']
  assert detect_video.main(command(video, checkpoint, tmp_path / 'seen.mp4', *flags)) == 0
  assert not (tmp_path / 'seen.mp4').exists()
  rows = tube_csv.read_detections(tmp_path / 'seen_detections.csv', ['a.mp4'], 5)
  assert set(rows.frame.tolist()) == {1, 5, 9, 13}  # of 13 frames: 12 / 25 is below 0.5
  actions = {row['action'] for row in read_files(tmp_path / 'seen')[0]}
  assert actions <= {'sit', 'lie', 'run', 'fall', 'fly'} and actions


def test_what_is_there_stays_unless_it_may_be_replaced(checkpoint, video, tmp_path, capsys):
  output = tmp_path / 'seen.mkv'
  (tmp_path / 'seen_tubes.csv').write_text('mine')
  with pytest.raises(SystemExit) as caught:
    command_line.run(detect_video.main, command(video, checkpoint, output, *EVERYBODY))
  assert caught.value.code == 2
  assert 'seen_tubes.csv already exists' in capsys.readouterr().err
  assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [('seen_tubes.csv', 'mine')]
  assert detect_video.main(command(video, checkpoint, output, *EVERYBODY, '--overwrite')) == 0
  assert len(read_video(output)[0]) == NUM_FRAMES
  assert_agree(read_files(tmp_path / 'seen'))


def test_live_every_frame_is_written_and_skipped_keyframes_are_counted(
  checkpoint, video, tmp_path, capsys
):
  flags = [*EVERYBODY, '--live', '--batch-size', '4']
  assert detect_video.main(command(video, checkpoint, tmp_path / 'seen.mp4', *flags)) == 0
  told = capsys.readouterr().out
  skipped = re.search(r'(\d+) keyframes were skipped', told)
  lines = read_files(tmp_path / 'seen')[1]
  assert len(lines) + (int(skipped[1]) if skipped else 0) == 6
  assert len(read_video(tmp_path / 'seen.mp4')[0]) == NUM_FRAMES


def test_a_budget_chooses_among_the_rates(checkpoint, video, tmp_path, capsys):
  flags = [*EVERYBODY, '--no-video', '--keep-rate', '0.7', '--latency-budget', '60']
  assert detect_video.main(command(video, checkpoint, tmp_path / 'seen', *flags)) == 0
  assert 'keep rate 0.7' in capsys.readouterr().err


def test_a_video_that_breaks_off(checkpoint, video, tmp_path, capsys, monkeypatch):
  """What came before is in the files."""
  break_off(monkeypatch, 20)
  with pytest.raises(SystemExit) as caught:
    command_line.run(
      detect_video.main, command(video, checkpoint, tmp_path / 'seen.mp4', *EVERYBODY)
    )
  assert caught.value.code == 2 and 'error: a.mp4: breaks off' in capsys.readouterr().err
  assert len(read_video(tmp_path / 'seen.mp4')[0]) == 20
  files = read_files(tmp_path / 'seen')
  # Four keyframes make a call; keyframe 16 was still waiting for others.
  assert [line['frame'] for line in files[1]] == [1, 5, 9, 13, 17]
  assert_agree(files)


def test_pixels_that_are_not_square_keep_their_shape(checkpoint, tmp_path):
  """Boxes are pixels of the file, 64 x 96 of 2:1; the video that is shown is 64 x 192."""
  video, output = tmp_path / 'a.mp4', tmp_path / 'seen.mp4'
  narrow = np.full((64, 96, 3), 90, np.uint8)
  write_pictures(video, [narrow] * 9, pixel=Fraction(2))
  assert detect_video.main(command(video, checkpoint, output, *EVERYBODY)) == 0
  with av.open(str(output)) as container:
    stream = container.streams.video[0]
    shape = stream.width * (stream.sample_aspect_ratio or 1) / stream.height
  assert shape == pytest.approx(192 / 64, abs=0.01)
  detector = Detector.from_checkpoint(checkpoint)
  square = cv2.resize(narrow, (192, 64))
  found = next(iter(detector.stream([square] * 9, keyframe_stride=4, person_threshold=0.0)))
  boxes = [person['box'] for person in read_files(tmp_path / 'seen')[1][0]['people']]
  assert np.shape(boxes) == (len(found.ids), 4)
  np.testing.assert_allclose(boxes, found.boxes * [96, 64, 96, 64], atol=1.0)


def test_lost_pictures_are_told_and_move_nothing(checkpoint, tmp_path, capsys):
  video, output = numbered.write(tmp_path / 'a.avi', 23), tmp_path / 'seen.mp4'
  assert numbered.overwrite(video, lambda number, keys: number == 11) == 1  # the next is a key
  assert detect_video.main(command(video, checkpoint, output, *EVERYBODY)) == 0
  told = capsys.readouterr().out
  assert told.startswith('22 frames, 6 keyframes, ')
  assert 'note: lost pictures: 1 of 23 are damaged or missing, the first is number 11' in told
  frames, seconds = read_video(output)
  times = [n / 25 for n in range(23) if n != 11]
  assert seconds == pytest.approx(times, abs=1e-4)
  lines = read_files(tmp_path / 'seen')[1]
  assert [(line['frame'], line['seconds']) for line in lines] == [
    (1 + n, pytest.approx(n / 25)) for n in range(0, 23, 4)
  ]


def test_seconds_of_the_files_are_those_of_the_annotated_video(checkpoint, tmp_path):
  """For a video with a pause that starts late."""
  times = [2, 2.04, 2.08, 2.12, 2.16, 32.0, 32.04, 32.08, 32.12]
  video, output = write_video(tmp_path / 'a.mkv', 9, times=times), tmp_path / 'seen.mp4'
  assert detect_video.main(command(video, checkpoint, output, *EVERYBODY)) == 0
  with av.open(str(output)) as container:
    shown = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
  assert shown == pytest.approx([time - 2 for time in times], abs=2e-3)
  lines = read_files(tmp_path / 'seen')[1]
  assert [line['seconds'] for line in lines] == pytest.approx([shown[0], shown[4], shown[8]])


def test_ctrl_c_leaves_whole_files(checkpoint, tmp_path):
  video = write_video(tmp_path / 'long.mkv', 4000)
  output = tmp_path / 'seen.mp4'
  words = [sys.executable, '-m', 'evad_jax.tools.detect_video']
  words += command(video, checkpoint, output, *EVERYBODY)
  with subprocess.Popen(
    words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
  ) as process:
    lines, limit = tmp_path / 'seen_detections.jsonl', time.monotonic() + SOON
    while not lines.exists() or lines.read_text().count('\n') < 8:
      assert process.poll() is None and time.monotonic() < limit
      time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=SOON)
  assert process.returncode == 130
  count, keyframes = map(int, re.match(r'(\d+) frames, (\d+) keyframes', told).groups())
  assert 'stopped; complete up to there' in told and 8 <= keyframes and count < 4000
  frames, seconds = read_video(output)
  assert len(frames) == count
  assert seconds == pytest.approx([number / 25 for number in range(count)], abs=0.00051)
  files = read_files(tmp_path / 'seen')
  assert [line['frame'] for line in files[1]] == [4 * number + 1 for number in range(keyframes)]
  assert_agree(files)


def test_the_first_signal_ends_the_source_and_the_second_everything(capsys):
  stop, source = detect_video.Stop(), iter(range(5))
  pictures = stop.ends(source)
  assert [next(pictures), next(pictures)] == [0, 1]
  stop(signal.SIGTERM, None)
  assert list(pictures) == [] and 'press Ctrl-C again' in capsys.readouterr().err
  with pytest.raises(KeyboardInterrupt):
    stop(signal.SIGINT, None)


@pytest.mark.parametrize(
  'changes, flags, words',
  [
    ({'video': 'nowhere.mp4'}, [], 'nowhere.mp4: there is no such file'),
    ({'video': 'hello.srt'}, [], 'hello.srt: holds no video stream'),
    ({'video': 'noise.mp4'}, [], 'noise.mp4: cannot be decoded'),
    ({'checkpoint': 'nowhere'}, [], 'nowhere: there is no such checkpoint directory'),
    ({'output': 'seen.avi'}, [], 'seen.avi: a video name ends with .mp4, .mov, .mkv'),
    ({'output': 'hello.srt/seen.mp4'}, [], 'the results cannot be written'),
    ({'output': 'a.mp4'}, ['--overwrite'], 'a.mp4 is the input itself; give another --output'),
    ({}, ['--keep-rate', '1.5'], 'keep_rate=1.5 must be in (0, 1]'),
    ({}, ['--keep-rate', '0.1'], 'A keep rate of 0.1 at block 1 would drop tokens of the keyframe'),
    ({}, ['--keep-rate', '1', '0.7'], 'Several --keep-rate need a --latency-budget'),
    ({}, ['--keep-rate', '1', '7', '--latency-budget', '1'], 'keep_rates=(1.0, 7.0) must all be'),
    ({}, ['--latency-budget', '1'], 'A latency budget needs keep rates'),
    ({}, ['--labels', 'two.txt'], '2 class names were given, but the checkpoint has 5'),
    ({}, ['--labels', 'nowhere.txt'], 'nowhere.txt cannot be read'),
    ({}, ['--keyframe-stride', '0'], 'keyframe_stride=0 must be 1 or more'),
    ({}, ['--frame-stride', '0'], 'frame_stride=0 must be at least 1'),
    ({}, ['--batch-size', '0'], 'batch_size=0 must be 1 or more'),
    ({}, ['--person-threshold', '70'], 'person_threshold=70.0 must be from 0 to 1'),
    ({}, ['--seconds', '0'], '--seconds 0.0 must be above 0'),
    ({}, ['--rate', '-5'], '--rate -5 must be above 0'),
    ({}, ['--dtype', 'int8'], "dtype='int8' is not one of float32, bfloat16"),
    ({}, ['--step', '9'], 'there is no checkpoint of step 9'),
  ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
  checkpoint, tmp_path, capsys, monkeypatch, changes, flags, words
):
  monkeypatch.chdir(tmp_path)
  write_video(Path('a.mp4'), 9)
  Path('hello.srt').write_text('1\n00:00:00,000 --> 00:00:01,000\nhello\n')
  Path('noise.mp4').write_bytes(b'no video')
  Path('two.txt').write_text('sit\nstand\n')
  before = {path: path.read_bytes() for path in Path('.').iterdir()}
  arguments = {'video': 'a.mp4', 'checkpoint': checkpoint, 'output': 'seen.mp4'} | changes
  with pytest.raises(SystemExit) as caught:
    command_line.run(detect_video.main, command(*arguments.values(), *flags))
  assert caught.value.code == 2
  told = capsys.readouterr()
  (line,) = [line for line in told.err.splitlines() if line.startswith('error: ')]
  assert words in line and told.out == '' and told.err.endswith(f'{line}\n')
  assert {path: path.read_bytes() for path in Path('.').iterdir()} == before


@pytest.mark.parametrize('rate', ['fast', '1/0'])
def test_a_rate_that_is_no_number(capsys, rate):
  with pytest.raises(SystemExit) as caught:
    command_line.run(detect_video.main, command('a.mp4', 'run', 'seen.mp4', '--rate', rate))
  assert caught.value.code == 2
  assert f"argument --rate: '{rate}' is not a number like 25" in capsys.readouterr().err
