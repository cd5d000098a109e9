"""Records are read back byte for byte; damaged ones are refused by name."""

import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evad_jax.data import data_set_directory, record_writer, records, tfrecord
from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError
from tests.damage import flip_bit

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ['run', 'jump', 'sit']


def make_record(number: int) -> records.Record:
  """40 frames, two keyframes, three boxes: one and two."""
  numbers = np.arange(10, 50)
  return records.Record(
    video=f'Running/v_{number}é',
    fps=29.97,
    num_frames=60,
    height=240,
    width=320 + number,
    frames=[bytes([number, int(n)]) * (3 + number) for n in numbers],
    frame_numbers=numbers,
    keyframes=np.array([20, 30 + number]),
    boxes=np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 1, 1], [0, 0, 0.25, 0.1]], np.float32),
    box_keyframe=np.array([0, 1, 1]),
    labels=np.array([[0, 0, 1], [1, 1, 0], [0, 1, 0]], np.uint8),
  )


def write(directory: Path, count: int = 5) -> None:
  made = map(make_record, range(count))
  record_writer.write_split(directory, 'tiny', 'train', len(CLASSES), 2, made)
  record_writer.write_dataset_metadata(
    directory, 'tiny', CLASSES, {'colour': 'blue'}, clip_frames=4, frame_stride=2
  )


@pytest.fixture
def prepared(tmp_path) -> Path:
  write(tmp_path / 'tiny')
  return tmp_path / 'tiny'


def assert_same(got, expected) -> None:
  for field, value in expected._asdict().items():
    mine = getattr(got, field)
    if isinstance(value, np.ndarray):
      np.testing.assert_array_equal(mine, value)
      assert mine.dtype == value.dtype
    else:
      assert mine == (np.float32(value) if isinstance(value, float) else value)


def test_the_checksum_is_crc32c_masked():
  """The check value of CRC-32C, 0xE3069283, is 0x2507C60D after a rotation right by 15 bits."""
  assert tfrecord.masked_crc(b'123456789') == ((0x2507C60D) + 0xA282EAD8) & 0xFFFFFFFF


def test_round_trip_of_records_and_examples(prepared):
  index = RecordIndex.open(prepared, 'train')
  reader = pickle.loads(pickle.dumps(records.RecordReader(index)))
  assert index.classes == CLASSES and (index.clip_frames, index.frame_stride) == (4, 2)
  assert index.keyframes.tolist() == [20, 30, 20, 31, 20, 32, 20, 33, 20, 34]
  assert index.widths.tolist() == [320, 320, 321, 321, 322, 322, 323, 323, 324, 324]
  assert set(index.heights) == {240} and index.videos[4] == 'Running/v_2é'
  for number in range(5):
    assert_same(reader.read_record(number), make_record(number))
  example = reader[5]  # the second keyframe of record 2, at 32; its clip spans 28, 30, 32, 34
  record = make_record(2)
  assert (example.video, example.keyframe, example.width) == ('Running/v_2é', 32, 322)
  assert example.frame_numbers.tolist() == [28, 29, 30, 31, 32, 33, 34]
  assert example.frames == record.frames[18:25]
  np.testing.assert_array_equal(example.boxes, record.boxes[1:])
  np.testing.assert_array_equal(example.labels, record.labels[1:])
  with pytest.raises(IndexError):
    reader[10]


def test_the_container_parsed_by_hand(prepared):
  """Records 0, 2 and 4 are in the first shard, one after the other."""
  data = (prepared / 'tiny-train.tfrecord-00000-of-00002').read_bytes()
  offset, found = 0, []
  while offset < len(data):
    (length,) = struct.unpack_from('<Q', data, offset)
    (length_crc,) = struct.unpack_from('<I', data, offset + 8)
    body = data[offset + 12 : offset + 12 + length]
    (body_crc,) = struct.unpack_from('<I', data, offset + 12 + length)
    assert length_crc == tfrecord.masked_crc(data[offset : offset + 8])
    assert body_crc == tfrecord.masked_crc(body)
    found.append(body)
    offset += 16 + length
  assert found == [record_writer.serialize(make_record(number)) for number in (0, 2, 4)]


