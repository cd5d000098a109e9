"""Written videos are read back: sizes, times, and what is left after an interruption."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.video.video_writer import VideoWriter
from tests import ffmpeg
from tests.video.tiny_videos import level, picture_of, read_video

ROOT = Path(__file__).resolve().parents[2]
# Writes the frames of `grey`, 25 a second, until it is killed; prints a line after 300.
ENDLESS = """
import itertools, sys
from evad_jax.video.video_writer import VideoWriter
from tests.video.test_video_writer import grey
writer = VideoWriter(sys.argv[1], 25)
for number in itertools.count():
  writer.write(grey(number), number / 25)
  if number == 300:
    print('written', flush=True)
"""


def grey(number, size=(32, 48)):
  return np.full((*size, 3), level(number), np.uint8)


@pytest.mark.parametrize('suffix', ['.mp4', '.MOV', '.mkv'])
@pytest.mark.parametrize('size', [(32, 48), (33, 47)])
def test_what_is_written_is_read(tmp_path, suffix, size):
  path = tmp_path / 'new' / f'a{suffix}'
  times = [0, 0.04, 0.08, 0.5, 0.54, 2.04]
  with VideoWriter(path, 25) as writer:
    for number, seconds in enumerate(times):
      writer.write(grey(number, size), seconds)
  assert writer.num_frames == 6
  frames, seconds = read_video(path)
  assert [picture_of(frame) for frame in frames] == [0, 1, 2, 3, 4, 5]
  assert seconds == pytest.approx(times, abs=0.00051)  # Matroska counts milliseconds
  height, width = (32, 48) if size == (32, 48) else (34, 48)
  assert {frame.shape for frame in frames} == {(height, width, 3)}


def test_an_odd_side_has_its_last_row_and_column_twice(tmp_path):
  frame = np.zeros((33, 47, 3), np.uint8)
  frame[16:, 24:] = 255
  with VideoWriter(tmp_path / 'a.mp4', 25) as writer:
    writer.write(frame, 0)
  ((found,), _) = read_video(tmp_path / 'a.mp4')
  np.testing.assert_allclose(found[::33, ::47, 0], [[0, 0], [0, 255]], atol=6)
  assert abs(int(found[33, 40, 0]) - int(found[32, 40, 0])) < 6


def test_times_that_do_not_rise_still_follow_one_another(tmp_path):
  with VideoWriter(tmp_path / 'a.mp4', 25) as writer:
    for number, seconds in enumerate([0, 1, 1, 0.5, 2]):
      writer.write(grey(number), seconds)
  frames, seconds = read_video(tmp_path / 'a.mp4')
  assert [picture_of(frame) for frame in frames] == [0, 1, 2, 3, 4]
  assert seconds == pytest.approx([0, 1, 1, 1, 2], abs=0.0001)
  assert sorted(set(seconds)) == seconds


def test_closing_twice_is_harmless(tmp_path):
  writer = VideoWriter(tmp_path / 'a.mp4', 25)
  writer.write(grey(0), 0)
  writer.close()
  size = (tmp_path / 'a.mp4').stat().st_size
  writer.close()
  assert (tmp_path / 'a.mp4').stat().st_size == size


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
def test_a_killed_program_leaves_a_video_that_plays(tmp_path, suffix):
  """At most the last fragment of four seconds, and what the codec held, are lost."""
  path = tmp_path / f'a{suffix}'
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  words = [sys.executable, '-c', ENDLESS, str(path)]
  with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as process:
    assert process.stdout.readline() == b'written\n'
    process.kill()
  assert process.returncode == -signal.SIGKILL
  frames, seconds = read_video(path)
  assert len(frames) >= 100
  assert [picture_of(frame) for frame in frames] == [number % 44 for number in range(len(frames))]
  assert seconds == pytest.approx(np.arange(len(frames)) / 25, abs=0.00051)


def test_without_a_frame_there_is_no_file(tmp_path):
  with VideoWriter(tmp_path / 'a.mp4', 25):
    pass
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'name, words',
  [
    ('a.avi', r'a.avi: a video name ends with .mp4, .mov, .mkv; rename it'),
    ('a', r'a: a video name ends with .mp4, .mov, .mkv'),
    ('folder.mp4', 'folder.mp4: cannot be written'),
    ('file/a.mp4', 'a.mp4: cannot be written'),
  ],
)
def test_names_that_cannot_be_written(tmp_path, name, words):
  (tmp_path / 'folder.mp4').mkdir()
  (tmp_path / 'file').write_text('no folder')
  with pytest.raises(InputError, match=words) as caught:
    VideoWriter(tmp_path / name, 25)
  assert '\n' not in str(caught.value)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder.mp4']


def test_a_frame_an_hour(tmp_path):
  with VideoWriter(tmp_path / 'a.mp4', 1 / 3600) as writer:
    for number in range(3):
      writer.write(grey(number), 3600 * number)
  frames, _ = read_video(tmp_path / 'a.mp4')
  assert [picture_of(frame) for frame in frames] == [0, 1, 2]


RED = (251, 0, 0)


@pytest.mark.parametrize(
  'size, matrix', [((720, 1280), 'bt709'), ((96, 1280), 'bt709'), ((96, 128), 'smpte170m')]
)
@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
def test_colours_are_those_that_players_expect(tmp_path, size, matrix, suffix):
  """FFmpeg notes the matrix, and gets the colour back by it."""
  path = tmp_path / f'a{suffix}'
  with VideoWriter(path, 25) as writer:
    for number in range(3):
      writer.write(np.full((*size, 3), RED, np.uint8), number / 25)
  told = ffmpeg.run('-i', path, '-f', 'null', '-').stderr.decode()
  (stream,) = [line for line in told.splitlines() if 'Video: h264' in line and '(tv' in line]
  assert matrix in stream
  np.testing.assert_allclose(ffmpeg.pictures(path, size)[0].mean((0, 1)), RED, atol=3)


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
@pytest.mark.parametrize('endless', [False, True])
def test_pictures_come_at_their_seconds_by_the_clock_of_the_file(tmp_path, suffix, endless):
  """Also where the file is not read from its first picture on, but from 0."""
  path, times = tmp_path / f'a{suffix}', [0, 0.125, 0.25, 0.375, 0.5, 2.0, 2.125]
  with VideoWriter(path, 8, endless) as writer:
    for number, seconds in enumerate(times):
      writer.write(grey(number), seconds)
  done = ffmpeg.run(
    '-copyts', '-i', path, '-vf', 'showinfo', '-fps_mode', 'passthrough', '-f', 'null', '-'
  )
  shown = [float(time) for time in ffmpeg.SHOWN.findall(done.stderr.decode())]
  assert shown == pytest.approx(times, abs=0.00051)
