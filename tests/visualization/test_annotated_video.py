"""Frames wait for the people of the next keyframe, and are written once, in order."""

from types import SimpleNamespace

import numpy as np
import pytest

from evad_jax.inference.person_tracks import People
from evad_jax.video.video_source import TimedPicture
from evad_jax.visualization import annotated_video
from evad_jax.visualization.annotated_video import AnnotatedVideo


class Writer:
  """Keeps what is written."""

  def __init__(self):
    self.frames = []

  def write(self, frame, seconds):
    self.frames.append((frame, seconds))


@pytest.fixture(autouse=True)
def told(monkeypatch):
  """Replaces a picture by its number, and people by their ids and positions."""
  monkeypatch.setattr(
    annotated_video,
    'annotate',
    lambda frame, figures, style: (frame, [(f.id, round(float(f.box[0]), 3)) for f in figures]),
  )


def pictures(count):
  for number in range(count):
    picture = SimpleNamespace(rgb=lambda number=number: number, size=(240, 320 + number))
    yield TimedPicture(number / 10, picture)


def at(frame, *people):
  """People of a keyframe: (id, x)."""
  ids = np.array([person for person, _ in people], np.int64)
  boxes = np.array([(x, 0, x + 0.2, 1) for _, x in people], np.float32).reshape(-1, 4)
  return People(frame, ids, boxes, np.ones(len(ids)), np.ones((len(ids), 1)))


def test_frames_are_drawn_between_keyframes():
  writer = Writer()
  video = AnnotatedVideo(writer, ['walk'])
  frames = video.watch(pictures(11))
  for _ in range(3):
    next(frames)
  video.add(at(0, (5, 0.0)))
  assert [frame for frame, _ in writer.frames] == [(0, [(5, 0.0)])]
  for _ in range(6):
    next(frames)
  video.add(at(4, (5, 0.4)))
  assert [video.seconds(frame) for frame in (4, 8)] == [0.4, 0.8]
  video.add(at(8, (6, 0.5)))
  assert list(frames)[-1].rgb() == 10 and video.count == 11
  video.finish()
  wanted = [[(5, 0.0)], [(5, 0.1)], [(5, 0.2)], [(5, 0.3)], [(5, 0.4)]]  # 5 walks
  wanted += [[(5, 0.4)], [(5, 0.4)], [(6, 0.5)], [(6, 0.5)], [(6, 0.5)], [(6, 0.5)]]  # and is gone
  assert [frame for frame, _ in writer.frames] == list(enumerate(wanted))
  assert [seconds for _, seconds in writer.frames] == pytest.approx(np.arange(11) / 10)
  assert video.left_out == 0 and video.size == (240, 320)  # of the first


def test_the_oldest_are_left_out_where_too_many_wait():
  writer = Writer()
  video = AnnotatedVideo(writer, ['walk'], most_waiting=4)
  assert len(list(video.watch(pictures(10)))) == 10
  video.add(at(8, (1, 0.8)))
  video.finish()
  assert [frame for frame, _ in writer.frames] == [
    (6, [(1, 0.8)]),
    (7, [(1, 0.8)]),
    (8, [(1, 0.8)]),
    (9, [(1, 0.8)]),
  ]
  assert video.left_out == 6 and video.count == 10


def test_without_a_writer_times_alone_are_kept():
  video = AnnotatedVideo(None, ['walk'])
  kept = []
  for number, _ in enumerate(video.watch(pictures(100))):
    if number >= 3:
      assert video.seconds(number - 3) == pytest.approx((number - 3) / 10)
      video.add(at(number - 3, (1, 0.5)))
    kept.append(len(video._seconds))
  assert max(kept) <= 5
  video.finish()