def test_tfds_reads_and_writes_the_same_messages():
  """The FeaturesDict of the metadata is the oracle for our own serialisation."""
  from tensorflow_datasets.proto import tf_example_pb2

  features, record = record_writer.features_dict(3), make_record(1)
  data = record_writer.serialize(record)
  theirs = features.deserialize_example_np(data)
  assert theirs['video'].decode() == record.video and list(theirs['frames']) == record.frames
  for field in ('frame_numbers', 'keyframes', 'boxes', 'box_keyframe', 'labels'):
    np.testing.assert_array_equal(theirs[field], getattr(record, field))
  written = tf_example_pb2.Example.FromString(features.serialize_example(record._asdict()))
  assert written.SerializeToString(deterministic=True) == data


def test_two_processes_write_the_same_bytes(tmp_path, prepared):
  code = (
    'import sys; from pathlib import Path; from tests.data.test_records import write; '
    'write(Path(sys.argv[1]))'
  )
  other = tmp_path / 'other'
  subprocess.run([sys.executable, '-c', code, str(other)], cwd=ROOT, check=True)
  names = sorted(path.name for path in prepared.iterdir())
  assert names == [
    'dataset_info.json',
    'features.json',
    'index-train.npz',
    'manifest.json',
    'tiny-train.tfrecord-00000-of-00002',
    'tiny-train.tfrecord-00001-of-00002',
  ]
  for name in names:
    assert (prepared / name).read_bytes() == (other / name).read_bytes(), name


def test_the_manifest_and_the_tfds_metadata_count(prepared):
  manifest = json.loads((prepared / 'manifest.json').read_text())
  size = sum(path.stat().st_size for path in prepared.glob('*.tfrecord-*'))
  assert manifest['splits'] == {'train': {'records': 5, 'examples': 10, 'videos': 5, 'bytes': size}}
  assert manifest['colour'] == 'blue' and manifest['problems'] == []
  info = json.loads((prepared / 'dataset_info.json').read_text())
  assert info['splits'][0]['shardLengths'] == ['3', '2']


@pytest.mark.parametrize(
  ('offset', 'message'),
  [
    (3, 'byte 0 is damaged .the checksum of its length'),
    (9, 'byte 0 is damaged .the checksum of its length'),
    (100, 'byte 0 is damaged .the checksum of its data'),
  ],
)
def test_a_flipped_bit_is_found(prepared, offset, message):
  shard = prepared / 'tiny-train.tfrecord-00001-of-00002'
  flip_bit(shard, offset)
  reader = records.RecordReader(RecordIndex.open(prepared, 'train'))
  assert reader[0].keyframe == 20  # in the other shard
  with pytest.raises(InputError, match=f'00001-of-00002: the record at {message}.*again'):
    reader[2]


def test_shards_of_another_preparation_are_found(prepared):
  """Swapping two records of one length leaves every checksum of the container right."""
  shard = prepared / 'tiny-train.tfrecord-00001-of-00002'
  reader = records.RecordReader(RecordIndex.open(prepared, 'train'))
  length = int(reader.index.record_length[1])
  other = record_writer.serialize(make_record(1)).replace(b'Running', b'Walking')
  assert len(other) == length
  rest = shard.read_bytes()[16 + length :]
  shard.write_bytes(tfrecord.header(other) + other + tfrecord.footer(other) + rest)
  with pytest.raises(InputError, match='not the record that the index describes'):
    reader[2]


