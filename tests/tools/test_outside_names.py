"""Videos and results of any name, and no secrets in results."""

import csv
import functools
import http.server
import json
import os
import threading
from pathlib import Path

import pytest

from evad_jax.errors import InputError, exit_on_input_error
from evad_jax.inference import result_files
from evad_jax.tools import detect_video, visualize
from evad_jax.video import decode, video_source
from tests.video.tiny_videos import picture_of, write_video

NUM_FRAMES = 9
FLAGS = ['--keyframe-stride', '4', '--person-threshold', '0', '--lowest-score', '0']
NAMES = {
  'a colon': b'a:b.mp4',
  'a protocol': b'file:a.mp4',
  'two files of one protocol': b'concat:a|b.mp4',
  'a camera and more': b'webcam:0.mp4',
  'a pattern of numbers': b'50%d.mp4',
  'a question': b'a?b#c.mp4',
  'quotes and commas': b'a,"b\'c.mp4',
  'Latin-1': b'caf\xe9.mp4',
  'no text at all': b'\xff\xfe\x80.mp4',
  'letters of the world': 'ü 画.mp4'.encode(),
}
named = pytest.mark.parametrize('name', [os.fsdecode(name) for name in NAMES.values()], ids=NAMES)


@pytest.fixture(scope='module')
def content(tmp_path_factory):
  return write_video(tmp_path_factory.mktemp('video') / 'a.mp4', NUM_FRAMES).read_bytes()


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def detect(source, checkpoint, output, *flags):
  words = [str(source), '--checkpoint', str(checkpoint), '--output', str(output), *FLAGS, *flags]
  with exit_on_input_error():
    return detect_video.main(words)


def pictures(path):
  with video_source.opened(video_source.find(str(path))) as source:
    return [picture_of(place.picture.rgb()) for place in source.pictures]


@named
def test_a_video_of_any_name_is_read(here, content, name):
  """By both readers, named in full, and relative to where the program runs."""
  Path(name).write_bytes(content)
  for path in (name, f'./{name}', str(here / name)):
    assert pictures(path) == list(range(NUM_FRAMES))
  assert len(list(decode.VideoFile(Path(name)).frames())) == NUM_FRAMES
  assert decode.frames_per_second(name) == 25


@named
def test_results_of_any_name(here, content, checkpoint, name, capsys):
  """The csv and the JSON are UTF-8, and hold the printable name of the video."""
  Path('in').mkdir()
  Path('in', name).write_bytes(content)
  assert detect(f'in/{name}', checkpoint, name) == 0
  capsys.readouterr()
  assert len(pictures(name)) == NUM_FRAMES
  files = [path.read_text('utf-8') for path in result_files.paths(Path(name[:-4]))]
  shown = os.fsencode(name).decode('utf-8', 'backslashreplace')
  assert {row['video'] for row in csv.DictReader(files[0].splitlines())} == {shown}
  assert {json.loads(line)['video'] for line in files[1].splitlines()} == {shown}
  assert sorted(os.listdir(b'.')) == sorted(
    [b'in', *(os.fsencode(name[:-4]) + f'_{kind}'.encode() for kind in result_files.NAMES)]
    + [os.fsencode(name)]
  )


def test_pictures_of_any_name(here, content, checkpoint, capsys):
  name = os.fsdecode(b'caf\xe9:\n1.mp4')
  Path(name).write_bytes(content)
  visualize.main([name, '--checkpoint', str(checkpoint), '--output', 'pictures', '--time', '0.1'])
  assert capsys.readouterr().out.startswith(r'caf\xe9:\x0a1.mp4, keyframe 2')


def test_two_outputs_with_dots(here, content, checkpoint):
  Path('a.mp4').write_bytes(content)
  for number in (1, 2):
    assert detect('a.mp4', checkpoint, f'cam.{number}', '--no-video') == 0
  assert {path.name for path in here.iterdir()} == {'a.mp4'} | {
    f'cam.{number}_{kind}' for number in (1, 2) for kind in result_files.NAMES
  }


class _Files(http.server.SimpleHTTPRequestHandler):
  """Serves files, without a log."""

  def log_message(self, *_):
    pass


def test_an_address_leaves_no_secret_in_results_or_messages(here, content, checkpoint, capsys):
  (here / 'www').mkdir()
  (here / 'www' / 'door.mp4').write_bytes(content)
  server = http.server.ThreadingHTTPServer(
    ('127.0.0.1', 0), functools.partial(_Files, directory=str(here / 'www'))
  )
  threading.Thread(target=server.serve_forever, daemon=True).start()
  where = f'127.0.0.1:{server.server_port}'
  try:
    address = f'http://admin:hunter2@{where}/door.mp4?token=hunter2&x=1'
    assert detect(address, checkpoint, 'seen.mp4') == 0
    for path in result_files.paths(Path('seen')):
      text = path.read_text()
      assert 'door.mp4' in text and 'hunter2' not in text
    with pytest.raises(SystemExit):
      detect(f'http://admin:hunter2@{where}/gone.mp4?token=hunter2', checkpoint, 'b.mp4')
  finally:
    server.shutdown()
    server.server_close()
  with pytest.raises(SystemExit):
    detect('rtsp://admin:hunter2@127.0.0.1:1/x?token=hunter2', checkpoint, 'c.mp4')
  told = capsys.readouterr()
  assert 'hunter2' not in told.out + told.err
  assert f'error: http://***@{where}/gone.mp4: cannot be decoded' in told.err
  assert 'error: rtsp://***@127.0.0.1:1/x: cannot be decoded' in told.err


def test_a_path_that_was_looked_for_is_named_in_full(here):
  with pytest.raises(InputError, match=f'{here}/b/nowhere.mp4: there is no such file'):
    video_source.find('b/nowhere.mp4')
  with pytest.raises(InputError, match=f'{here}/rtsp:x.mp4: there is no such file'):
    video_source.find('rtsp:x.mp4')


def test_a_pipe_with_a_name(here):
  """Like the one that a shell opens for <(command)."""
  os.mkfifo('pipe')
  data = write_video(here / 'a.mkv', NUM_FRAMES).read_bytes()
  writer = threading.Thread(target=lambda: Path('pipe').write_bytes(data))
  writer.start()
  assert pictures('pipe') == list(range(NUM_FRAMES))
  writer.join()
