"""What messages show of names and addresses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evad_jax import printable
from evad_jax.errors import LONGEST_SENTENCE, InputError, exit_on_input_error

ADDRESSES = [
  # address, what is shown
  ('rtsp://10.0.0.1:554/door', 'rtsp://10.0.0.1:554/door'),
  ('rtsp://admin:hunter2@10.0.0.1:554/door', 'rtsp://***@10.0.0.1:554/door'),
  ('rtsp://hunter2@cam/door', 'rtsp://***@cam/door'),
  ('RTSPS://admin:hunter2@cam', 'RTSPS://***@cam'),
  ('rtsp://admin:hun/ter2@cam/door', 'rtsp://***@cam/door'),  # letters that a password may have,
  ('rtsp://admin:hun?ter2@cam/door', 'rtsp://***@cam/door'),  # and that end a host
  ('rtsp://admin:hun#ter2@cam/door', 'rtsp://***@cam/door'),
  ('rtsp://admin:hun@ter2@cam/door', 'rtsp://***@cam/door'),
  ('rtsp://admin:hun ter2@cam/door', 'rtsp://***@cam/door'),
  ("rtsp://admin:hun'ter2@cam/door", 'rtsp://***@cam/door'),
  ('http://[::1]:80/a.mp4?token=hunter2', 'http://[::1]:80/a.mp4'),
  ('https://h/a.m3u8?a=1&sig=hunter2#hunter2', 'https://h/a.m3u8'),
  ('https://h/a.mp4;key=hunter2', 'https://h/a.mp4'),
  ('srt://h:9000?passphrase=hunter2&mode=caller', 'srt://h:9000'),
  ('https://h/st=hunter2,e=12/a.m3u8', 'https://h/***/a.m3u8'),
  ('rtmp://a.rtmp.example/live2/abcd-1234-hunter2-5678', 'rtmp://a.rtmp.example/live2/***'),
  ('https://h/eyJhbGciOiJIUzI1NiJ9.hunter2.x_9/live', 'https://h/***/live'),
  ('https://h/v_Basketball_g08_c01_and_more.avi', 'https://h/v_Basketball_g08_c01_and_more.avi'),
]


@pytest.mark.parametrize('text, shown', ADDRESSES)
def test_addresses(text, shown):
  assert printable.address(text) == shown
  assert printable.address(shown) == shown


@pytest.mark.parametrize('text, shown', [pair for pair in ADDRESSES if ' ' not in pair[0]])
def test_addresses_inside_of_sentences(text, shown):
  for sentence in ('{}', 'Connection refused: {!r}; give another', '({}) there', 'x={} y={}'):
    got = str(InputError(sentence.format(text, text)))
    assert 'hunter2' not in got
    if "'" not in text:
      assert shown in got


def test_spaces_in_a_quoted_password():
  text = "[Errno 111] Connection refused: 'rtsp://admin:hun ter2@cam/door' (twice)"
  assert str(InputError(text)) == "[Errno 111] Connection refused: 'rtsp://***@cam/door' (twice)"


@pytest.mark.parametrize(
  'text',
  [
    'mount the bucket (gs:// by gcsfuse, s3:// by mountpoint-s3) and give the path',
    'an address such as rtsp://..., or webcam:0.',
    '/data/a:b/c.mp4: there is no such file; give another',
    'a.csv, line 4: x1 is 3; write a number',
    'gs://bucket/run, an address, not a folder',
  ],
)
def test_other_sentences_stay_as_they_are(text):
  assert str(InputError(text)) == text


@pytest.mark.parametrize(
  'text', ['aa://' + ':' * 300_000, 'a.' * 300_000, "'aa://x" * 50_000, '"aa://' + 'x' * 300_000]
)
def test_long_texts_take_no_longer(text, within):
  with within(5):  # a quadratic search takes minutes
    sentence = str(InputError(text))
  assert len(sentence) < LONGEST_SENTENCE + 10


@pytest.mark.parametrize(
  'name, shown',
  [
    (b'caf\xe9.mp4', r'caf\xe9.mp4'),
    (b'\xff\xfe.mp4', r'\xff\xfe.mp4'),
    ('café 画 😀.mp4'.encode(), 'café 画 😀.mp4'),
    (b'two\nlines\x1b[2J.mp4', r'two\x0alines\x1b[2J.mp4'),
    (b'a:b,"c".mp4', 'a:b,"c".mp4'),
  ],
)
def test_names_of_files(name, shown):
  assert printable.name_of(os.fsdecode(name)) == shown
  assert shown in str(InputError(f'{printable.name_of(os.fsdecode(name))}: broken'))


def test_half_a_letter():
  assert printable.name_of('a\ud83d') == r'a\ud83d'


def test_a_sentence_can_always_be_printed(capfdbinary):
  with pytest.raises(SystemExit) as caught:
    with exit_on_input_error():
      raise InputError(f'{os.fsdecode(bytes([99, 233]))}: broken')
  assert caught.value.code == 2
  assert capfdbinary.readouterr().err == b'error: c\\xe9: broken\n'


def test_a_terminal_without_these_letters():
  """All output appears, escaped, including what is not an error message."""
  code = """
from evad_jax.errors import InputError, exit_on_input_error
with exit_on_input_error():
  print('gehüpft 走路')
  raise InputError('größer')
"""
  environment = os.environ | {'PYTHONIOENCODING': 'ascii'}
  root = Path(__file__).resolve().parents[1]
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, env=environment, capture_output=True
  )
  assert done.returncode == 2
  assert done.stdout == b'geh\\xfcpft \\u8d70\\u8def\n'
  assert done.stderr == b'error: gr\\xf6\\xdfer\n'