def test_a_truncated_shard_is_found_at_opening_and_at_reading(prepared):
  shard = prepared / 'tiny-train.tfrecord-00000-of-00002'
  index = RecordIndex.open(prepared, 'train')
  shard.write_bytes(shard.read_bytes()[:-1])
  with pytest.raises(InputError, match='00000-of-00002: shard has .* bytes where the index says'):
    RecordIndex.open(prepared, 'train')
  with pytest.raises(InputError, match='the file ends inside it'):
    records.RecordReader(index)[8]


def test_a_missing_shard_is_found(prepared):
  index = RecordIndex.open(prepared, 'train')
  (prepared / 'tiny-train.tfrecord-00001-of-00002').unlink()
  with pytest.raises(InputError, match='00001-of-00002: shard is missing.*`prepare it`'):
    RecordIndex.open(prepared, 'train', 'prepare it')
  with pytest.raises(InputError, match='00001-of-00002: cannot be opened'):
    records.RecordReader(index)[2]


def test_what_is_not_prepared_names_the_command(prepared, tmp_path):
  command = 'python -m data_prep.tiny'
  with pytest.raises(InputError, match=f'no such directory.*`{command}`'):
    RecordIndex.open(tmp_path / 'nowhere', 'train', command)
  with pytest.raises(InputError, match=f"split 'val' .prepared: train.*`{command}`"):
    RecordIndex.open(prepared, 'val', command)
  (prepared / 'manifest.json').unlink()  # as if the preparation had been interrupted
  with pytest.raises(InputError, match=f'did not finish.*`{command}`'):
    RecordIndex.open(prepared, 'train', command)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 not a zip', b'[1, 2]'])
@pytest.mark.parametrize('name', ['index-train.npz', 'manifest.json'])
def test_damaged_sidecars_are_found(prepared, name, content):
  (prepared / name).write_bytes(content)
  with pytest.raises(InputError, match=f'(?i){name}:? .*(again|prepare) with'):
    RecordIndex.open(prepared, 'train')


def test_an_exception_while_writing_leaves_nothing(tmp_path):
  def failing():
    yield make_record(0)
    raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    record_writer.write_split(tmp_path, 'tiny', 'train', 3, 2, failing())
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('field', 'value', 'rule'),
  [
    ('keyframes', np.array([20, 55]), 'keyframes increase, all stored'),
    ('frame_numbers', np.arange(40)[::-1], 'frame_numbers increase'),
    ('num_frames', 49, 'frame_numbers lie in'),
    ('boxes', np.full((3, 4), 0.5, np.float32), 'with an area'),
    ('box_keyframe', np.array([0, 1, 2]), 'box_keyframe'),
    ('labels', np.ones((3, 4), np.uint8), 'labels are'),
  ],
)
def test_a_record_that_contradicts_itself_is_not_written(field, value, rule):
  record_writer.check_record(make_record(0), 3)
  with pytest.raises(ValueError, match=rule):
    record_writer.check_record(make_record(0)._replace(**{field: value}), 3)


def test_claiming_a_directory_deletes_only_our_files(prepared):
  plan = {'settings': {'size': 5}}
  before = {path.name for path in prepared.iterdir()}
  # Beside a complete data set, which stays, the new one gets its own directory.
  assert data_set_directory.claim(prepared, 'tiny', plan, False) == prepared / '.replacement'
  assert before == {path.name for path in prepared.iterdir()} - {'.replacement'}
  (prepared / 'manifest.json').unlink()
  with pytest.raises(InputError, match='is not empty; pass --overwrite'):
    data_set_directory.claim(prepared, 'tiny', plan, overwrite=False)
  (prepared / 'notes.txt').write_text('mine')
  assert data_set_directory.claim(prepared, 'tiny', plan, overwrite=True) == prepared
  left = {'notes.txt', '.preparation.json', '.replacement'}
  assert {path.name for path in prepared.iterdir()} == left
  with pytest.raises(InputError, match='is a file'):
    with data_set_directory.alone_in(prepared / 'notes.txt', 'tiny'):
      pass


