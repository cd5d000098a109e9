"""Untrusted prepared data: columns, manifests and records that do not match each other."""

import io
import json
import zipfile

import numpy as np
import pytest

from data_prep import inspect_records
from evad_jax.data import tfrecord, tube_index
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.record_writer import serialize
from evad_jax.data.records import RecordReader
from evad_jax.errors import InputError
from tests.data import toy_records
from tests.data.toy_records import make_record


@pytest.fixture
def data(tmp_path):
  toy_records.write_toy(tmp_path / 'data', [make_record(video) for video in range(4)])
  return tmp_path / 'data'


def read_all(directory):
  index = RecordIndex.open(directory, 'train')
  reader = RecordReader(index)
  try:
    return [reader[number] for number in range(len(index))]
  finally:
    reader.close()


def change(path, **changes):
  """Replaces arrays of an npz file; None removes one."""
  with np.load(path) as file:
    columns = dict(file)
  for key, made in changes.items():
    columns[key] = made(columns[key])
  np.savez(path, **{key: column for key, column in columns.items() if column is not None})


COLUMNS = {
  'an example of no record': ('example_record', lambda x: x + 5, 'example_record goes from 5 to'),
  'a length of 2**40': ('record_length', lambda x: x * 0 + 2**40, 'ends beyond its shard'),
  'a length of 2**62': ('record_length', lambda x: x * 0 + 2**62, 'record_length goes from'),
  'a length below 0': ('record_length', lambda x: -x, 'record_length goes from -'),
  'an offset below 0': ('record_offset', lambda x: x - 100, 'record_offset goes from -100'),
  'an offset of 2**62': ('record_offset', lambda x: x + 2**62, 'record_offset goes from'),
  'a shard that is none': ('record_shard', lambda x: x + 1, 'record_shard goes from 1 to 2'),
  'fewer keyframes': ('keyframes', lambda x: x[:-1], 'keyframes differ in length'),
  'keyframes of float': ('keyframes', lambda x: x + 0.5, 'keyframes is of type float64'),
  'keyframes below 0': ('keyframes', lambda x: x - 9, 'keyframes goes from -9'),
  'no keyframes': ('keyframes', lambda x: None, 'keyframes.npy'),
  'sizes of one side': ('record_size', lambda x: x[:, :1], 'sizes are not height and width'),
  'sizes of 0': ('record_size', lambda x: x * 0, 'record_size goes from 0'),
  'a frame of 4,000 megapixels': ('record_size', lambda x: x * 0 + 65535, 'more than 33554432'),
  'numbers as videos': ('record_video', lambda x: np.arange(len(x)), 'record_video is of type int'),
  'text as bytes': ('shard_bytes', lambda x: np.array(['x']), 'shard_bytes is of type'),
  'objects': ('shard_bytes', lambda x: np.array([{}]), 'shard_bytes has a header that is not'),
}  # fmt: skip


@pytest.mark.parametrize(('key', 'made', 'message'), COLUMNS.values(), ids=COLUMNS)
def test_columns(data, key, made, message):
  with np.load(data / 'index-train.npz') as file:
    columns = dict(file)
  columns[key] = made(columns[key])
  columns = {key: column for key, column in columns.items() if column is not None}
  np.savez(data / 'index-train.npz', **columns)
  with pytest.raises(
    InputError, match=f'index-train.npz: the .* is damaged .*{message}.*; prepare'
  ):
    read_all(data)


def test_a_keyframe_that_the_record_lacks_has_no_boxes_of_another(data):
  """Video 0 has keyframes 0, 3 and 11; the index lists 0, 4 and 11."""
  assert [example.keyframe for example in read_all(data)][:3] == [0, 3, 11]
  change(data / 'index-train.npz', keyframes=lambda x: np.where(np.arange(11) == 1, 4, x))
  with pytest.raises(InputError, match='tfrecord-00000-of-00002: the record at byte 0 cannot be us'
                     'ed .the index lists keyframe 4, which it lacks'):  # fmt: skip
    read_all(data)


@pytest.mark.parametrize(
  ('key', 'made', 'message'),
  [
    ('record_size', lambda x: x[:, ::-1], 'it has 24 x 48 pixels of .video_0., and .* says 48'),
    ('record_video', lambda x: x[::-1], 'the index says 24 x 48 of .video_3.|says 48 x 24'),
  ],
)  # fmt: skip
def test_an_index_of_other_records(data, key, made, message):
  change(data / 'index-train.npz', **{key: made})
  with pytest.raises(InputError, match=message):
    read_all(data)


MANIFESTS = {
  'classes 5': ({'classes': 5}, 'classes=5 must be a list'),
  'no classes': ({'classes': []}, 'classes=.. must be a list of 1 to 4999'),
  'a class that is a number': ({'classes': [1]}, 'a list in which 1 is a string'),
  'splits 5': ({'splits': 5}, 'splits=5 must be an object'),
  'scored classes in a list': ({'scored_classes': [[1]]}, r'in which \[1\] is a string'),
  'clip_frames of words': ({'clip_frames': 'x'}, "clip_frames='x' must be a whole number"),
  'frame_stride 10**9': ({'frame_stride': 10**9}, 'frame_stride=1000000000 must be at most'),
  'timestamp_rate 0': ({'timestamp_rate': 0}, 'timestamp_rate=0 must be at least 1'),
  'fewer ids than classes': ({'class_ids': [1]}, 'has 1 class_ids for 3 classes'),
  'a name that leaves': ({'name': '../../x'}, 'must be a name fit for files'),
  'a name of 5': ({'name': 5}, 'name=5 must be a name fit for files'),
  'problems 5': ({'problems': [5]}, 'problems=.5. must be a list in which 5 is an object'),
  'counts of words': ({'boxes_per_keyframe': {'train': {'x': 1}}}, 'is counts by number'),
}


