"""Checks by hand that TensorFlow and TFDS read a prepared data set as our reader does.

Not a test that pytest collects: the project itself needs no TensorFlow, so this runs in a scratch
environment,

  python -m venv scratch && scratch/bin/pip install tensorflow tensorflow-datasets google-crc32c
  scratch/bin/python -m tests.read_with_tensorflow DIRECTORY

It opens the directory as a TFDS data set and the shards with tf.data, counts the records of every
split in both, and compares every field of every record with our reader. It prints
one line a split, and exits with status 1 at the first difference.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from evad_jax.data.record_index import MANIFEST, RecordIndex
from evad_jax.data.records import RecordReader


def parse_with_tensorflow(data: tf.Tensor, num_classes: int) -> dict[str, tf.Tensor]:
  """One serialised record -> tensors, with tf.io alone."""

  def many(shape, dtype):
    return tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True)

  spec = {
    'video': tf.io.FixedLenFeature((), tf.string),
    'fps': tf.io.FixedLenFeature((), tf.float32),
    'num_frames': tf.io.FixedLenFeature((), tf.int64),
    'height': tf.io.FixedLenFeature((), tf.int64),
    'width': tf.io.FixedLenFeature((), tf.int64),
    'frames': many((), tf.string),
    'frame_numbers': many((), tf.int64),
    'keyframes': many((), tf.int64),
    'boxes': many((4,), tf.float32),
    'box_keyframe': many((), tf.int64),
    'labels': many((num_classes,), tf.int64),
  }
  return tf.io.parse_single_example(data, spec)


def by_content(rows) -> dict[tuple, dict[str, np.ndarray]]:
  """Records by video and first keyframe, because TensorFlow reads shard after shard."""
  return {(row['video'].decode(), int(row['keyframes'][0])): row for row in rows}


def compare(split: str, reader: RecordReader, other: dict[tuple, dict], name: str) -> None:
  """Exits if the records of another reader are not ours."""
  count = len(reader.index.record_shard)
  if len(other) != count:
    sys.exit(f'{split}: {name} reads {len(other)} records, we wrote {count}')
  for number in range(count):
    record = reader.read_record(number)
    theirs = other[record.video, int(record.keyframes[0])]
    for field, ours in record._asdict().items():
      expected = ours.encode() if field == 'video' else ours
      same = np.array_equal(np.asarray(expected, object), np.asarray(theirs[field], object))
      if not same:
        sys.exit(f'{split}: record {number} ({record.video}): {name} has another {field!r}')


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('directory', type=Path)
  directory = parser.parse_args().directory
  manifest = json.loads((directory / MANIFEST).read_text(encoding='utf-8'))
  builder = tfds.builder_from_directory(str(directory))
  for split in manifest['splits']:
    index = RecordIndex.open(directory, split)
    reader = RecordReader(index)
    from_tfds = by_content(tfds.as_numpy(builder.as_dataset(split=split)))
    compare(split, reader, from_tfds, 'TFDS')
    shards = [str(index.shard_path(shard)) for shard in range(len(index.shard_bytes))]
    classes = len(index.classes)
    dataset = tf.data.TFRecordDataset(shards).map(lambda d, a=classes: parse_with_tensorflow(d, a))
    compare(split, reader, by_content(dataset.as_numpy_iterator()), 'tf.data')
    stated = builder.info.splits[split].num_examples
    if stated != len(from_tfds):
      sys.exit(f'{split}: dataset_info.json says {stated} records')
    boxes = sum(len(row['boxes']) for row in from_tfds.values())
    print(f'{split}: {stated} records, {len(index)} keyframes, {boxes} boxes: all three alike')


if __name__ == '__main__':
  main()