def write_in_shards(directory: Path, counts: list[int]) -> None:
  """Like `write`, with the given number of records in each shard."""
  directory.mkdir()
  names = [f'tiny-train.tfrecord-{i:05d}-of-{len(counts):05d}' for i in range(len(counts))]
  numbers = iter(range(sum(counts)))
  for name, count in zip(names, counts, strict=True):
    with record_writer.ShardWriter([directory / name], len(CLASSES)) as writer:
      for _ in range(count):
        writer.write(make_record(next(numbers)))
    record_writer.write_part(directory / name, writer.columns(), {'count': count})
  parts = [record_writer.read_part(directory / name) for name in names]
  assert [about for _, about in parts] == [{'count': count} for count in counts]
  record_writer.join_shards(directory, 'train', [columns for columns, _ in parts])
  data_set_directory.tidy(directory)


def test_shards_that_were_written_one_by_one_are_read_as_one_split(tmp_path):
  """One shard is empty, as when none of its videos can be decoded."""
  write_in_shards(tmp_path / 'tiny', [2, 0, 3])
  record_writer.write_dataset_metadata(
    tmp_path / 'tiny', 'tiny', CLASSES, clip_frames=4, frame_stride=2
  )
  index = RecordIndex.open(tmp_path / 'tiny', 'train')
  assert index.record_shard.tolist() == [0, 0, 2, 2, 2] and index.shard_bytes[1] == 0
  assert index.example_record.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
  reader = records.RecordReader(index)
  for number in range(5):
    assert_same(reader.read_record(number), make_record(number))
  info = json.loads((tmp_path / 'tiny' / 'dataset_info.json').read_text())
  assert info['splits'][0]['shardLengths'] == ['2', '0', '3']


def test_a_shard_counts_only_when_it_is_whole(tmp_path):
  path = tmp_path / 'shard'
  assert record_writer.read_part(path) is None
  with pytest.raises(ZeroDivisionError):
    with record_writer.ShardWriter([path], 3) as writer:
      writer.write(make_record(0))
      raise ZeroDivisionError
  assert list(tmp_path.iterdir()) == []  # not finished
  with record_writer.ShardWriter([path], 3) as writer:
    writer.write(make_record(0))
  assert record_writer.read_part(path) is None  # nor is one whose index is not there
  record_writer.write_part(path, writer.columns(), {})
  assert record_writer.read_part(path) is not None
  part = record_writer.part_path(path)
  for damaged, size in ((path, 10), (part, 100)):
    data = damaged.read_bytes()
    damaged.write_bytes(data[:size])
    assert record_writer.read_part(path) is None
    damaged.write_bytes(data)
  path.unlink()
  assert record_writer.read_part(path) is None


def test_timestamps_and_scored_classes(prepared):
  """Frame numbers and all classes, unless the manifest has its own, as for AVA."""
  index = RecordIndex.open(prepared, 'train')
  assert index.timestamps.tolist() == index.keyframes.tolist()
  assert index.timestamps.dtype == np.int64 and index.scored_classes == CLASSES
  path = prepared / 'manifest.json'
  own = {'timestamp_origin': 900, 'timestamp_rate': 30, 'scored_classes': ['sit', 'run']}
  path.write_text(json.dumps(json.loads(path.read_text()) | own))
  index = RecordIndex.open(prepared, 'train')
  assert index.keyframes.tolist() == [20, 30, 20, 31, 20, 32, 20, 33, 20, 34]
  assert index.timestamps.tolist() == [900, 901, 900, 901, 900, 901, 900, 901, 900, 901]
  assert index.scored_classes == ['sit', 'run']
  path.write_text(json.dumps(json.loads(path.read_text()) | {'scored_classes': ['fly']}))
  with pytest.raises(InputError, match="manifest.json: scores 'fly', which is not one of its"):
    RecordIndex.open(prepared, 'train')