@pytest.mark.parametrize(('changes', 'message'), MANIFESTS.values(), ids=MANIFESTS)
def test_manifests(data, changes, message, capsys):
  manifest = json.loads((data / 'manifest.json').read_text()) | changes
  (data / 'manifest.json').write_text(json.dumps(manifest))
  for read in (read_all, lambda d: inspect_records.main([str(d)])):
    with pytest.raises(InputError, match=f'manifest.json: .*{message}.*repare again'):
      read(data)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (b'[' * 200_000, 'is nested too deep'),
    (b'"name classes clip_frames frame_stride splits"', "is 'name .*, but must be an object"),
    (b'\xff\xfe{}', 'is not'),
    (b'\x80\xff', 'is not UTF-8'),
  ],
)
def test_manifests_that_are_none(data, text, message):
  (data / 'manifest.json').write_bytes(text)
  with pytest.raises(InputError, match=f'manifest.json {message}'):
    read_all(data)


def test_one_class_more_than_the_records_have(data):
  manifest = json.loads((data / 'manifest.json').read_text())
  (data / 'manifest.json').write_text(json.dumps(manifest | {'classes': ['a', 'b', 'c', 'd']}))
  with pytest.raises(InputError, match='cannot be used .it is not what preparation writes'):
    read_all(data)


RECORDS = {
  'frames out of order': {'frame_numbers': np.arange(12)[::-1]},
  'more numbers than frames': {'frame_numbers': np.arange(13)},
  'fewer frames in the video than stored': {'num_frames': 3},
  'a keyframe that is not stored': {'keyframes': np.array([0, 3, 99])},
  'a box of no keyframe': {'box_keyframe': np.array([1, 2, 7])},
  'a box that is none': {'boxes': np.full((3, 4), np.nan, np.float32)},
  'labels of 200': {'labels': np.full((3, 3), 200)},
}


@pytest.mark.parametrize('changes', RECORDS.values(), ids=RECORDS)
def test_records_whose_checksums_are_right(tmp_path, changes):
  """Malicious records have valid checksums."""
  data = tmp_path / 'data'
  toy_records.write_toy(data, [make_record(0)])
  message = serialize(make_record(0)._replace(**changes))
  shard = data / 'toy-train.tfrecord-00000-of-00002'
  shard.write_bytes(tfrecord.header(message) + message + tfrecord.footer(message))
  change(
    data / 'index-train.npz',
    record_length=lambda x: x * 0 + len(message),
    record_crc=lambda x: x * 0 + tfrecord.masked_crc(message),
    shard_bytes=lambda x: x * 0 + np.array([shard.stat().st_size, 0]),
  )
  with pytest.raises(InputError, match='00000-of-00002: the record at byte 0 cannot be used'):
    read_all(data)


def test_arrays_that_are_larger_than_their_file(data):
  """80 MB of zeros in 80 kB, and a header that claims 10**12 numbers."""
  path = data / 'index-train.npz'
  whole = path.read_bytes()
  np.savez_compressed(path, keyframes=np.zeros(10**7, np.int64))
  with pytest.raises(InputError, match='its arrays are larger than the file'):
    read_all(data)
  made = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(made, 'w') as new:
    for name in old.namelist():
      array = old.read(name).replace(b'(11,)', b'(1000000000000,)'.ljust(5))
      new.writestr(name, array)
  path.write_bytes(made.getvalue())
  with pytest.raises(InputError, match='bytes for the shape .1000000000000,'):
    read_all(data)


TUBES = {
  'a length below 0': ({'length': lambda x: x * -1}, 'longer than all frames'),
  'a length of 10**12': ({'length': lambda x: x * 0 + 10**12}, 'longer than all frames'),
  'fewer boxes': ({'boxes': lambda x: x[:-1]}, 'not the sum of the lengths'),
  'a box that is none': ({'boxes': lambda x: x * np.nan}, r'a box is not in \[0, 1\]'),
  'frames that fall': ({'frames': lambda x: x[::-1]}, 'do not increase'),
  'another class': ({'label': lambda x: x + 9}, 'a tube of class 10'),
  'more videos': ({'video': lambda x: np.repeat(x, 2)}, 'differ in length'),
  'text as a truth value': ({'trimmed': lambda x: np.array('x')}, 'trimmed is of type'),
}


@pytest.mark.parametrize(('changes', 'message'), TUBES.values(), ids=TUBES)
def test_tubes(data, changes, message):
  index = RecordIndex.open(data, 'train')
  boxes = np.tile(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32), (2, 1))
  tubes = [tube_index.TrueTube(f'video_{i}', 1, np.array([3, 5]), boxes) for i in range(2)]
  tube_index.write_tubes(data, 'train', tubes, True)
  read = tube_index.read_tubes(index)
  assert read.trimmed and [tube.frames.tolist() for tube in read.tubes] == [[3, 5]] * 2
  change(data / 'tubes-train.npz', **changes)
  with pytest.raises(InputError, match=f'tubes-train.npz: .*{message}'):
    tube_index.read_tubes(index)
