"""Records hold what a player shows, upright and with square pixels, and no lost picture."""

import json
from fractions import Fraction

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from data_prep import custom
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.records import RecordReader
from tests.video import numbered
from tests.video.turned_videos import CORNERS, MATRICES, differ, with_matrix, write_pictures

BOX = [0, 0, 48, 32]  # the left upper quarter, in pixels of a picture of 96 x 64


def prepare(directory, entry, *flags):
  """A data set of the one video `v`; its records and its problems."""
  entry = {'split': 'train'} | entry
  text = json.dumps({'classes': ['run'], 'videos': {'v': entry}})
  (directory / 'a.json').write_text(text)
  flags = ('--clip-frames', '4', '--frame-stride', '1', *flags)
  output = directory / 'out'
  custom.main(['--annotations', str(directory / 'a.json'), '--output', str(output), *flags])
  problems = json.loads((output / 'manifest.json').read_text())['problems']
  told = {problem['kind']: problem['detail'] for problem in problems}
  return RecordReader(RecordIndex.open(output, 'train')), told


def boxes(count, box=BOX, **entry):
  """A person on every frame."""
  rows = [{'frame': number, 'box': box, 'labels': ['run']} for number in range(count)]
  return {'boxes': rows} | entry


def numbers_of(example):
  return [numbered.number_of(simplejpeg.decode_jpeg(frame)) for frame in example.frames]


@pytest.mark.parametrize('fps', [None, 25])
def test_keyframes_that_need_a_lost_picture_are_left_out(tmp_path, fps):
  path = numbered.write(tmp_path / 'v.avi', 30)
  assert numbered.overwrite(path, lambda number, keys: number == 11) == 1  # the next is a key
  entry = boxes(30, box=[0, 0, 0.5, 0.5], normalised=True) | ({'fps': fps} if fps else {})
  reader, told = prepare(tmp_path, entry)
  # The clip of keyframe k is k - 2, ..., k + 1: those of 10 to 13 need picture 11.
  assert reader.index.keyframes.tolist() == [*range(10), *range(14, 30)]
  for example in map(reader.__getitem__, range(len(reader))):
    assert numbers_of(example) == example.frame_numbers.tolist()
    assert example.num_frames == 30
  assert told['lost pictures'].startswith('1 of 30 are damaged or missing, the first is number 11')
  assert told['unreadable frame'].startswith(
    '1 frames, and 4 keyframes whose clips need them (10, 11, 12, 13), left out'
  )
  assert 'picture 11 is damaged' in told['unreadable frame']


@pytest.mark.parametrize('name', ['mirror', 'flip', 'quarter', 'transverse'])
def test_turned_and_mirrored(tmp_path, name):
  entries, turn = MATRICES[name]
  with_matrix(write_pictures(tmp_path / 'v.mp4', [CORNERS] * 4), entries)
  reader, told = prepare(tmp_path, boxes(4))
  expected = turn(CORNERS)
  assert told == {} and (reader[0].height, reader[0].width) == expected.shape[:2]
  assert differ(simplejpeg.decode_jpeg(reader[0].frames[0]), expected) < 12
  height, width = expected.shape[:2]  # without a size in the file, pixels are those that are shown
  np.testing.assert_allclose(reader[0].boxes, [[0, 0, 48 / width, 32 / height]], atol=1e-6)


def test_pixels_that_are_not_square(tmp_path):
  write_pictures(tmp_path / 'v.mp4', [CORNERS] * 4, pixel=Fraction(2))
  reader, told = prepare(tmp_path, boxes(4))
  assert told == {} and (reader[0].height, reader[0].width) == (64, 192)
  np.testing.assert_allclose(reader[0].boxes, [[0, 0, 0.5, 0.5]], atol=1e-6)


def test_folders_of_pictures_that_lie_on_their_side(tmp_path):
  tags = Image.Exif()
  tags[0x0112] = 6
  (tmp_path / 'v').mkdir()
  lying = np.ascontiguousarray(np.rot90(CORNERS))
  for number in range(1, 5):
    Image.fromarray(lying).save(tmp_path / 'v' / f'{number:05d}.jpg', exif=tags, quality=95)
  reader, told = prepare(tmp_path, boxes(4))
  assert told == {} and (reader[0].height, reader[0].width) == (64, 96)
  assert differ(simplejpeg.decode_jpeg(reader[0].frames[0]), CORNERS) < 8
  np.testing.assert_allclose(reader[0].boxes, [[0, 0, 0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize('flags', [(), ('--short-side', '48')])
@pytest.mark.parametrize('kind', ['overwritten', 'middle missing', 'zeros'])
def test_a_damaged_jpeg_is_found(tmp_path, flags, kind):
  (tmp_path / 'v').mkdir()
  for number in range(10):
    data = simplejpeg.encode_jpeg(numbered.picture(number), 95, 'RGB', '420')
    half = len(data) // 2
    if number == 4:
      noise = np.random.default_rng(0).integers(0, 255, 200, np.uint8).tobytes()
      data = {
        'overwritten': data[:half] + noise + data[half + 200 :],
        'middle missing': data[:half] + data[-2:],
        'zeros': data[:half] + bytes(len(data) - half - 2) + data[-2:],
      }[kind]
    (tmp_path / 'v' / f'{number + 1:05d}.jpg').write_bytes(data)
  entry = boxes(10, box=[0, 0, 0.5, 0.5], normalised=True)
  reader, told = prepare(tmp_path, entry, *flags)
  assert reader.index.keyframes.tolist() == [0, 1, 2, 7, 8, 9]
  assert (
    list(told) == ['unreadable frame']
    and '00005.jpg: is not a complete' in told['unreadable frame']
  )
