"""What detection leaves where it fails or is stopped, and what it prints."""

import errno
from pathlib import Path

import numpy as np
import pytest

from evad_jax import command_line
from evad_jax.errors import InputError
from evad_jax.inference import result_files
from evad_jax.inference.result_files import DetectionFiles
from evad_jax.tools import detect_video
from evad_jax.video import video_source, video_writer
from evad_jax.visualization.annotated_video import AnnotatedVideo
from tests.tools.broken_video import break_off
from tests.video.tiny_videos import write_video

NUM_FRAMES = 23
FLAGS = ['--keyframe-stride', '4', '--person-threshold', '0', '--overwrite']


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A working directory with a video and a file that is not one."""
  monkeypatch.chdir(tmp_path)
  write_video(Path('a.mp4'), NUM_FRAMES)
  Path('noise.mp4').write_bytes(b'no video')
  return tmp_path


@pytest.fixture
def earlier(here):
  paths = [*result_files.paths(Path('seen')), Path('seen.mp4')]
  for path in paths:
    path.write_text(f'earlier {path}')
  return paths


def files(directory):
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def fails(capsys, video, checkpoint, output='seen.mp4'):
  """The sentence with which the command ends."""
  with pytest.raises(SystemExit) as caught:
    words = [video, '--checkpoint', str(checkpoint), '--output', output, *FLAGS]
    command_line.run(detect_video.main, words)
  assert caught.value.code == 2
  (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith('error: ')]
  return line


def test_a_video_that_does_not_decode_costs_nothing(here, earlier, checkpoint, capsys):
  before = files(here)
  assert 'noise.mp4: cannot be decoded' in fails(capsys, 'noise.mp4', checkpoint)
  assert files(here) == before


def test_a_failure_before_anything_was_found_says_so(
  here, earlier, checkpoint, capsys, monkeypatch
):
  break_off(monkeypatch, 2)  # before the first clip is complete
  before = files(here)
  for output in ('seen.mp4', 'new.mp4'):
    assert fails(capsys, 'a.mp4', checkpoint, output) == 'error: a.mp4: breaks off'
    assert files(here) == before


def test_what_was_found_before_a_failure_does_not_replace_the_whole(
  here, earlier, checkpoint, capsys, monkeypatch
):
  break_off(monkeypatch, 20)
  before = files(here)
  line = fails(capsys, 'a.mp4', checkpoint)
  left = [f'unfinished-{path}' for path in earlier]
  assert line == f'error: a.mp4: breaks off; what was found before is in {", ".join(left)}'
  after = files(here)
  assert {name: after.pop(name) for name in before} == before
  assert sorted(after) == sorted(left)
  # Keyframes 0, 4, 8, 12 and 16, below a header.
  assert after['unfinished-seen_detections.jsonl'].count(b'\n') == 5


def test_what_is_whole_replaces_it(here, earlier, checkpoint, capsys):
  before = files(here)
  words = ['a.mp4', '--checkpoint', str(checkpoint), '--output', 'seen.mp4', *FLAGS]
  assert detect_video.main(words) == 0
  told = capsys.readouterr().out.splitlines()[-1]
  assert told == ', '.join(map(str, earlier))
  after = files(here)
  assert sorted(after) == sorted(before)
  changed = {name for name in before if before[name] != after[name]}
  assert changed == {str(path) for path in earlier}


def test_a_run_that_is_stopped_at_once_replaces_nothing(
  here, earlier, checkpoint, capsys, monkeypatch
):
  class Stopped(detect_video.Stop):
    def __init__(self):
      super().__init__()
      self.asked = True

  monkeypatch.setattr(detect_video, 'Stop', Stopped)
  before = files(here)
  words = ['a.mp4', '--checkpoint', str(checkpoint), '--output', 'seen.mp4', *FLAGS]
  assert detect_video.main(words) == 130
  assert 'nothing was found; nothing was written' in capsys.readouterr().out
  assert files(here) == before


def test_a_disk_that_becomes_full(here, earlier, checkpoint, capsys, monkeypatch):
  add = DetectionFiles.add

  def full(self, people, *arguments):
    if people.frame == 12:
      raise OSError(errno.ENOSPC, 'No space left on device')
    add(self, people, *arguments)

  monkeypatch.setattr(DetectionFiles, 'add', full)
  before = files(here)
  line = fails(capsys, 'a.mp4', checkpoint)
  assert 'seen.mp4: cannot be written: No space left on device' in line
  assert 'another --output' in line and 'unfinished-seen_detections.csv' in line
  assert {name: data for name, data in files(here).items() if name in before} == before


def test_a_long_strip(here):
  """Enlarged as far as H.264 allows: 16 times, instead of 20."""
  write_video(Path('strip.mp4'), 3, size=(20, 1000))
  with video_source.opened(video_source.find('strip.mp4')) as source:
    with video_writer.VideoWriter('seen.mp4', source.fps) as writer:
      annotated = AnnotatedVideo(writer, [])
      assert len(list(annotated.watch(source.pictures))) == 3
      annotated.finish()
  with video_source.opened(video_source.find('seen.mp4')) as source:
    shapes = [place.picture.rgb().shape for place in source.pictures]
  assert shapes == [(320, 16000, 3)] * 3


def test_a_frame_that_no_video_has_room_for_is_told(tmp_path):
  with video_writer.VideoWriter(tmp_path / 'a.mp4', 8) as writer:
    with pytest.raises(InputError, match=r'16 x 16386 \(height x width\) are too large .* 16384'):
      writer.write(np.zeros((16, 16386, 3), np.uint8), 0.0)
  assert not (tmp_path / 'a.mp4').exists()
