"""Files, pipes, addresses and cameras: what a name means, and which picture is shown when."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import pytest

from evad_jax.errors import InputError
from evad_jax.video import video_source
from evad_jax.video.shown import DEFAULT_RATE
from tests.video.tiny_videos import picture_of, write_video

ROOT = Path(__file__).resolve().parents[2]
PIPED = """
from evad_jax.video import video_source
from tests.video.tiny_videos import picture_of
with video_source.opened(video_source.find('-')) as source:
  print(source.name, [picture_of(picture.rgb()) for _, picture, _ in source.pictures])
"""


def read(source, rate=None):
  """Pictures and their times."""
  with video_source.opened(source, rate) as opened:
    timed = [(picture_of(picture.rgb()), seconds) for seconds, picture, _ in opened.pictures]
  return [number for number, _ in timed], [seconds for _, seconds in timed]


@pytest.mark.parametrize(
  'text, target, live, options',
  [
    ('rtsp://10.0.0.1/door', 'rtsp://10.0.0.1/door', True, {'timeout': 30.0}),
    ('RTSP://10.0.0.1/door', 'RTSP://10.0.0.1/door', True, {'timeout': 30.0}),
    ('tcp://127.0.0.1:9000', 'tcp://127.0.0.1:9000', True, {'timeout': 30.0}),
    ('https://example.org/a.mp4', 'https://example.org/a.mp4', False, {'timeout': 30.0}),
    ('/dev/video0', '/dev/video0', True, {'format': 'v4l2'}),
    ('webcam:0', '/dev/video0', True, {'format': 'v4l2'}),
    ('webcam:12', '/dev/video12', True, {'format': 'v4l2'}),
  ],
)
def test_what_a_name_means(monkeypatch, text, target, live, options):
  monkeypatch.setattr(sys, 'platform', 'linux')
  assert video_source.find(text) == (text, target, live, options)


def test_a_file_and_a_form_that_is_told(monkeypatch, tmp_path):
  path = write_video(tmp_path / 'a.mp4', 2)
  assert video_source.find(str(path)) == (str(path), path, False, {})
  assert video_source.find(str(path), 'mov') == (str(path), path, False, {'format': 'mov'})
  # A device by FFmpeg's name for it need not be a file.
  assert video_source.find(':0.0', 'x11grab') == (':0.0', ':0.0', False, {'format': 'x11grab'})
  assert video_source.find('/dev/video1', 'mjpeg').options == {'format': 'mjpeg'}
  monkeypatch.setattr(sys, 'platform', 'darwin')
  assert video_source.find('webcam:1') == ('webcam:1', '1', True, {'format': 'avfoundation'})


@pytest.mark.parametrize(
  'text, words',
  [
    ('nowhere.mp4', 'nowhere.mp4: there is no such file; give a video, - for standard input'),
    ('{folder}', ': is a directory; give a video'),
    ('webcam:', 'webcam:: cameras are webcam:0, webcam:1'),
    ('webcam:front', 'webcam:front: cameras are webcam:0, webcam:1'),
    ('', ': is a directory'),
  ],
)
def test_names_that_mean_nothing(tmp_path, text, words):
  with pytest.raises(InputError, match=words):
    video_source.find(text.format(folder=tmp_path))


def test_a_system_whose_cameras_have_no_known_name(monkeypatch):
  monkeypatch.setattr(sys, 'platform', 'win32')
  with pytest.raises(InputError, match='webcam:0: .* with --input-format'):
    video_source.find('webcam:0')


def test_pictures_in_order_at_their_times(tmp_path):
  path = write_video(tmp_path / 'a.mp4', 7, rate=30)
  source = video_source.find(str(path))
  with video_source.opened(source) as opened:
    assert (opened.name, opened.fps, opened.num_frames) == (str(path), 30, 7)
  numbers, seconds = read(source)
  assert numbers == [0, 1, 2, 3, 4, 5, 6]
  assert seconds == pytest.approx([n / 30 for n in range(7)], abs=1e-4)


def test_an_uneven_pace_keeps_its_times_or_is_made_even(tmp_path):
  times = [0, 0.04, 0.08, 0.3, 0.34, 0.38]
  source = video_source.find(str(write_video(tmp_path / 'a.mp4', 6, times=times)))
  numbers, seconds = read(source)
  assert numbers == [0, 1, 2, 3, 4, 5]
  assert seconds == pytest.approx(times, abs=1e-3)
  # At 10 a second the times are slots 0 0.4 0.8 3 3.4 3.8, and the last rounds to 4.
  numbers, seconds = read(source, Fraction(10))
  assert numbers == [1, 2, 2, 4]  # the last ends at 0.42 and is too short for a slot of its own
  assert seconds == pytest.approx([0, 0.1, 0.2, 0.3])
  with video_source.opened(source, Fraction(10)) as opened:
    assert opened.fps == 10


def test_rates_that_are_no_decimal_numbers(tmp_path):
  source = video_source.find(str(write_video(tmp_path / 'a.mp4', 6, rate=25)))
  numbers, seconds = read(source, Fraction(25, 3))  # slots 0 0.33 0.67 1 1.33 1.67
  assert numbers == [1, 4]
  assert seconds == pytest.approx([0, 3 / 25])
  with pytest.raises(InputError, match='a.mp4: is too short for a picture at 1/5000 a second'):
    read(source, Fraction(1, 5000))


def test_a_long_pause_is_a_pause_and_a_broken_time_is_none(tmp_path):
  times = [0, 0.04, 4000, 4000.04, 4000.5, 1e6, 1000000.04]
  source = video_source.find(str(write_video(tmp_path / 'a.mkv', 7, times=times)))
  with video_source.opened(source) as opened:
    pace = 1 / opened.fps
    seconds = [timed.seconds for timed in opened.pictures]
  expected = [*times[:5], 4000.5 + pace, 4000.54 + pace]
  assert seconds == pytest.approx(expected, abs=2e-3)
  assert [note.partition(':')[0] for note in opened.notes()] == ['clock starts again']


def test_a_header_without_a_count_gives_no_guess(tmp_path):
  path = write_video(tmp_path / 'a.mkv', 6, options={'live': '1'})
  with video_source.opened(video_source.find(str(path))) as opened:
    assert opened.num_frames is None
    assert len(list(opened.pictures)) == 6
  usual = write_video(tmp_path / 'b.mkv', 6)  # a duration alone
  with video_source.opened(video_source.find(str(usual))) as opened:
    assert opened.num_frames == 6
  with video_source.opened(video_source.find(str(usual)), Fraction(50)) as opened:
    assert opened.num_frames == 12


def test_what_is_no_video_is_named(tmp_path):
  (tmp_path / 'bad.mp4').write_bytes(b'no video')
  with pytest.raises(InputError, match='bad.mp4: cannot be decoded'):
    read(video_source.find(str(tmp_path / 'bad.mp4')))
  whole = write_video(tmp_path / 'cut.mkv', 40, size=(64, 96))
  (tmp_path / 'subtitle.srt').write_text('1\n00:00:00,000 --> 00:00:01,000\nhello\n')
  with pytest.raises(InputError, match='subtitle.srt: holds no video stream'):
    read(video_source.find(str(tmp_path / 'subtitle.srt')))
  assert read(video_source.find(str(whole)))[0] == list(range(40))


def test_through_a_pipe(tmp_path):
  """Matroska can be read without seeking."""
  path = write_video(tmp_path / 'a.mkv', 9)
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  with subprocess.Popen(['cat', str(path)], stdout=subprocess.PIPE) as cat:
    told = subprocess.run(
      [sys.executable, '-c', PIPED],
      stdin=cat.stdout,
      env=environment,
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
  assert told.stdout == f'standard input {list(range(9))}\n', told.stderr


@contextlib.contextmanager
def served(content: bytes):
  """An address on this machine that gives its first visitor some bytes."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    server.settimeout(600)

    def serve():
      visitor, _ = server.accept()
      with visitor:
        visitor.sendall(content)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f'tcp://127.0.0.1:{server.getsockname()[1]}'
    thread.join()


def test_a_stream_from_the_network(tmp_path):
  path = write_video(tmp_path / 'a.ts', 30)
  with served(path.read_bytes()) as address:
    source = video_source.find(address)
    assert source.live
    with video_source.opened(source) as opened:
      assert opened.num_frames is None or opened.num_frames <= 31
      timed = [(picture_of(picture.rgb()), seconds) for seconds, picture, _ in opened.pictures]
  assert [number for number, _ in timed] == list(range(30))
  assert [s for _, s in timed] == pytest.approx([number / 25 for number in range(30)], abs=1e-4)


def test_nobody_answers():
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
  with pytest.raises(InputError, match=f'tcp://127.0.0.1:{port}: cannot be decoded'):
    read(video_source.find(f'tcp://127.0.0.1:{port}'))


def test_a_source_that_tells_no_rate_has_a_usual_one(tmp_path):
  """A raw stream of pictures without times: the format's own default is what FFmpeg states."""
  path = write_video(tmp_path / 'a.m4v', 5, rate=25)
  numbers, seconds = read(video_source.find(str(path)))
  assert numbers == [0, 1, 2, 3, 4]
  assert seconds == pytest.approx([n / DEFAULT_RATE for n in range(5)])
