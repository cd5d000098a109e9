"""Writes clips of moving people as a prepared data set, so that training needs no download.

One record is one clip with one keyframe in its middle. A clip's randomness depends only on the
seed, the split and the clip's number, so the files are identical for any number of workers.
"""

import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from tqdm import tqdm

from evad_jax.data import data_set_directory, record_writer
from evad_jax.data.record_index import MANIFEST
from evad_jax.data.records import Record
from evad_jax.errors import InputError
from evad_jax.synthetic.clips import Settings, make_clip
from evad_jax.synthetic.stick_figures import ACTIONS

NAME = 'synthetic'
SPLITS = ('train', 'test')  # the index is part of a clip's seed
SHARDS = {'train': 4, 'test': 1}
FLIP_KEEPS_LABELS = True  # no class distinguishes left from right: training may mirror clips
JPEG_QUALITY = 95
FPS = 8.0


def make_record(number: int, split: str, settings: Settings) -> Record:
  """Makes clip `number` of a split, encoded."""
  rng = np.random.default_rng((settings.seed, SPLITS.index(split), number))
  clip = make_clip(rng, settings)
  num_frames = settings.clip_frames * settings.frame_stride
  jpegs = [
    simplejpeg.encode_jpeg(np.ascontiguousarray(f), JPEG_QUALITY, colorsubsampling='444')
    for f in clip.frames
  ]
  return Record(
    video=f'{split}_{number:05d}',
    fps=FPS * settings.frame_stride,
    num_frames=num_frames,
    height=settings.height,
    width=settings.width,
    frames=jpegs,
    frame_numbers=settings.frame_stride * np.arange(settings.clip_frames),
    keyframes=np.array([num_frames // 2]),
    boxes=clip.boxes,
    box_keyframe=np.zeros(len(clip.boxes), np.int64),
    labels=clip.labels,
  )


def generate(directory: str | Path, settings: Settings, *, overwrite: bool = False) -> None:
  """Writes both splits and the metadata; InputError if the directory already holds a data set.

  The manifest is written last: a directory without one is incomplete and is written again.
  """
  directory = Path(directory)
  plan = {'settings': {k: v for k, v in dataclasses.asdict(settings).items() if k != 'workers'}}
  with data_set_directory.alone_in(directory, NAME):
    if (directory / MANIFEST).exists() and not overwrite:
      raise InputError(
        f'{directory} already holds a data set: choose another --output or add --overwrite.'
      )
    place = data_set_directory.claim(directory, NAME, plan, overwrite)
    counts = f'{settings.train} + {settings.test}'
    print(f'Making {counts} synthetic clips in {directory}', flush=True)
    _write(place, settings, plan)
    data_set_directory.finish(directory, NAME)


def _write(place: Path, settings: Settings, plan: dict) -> None:
  counts = {'train': settings.train, 'test': settings.test}
  label_counts = {}
  with tqdm(total=sum(counts.values()), unit='clip', desc=NAME) as bar:

    def counted(split: str) -> Iterator[Record]:
      total = np.zeros(len(ACTIONS), np.int64)
      for record in _make_records(split, counts[split], settings):
        yield record
        total += record.labels.sum(0, dtype=np.int64)
        bar.update()
      label_counts[split] = dict(zip(ACTIONS, total.tolist(), strict=True))

    for split in counts:
      record_writer.write_split(place, NAME, split, len(ACTIONS), SHARDS[split], counted(split))
  record_writer.write_dataset_metadata(
    place,
    NAME,
    list(ACTIONS),
    {'flip_keeps_labels': FLIP_KEEPS_LABELS, 'label_counts': label_counts} | plan,
    clip_frames=settings.clip_frames,
    frame_stride=settings.frame_stride,
  )


def _make_records(split: str, count: int, settings: Settings) -> Iterator[Record]:
  """Yields the split's records in order, made by `settings.workers` processes."""
  make = functools.partial(make_record, split=split, settings=settings)
  if settings.workers == 1:
    yield from map(make, range(count))
    return
  # Fresh processes: forking one that has already started JAX's threads can hang.
  with multiprocessing.get_context('spawn').Pool(settings.workers, cv2.setNumThreads, (1,)) as pool:
    yield from pool.imap(make, range(count), chunksize=16)
