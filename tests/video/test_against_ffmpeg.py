"""The same pictures as FFmpeg's command line shows, number for number."""

from fractions import Fraction

import numpy as np
import pytest

from evad_jax.video import orientation, video_source
from evad_jax.video.decode import VideoFile
from tests import external, ffmpeg
from tests.video.tiny_videos import SIZE, picture_of, write_video

CLIPS = external.DATA / 'clips'
NUMBER = 20
PASS = ('-fps_mode', 'passthrough')


def numbers(pictures):
  return [picture_of(picture) for picture in pictures]


def digest(picture):
  """The digest of a picture as FFmpeg shows it: upright, in the file's own pixels."""
  stored = picture.frame.to_ndarray(format='rgb24')
  return ffmpeg.digest(orientation.turn(stored, picture.orientation))


@pytest.mark.parametrize('rate', ['7', '10', '25/3', '24000/1001', '30', '60'])
@pytest.mark.parametrize('own', [24, 25, 30])
def test_at_a_rate(tmp_path, own, rate):
  path = write_video(tmp_path / 'a.mp4', 37, rate=own)
  ours = [frame.rgb() for frame in VideoFile(path, Fraction(rate)).frames()]
  theirs = ffmpeg.pictures(path, SIZE, '-vf', f'fps={rate}', *PASS)
  assert numbers(ours) == numbers(theirs)


def test_at_a_rate_where_the_pace_is_not_even(tmp_path):
  times = [0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.5, 0.54, 0.58, 0.62, 1.9, 2.0]
  path = write_video(tmp_path / 'a.mp4', len(times), times=times)
  for rate in ('4', '10', '25', '50'):
    ours = [frame.rgb() for frame in VideoFile(path, Fraction(rate)).frames()]
    theirs = ffmpeg.pictures(path, SIZE, '-vf', f'fps={rate}', *PASS)
    assert numbers(ours) == numbers(theirs)


def with_sound(path, late=0.0):
  """Puts a sound that starts at 0 beside pictures that start `late` seconds later."""
  made = path.with_name(f'sound_{path.name}')
  sound = ('-f', 'lavfi', '-i', 'sine=d=20')
  streams = ('-map', '1:v', '-map', '0:a', '-c:v', 'copy', '-shortest')
  ffmpeg.run('-v', 'error', *sound, '-itsoffset', late, '-i', path, *streams, made)
  return made


@pytest.mark.parametrize('own', ['24', '25', '24000/1001', '30000/1001'])
def test_a_part_by_the_clock_of_the_file(tmp_path, own):
  """As AVA's frames are extracted from films."""
  path = with_sound(write_video(tmp_path / 'a.mp4', 300, rate=Fraction(own)))
  ours = [frame.rgb() for frame in VideoFile(path, Fraction(30), 3, 5).frames()]
  theirs = ffmpeg.pictures(path, SIZE, '-r', '30', before=('-ss', '3', '-t', '5'))
  assert len(ours) == 150 and numbers(ours) == numbers(theirs)
  cut = [frame.rgb() for frame in VideoFile(path, Fraction(30), 0).frames()]
  assert numbers(cut) == numbers(ffmpeg.pictures(path, SIZE, '-r', '30'))


@pytest.mark.parametrize('late', [0.5, 2])
def test_pictures_that_come_after_the_sound(tmp_path, late):
  path = with_sound(write_video(tmp_path / 'a.mp4', 40), late)
  # By the clock of the file they are late, and the first stands in; else they start the clock.
  ours = [frame.rgb() for frame in VideoFile(path, Fraction(30), 0).frames()]
  assert numbers(ours) == numbers(ffmpeg.pictures(path, SIZE, '-r', '30'))
  assert numbers(ours)[: round(30 * late) + 1] == [0] * (round(30 * late) + 1)
  ours = [frame.rgb() for frame in VideoFile(path, Fraction(30)).frames()]
  assert numbers(ours) == numbers(ffmpeg.pictures(path, SIZE, '-vf', 'fps=30', *PASS))
  assert numbers(ours)[:6] == [0, 1, 2, 2, 3, 4] or numbers(ours)[:3] == [0, 1, 2]
  with video_source.opened(video_source.find(str(path))) as opened:
    assert next(opened.pictures).seconds == 0


def clips():
  return sorted(path for path in CLIPS.glob('*.*') if path.suffix in ('.avi', '.mp4'))


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason=external.missing(CLIPS))
@pytest.mark.parametrize('path', clips(), ids=lambda path: path.name[:20])
def test_real_clips(path):
  assert len(clips()) == NUMBER
  told = []
  frames = VideoFile(path).frames(lambda *what: told.append(what))
  assert [digest(frame) for frame in frames] == ffmpeg.digests(path, '-an', *PASS)
  assert not [kind for kind, _ in told if 'lost' in kind or 'damaged' in kind]
  with video_source.opened(video_source.find(str(path))) as opened:
    times = [timed.seconds for timed in opened.pictures]
  np.testing.assert_allclose(times, ffmpeg.seconds(path), atol=2e-6 * max(1, times[-1]))
  for rate in ('8', '25', '30'):
    ours = [digest(frame) for frame in VideoFile(path, Fraction(rate)).frames()]
    assert ours == ffmpeg.digests(path, '-an', '-vf', f'fps={rate}', *PASS)
