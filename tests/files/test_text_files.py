"""External text: one function reads what editors and spreadsheets save."""

import codecs
import json

import pytest

from evad_jax.errors import InputError
from evad_jax.files import text_files
from evad_jax.formats import ava_files, class_lists, video_lists

TEXT = 'Biking/v_Bîking_g01\nSurfing/v_Surfing_g02\n'  # î: two bytes in UTF-8, one in Latin-1
ENCODINGS = {
  'UTF-8': TEXT.encode(),
  'with a mark': codecs.BOM_UTF8 + TEXT.encode(),
  'UTF-16, little end first': codecs.BOM_UTF16_LE + TEXT.encode('utf-16-le'),
  'UTF-16, big end first': codecs.BOM_UTF16_BE + TEXT.encode('utf-16-be'),
  'UTF-16 without a mark': TEXT.encode('utf-16-le'),
  'UTF-32': codecs.BOM_UTF32_LE + TEXT.encode('utf-32-le'),
  'lines as in DOS': codecs.BOM_UTF8 + TEXT.replace('\n', '\r\n').encode(),
  'lines as on old Macs': TEXT.replace('\n', '\r').encode(),
  'two files joined': b''.join(codecs.BOM_UTF8 + line.encode() + b'\n' for line in TEXT.split()),
}
encodings = pytest.mark.parametrize('data', ENCODINGS.values(), ids=ENCODINGS)


@encodings
def test_lists_of_videos(tmp_path, data):
  (tmp_path / 'train.txt').write_bytes(data)
  known = ['Surfing/v_Surfing_g02', 'Biking/v_Bîking_g01', 'other']
  assert video_lists.read(tmp_path / 'train.txt', known).known == [known[1], known[0]]


@encodings
def test_lists_of_classes(tmp_path, data):
  (tmp_path / 'labels.txt').write_bytes(data)
  assert class_lists.read(tmp_path / 'labels.txt') == TEXT.split()


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32', 'utf-16-be'])
def test_label_maps_csv_and_json(tmp_path, encoding):
  (tmp_path / 'a.pbtxt').write_bytes('item { name: "stehen" id: 12 }'.encode(encoding))
  assert ava_files.read_label_map(tmp_path / 'a.pbtxt') == {12: 'stehen'}
  (tmp_path / 'a.csv').write_bytes('vidéo,0902,0.1,0.2,0.3,0.4,12,0\r\n'.encode(encoding))
  assert ava_files.read_truth(tmp_path / 'a.csv').video.tolist() == ['vidéo']
  content = {'vidéo': [1, 2.5, None, {'a': '\U0001f600'}]}
  for text in (json.dumps(content), json.dumps(content, ensure_ascii=False)):
    (tmp_path / 'a.json').write_bytes(text.encode(encoding))
    assert text_files.read_json(tmp_path / 'a.json', 'x') == content


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    ('a\nb\ncafé'.encode('latin-1'), r'is not UTF-8 text \(line 3, byte 8: .*save it as UTF-8'),
    (codecs.BOM_UTF16_LE + b'a\0b', 'is not UTF-8 text'),  # half a letter is missing
    (bytes(range(256)), 'is not UTF-8 text'),
    (b'abc\ndef\0\0\0', 'is not UTF-8 text: it has zero bytes; give a list'),
  ],
)
def test_bytes_that_are_no_text(tmp_path, data, message):
  (tmp_path / 'list.txt').write_bytes(data)
  with pytest.raises(InputError, match=f'list.txt {message}'):
    text_files.read_text(tmp_path / 'list.txt', 'a list')


def test_files_that_cannot_be_read(tmp_path):
  for name, why in (('', 'Is a directory'), ('nowhere.txt', 'No such file')):
    with pytest.raises(InputError, match=rf'{name or tmp_path.name} cannot be read \({why}'):
      text_files.read_text(tmp_path / name, 'a list')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"a": 1', 'is not JSON'),
    ('{"a": {"b": 1, "b": 2}}', "'b' occurs twice"),
    ('[' * 200_000, 'is nested too deep|is not JSON'),
    ('{"a": ["\\ud83d"]}', r"a lone surrogate in a text \('\\ud83d'\)"),
    ('{"\\uDE00\\uD83D": 1}', 'a lone surrogate'),
  ],
)
def test_json_that_cannot_be_used(tmp_path, text, message):
  (tmp_path / 'a.json').write_text(text)
  with pytest.raises(InputError, match=f'a.json .*({message})'):
    text_files.read_json(tmp_path / 'a.json', 'x')
