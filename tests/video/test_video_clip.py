"""The clip of a keyframe, from videos whose pictures encode their number."""

import re

import numpy as np
import pytest

from evad_jax.data.clip_sampling import clip_frame_numbers
from evad_jax.errors import InputError
from evad_jax.video import video_source
from evad_jax.video.video_clip import read_clip
from tests.video.tiny_videos import picture_of, write_video

COUNT = 20  # pictures, 25 a second


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return write_video(tmp_path_factory.mktemp('videos') / 'grey.mp4', COUNT)


def read(path, clip_frames=8, frame_stride=2, **keyframe):
  with video_source.opened(video_source.find(str(path))) as video:
    return read_clip(video, clip_frames, frame_stride, **keyframe)


@pytest.mark.parametrize('keyframe', [0, 3, 8, 13, 14, COUNT - 1])
def test_frames_are_those_of_the_clip(path, keyframe):
  clip = read(path, keyframe=keyframe)
  expected = clip_frame_numbers(keyframe, COUNT, 8, 2)
  assert clip.numbers.tolist() == expected.tolist()
  assert [picture_of(frame) for frame in clip.frames] == expected.tolist()
  assert clip.seconds == pytest.approx(keyframe / 25)


@pytest.mark.parametrize(
  ('seconds', 'keyframe'), [(0.0, 0), (0.1, 2), (0.2, 5), (0.77, 19), (0.79, 19)]
)
def test_by_time_it_is_the_frame_on_the_screen(path, seconds, keyframe):
  clip = read(path, seconds=seconds)
  assert clip.numbers[4] == keyframe and picture_of(clip.frames[4]) == keyframe


def test_by_time_where_the_pace_is_not_even(tmp_path):
  times = [0, 0.1, 0.2, 1.2, 1.3, 1.4]
  path = write_video(tmp_path / 'uneven.mkv', len(times), times=times)
  assert [int(read(path, seconds=s).numbers[4]) for s in (0.15, 1.1, 1.25)] == [1, 2, 3]


def test_by_default_it_is_the_one_in_the_middle(path):
  assert read(path).numbers[4] == COUNT // 2


def test_only_what_a_clip_needs_is_decoded(path):
  with video_source.opened(video_source.find(str(path))) as video:
    read_clip(video, 4, 2, keyframe=5)
    assert picture_of(next(video.pictures).picture.rgb()) == 5 + 2 + 1


@pytest.mark.parametrize(
  ('keyframe', 'message'),
  [
    (
      {'keyframe': 20},
      'frame 20 is past its end; it has 20 frames, counted from 0, and 0.80 seconds',
    ),
    ({'seconds': 0.81}, '0.81 seconds is past its end; it has 20 frames'),
    ({'keyframe': -1}, 'frame -1 is not a position in a video; give'),
    ({'seconds': -0.5}, '-0.5 seconds is not a position in a video; give'),
    ({'seconds': float('nan')}, 'nan seconds is not a position in a video; give'),
  ],
)
def test_no_such_keyframe(path, keyframe, message):
  with pytest.raises(InputError, match=re.escape(f'grey.mp4: {message}')):
    read(path, **keyframe)


def test_a_video_without_pictures(path):
  with video_source.opened(video_source.find(str(path))) as video:
    with pytest.raises(InputError, match='holds no picture'):
      read_clip(video._replace(pictures=iter(())), 4, 1, keyframe=0)


def test_frames_that_change_their_size(path):
  with video_source.opened(video_source.find(str(path))) as video:
    pictures = (timed._replace(picture=Grey(i)) for i, timed in enumerate(video.pictures))
    with pytest.raises(InputError, match='change size around frame 9: 4 x 6 and 8 x 6'):
      read_clip(video._replace(pictures=pictures), 4, 1, keyframe=9)


class Grey:
  """A picture whose height doubles at number 10."""

  def __init__(self, number):
    self.number = number

  def rgb(self):
    return np.zeros((4 if self.number < 10 else 8, 6, 3), np.uint8)
