"""A prepared data set of 11 keyframes in four short videos, made to be checked by eye.

The colour of every stored frame encodes its video (green), its number (red), and left and right
(blue), so that a batch can be checked against the annotations alone.
"""

import numpy as np
import simplejpeg

from evad_jax.data.pipeline import ClipSettings
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.record_writer import write_dataset_metadata, write_split
from evad_jax.data.records import Record

NUM_FRAMES = 12
KEYFRAMES = ([0, 3, 11], [5], [2, 4, 6, 8], [1, 7, 9])  # of the four videos: 11 examples
SIZES = ((24, 48), (24, 48), (24, 48), (48, 24))  # the last video is upright
NUM_EXAMPLES = 11
CLASSES = ['sit', 'stand', 'wave']
SETTINGS = ClipSettings(
  clip_frames=4, frame_stride=2, canvases=((32, 48),), short_side=None, max_boxes=3
)


def encoded_frame(video, number, height, width):
  frame = np.zeros((height, width, 3), np.uint8)
  frame[..., 0] = 20 * number
  frame[..., 1] = 50 * video
  frame[:, width // 2 :, 2] = 255
  return simplejpeg.encode_jpeg(frame, 98, 'RGB', '444')


def make_record(video, frames=range(NUM_FRAMES)):
  height, width = SIZES[video]
  keyframes = np.array(KEYFRAMES[video])
  owner = np.repeat(np.arange(len(keyframes)), np.arange(len(keyframes)) % 3)  # 0, 1, 2, 0 boxes
  boxes = np.tile(np.array([[0.25, 0.25, 0.5, 0.75]], np.float32), (len(owner), 1))
  labels = np.eye(3, dtype=np.uint8)[np.arange(len(owner)) % 3]
  jpegs = [encoded_frame(video, number, height, width) for number in frames]
  return Record(
    f'video_{video}',
    25.0,
    NUM_FRAMES,
    height,
    width,
    jpegs,
    np.array(frames),
    keyframes,
    boxes,
    owner,
    labels,
  )


def write_toy(directory, records, split='train'):
  write_split(directory, 'toy', split, len(CLASSES), 2, records)
  write_dataset_metadata(directory, 'toy', CLASSES, clip_frames=4, frame_stride=2)
  return RecordIndex.open(directory, split)
