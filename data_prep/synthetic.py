"""Makes a small data set of moving people, so that training and evaluation run without downloads.

  python -m data_prep.synthetic --output data/synthetic

One record is one clip with one keyframe in its middle. One to three people (stick_figures.py) move
before a softly textured, slowly drifting grey background (synthetic_clips.py); the labels are their
motions, which one frame alone does not tell. A clip's randomness depends on the seed, the split and
the clip's number only: the files are the same bytes whatever the number of workers.
"""

import argparse
import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from tqdm import tqdm

from data_prep.common.resumption import alone_in, settle
from evad_jax.data import data_set_directory, record_writer
from evad_jax.data.record_index import MANIFEST
from evad_jax.data.records import Record
from evad_jax.errors import InputError, exit_on_input_error
from evad_jax.synthetic.clips import Settings, make_clip
from evad_jax.synthetic.stick_figures import ACTIONS

NAME = 'synthetic'
SPLITS = ('train', 'test')  # the place here is part of a clip's seed
SHARDS = {'train': 4, 'test': 1}
FLIP_KEEPS_LABELS = True  # no class tells left from right: mirrored clips may be trained on
JPEG_QUALITY = 95
FPS = 8.0


def make_record(number: int, split: str, settings: Settings) -> Record:
  """Clip `number` of a split, encoded."""
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
  """Writes both splits and the metadata; InputError when the directory holds a data set already.

  The manifest is written last: a directory without one was not finished and is simply done again.
  """
  directory = Path(directory)
  with alone_in(directory):
    _generate(directory, settings, overwrite)


def _generate(directory: Path, settings: Settings, overwrite: bool) -> None:
  data_set_directory.check_owner(directory, NAME)
  settle(directory, NAME)
  if (directory / MANIFEST).exists() and not overwrite:
    raise InputError(
      f'{directory} already holds a data set: choose another --output or add --overwrite.'
    )
  place = data_set_directory.place_to_write(directory)
  _write(place, directory, settings)
  settle(directory, NAME)


def _write(place: Path, directory: Path, settings: Settings) -> None:
  """Writes both splits to `place`; `directory` is where they are for."""
  counts = {'train': settings.train, 'test': settings.test}
  print(f'Making {counts["train"]} + {counts["test"]} synthetic clips in {directory}', flush=True)
  label_counts = {}
  with tqdm(total=sum(counts.values()), unit='clip', desc=NAME) as bar:
    for split, count in counts.items():
      label_counts[split] = np.zeros(len(ACTIONS), np.int64)
      with record_writer.RecordWriter(place, NAME, split, len(ACTIONS), SHARDS[split]) as writer:
        for record in _make_records(split, count, settings):
          writer.write(record)
          label_counts[split] += record.labels.sum(0, dtype=np.int64)
          bar.update()
  extra = {
    'flip_keeps_labels': FLIP_KEEPS_LABELS,
    'label_counts': {
      s: dict(zip(ACTIONS, c.tolist(), strict=True)) for s, c in label_counts.items()
    },
    'settings': {k: v for k, v in dataclasses.asdict(settings).items() if k != 'workers'},
  }
  record_writer.write_dataset_metadata(
    place,
    NAME,
    list(ACTIONS),
    extra,
    clip_frames=settings.clip_frames,
    frame_stride=settings.frame_stride,
  )


def _make_records(split: str, count: int, settings: Settings) -> Iterator[Record]:
  """The split's records in order, made by as many processes as the settings say."""
  make = functools.partial(make_record, split=split, settings=settings)
  if settings.workers == 1:
    yield from map(make, range(count))
    return
  # Fresh processes: forking one that has already started JAX's threads can hang.
  with multiprocessing.get_context('spawn').Pool(settings.workers, cv2.setNumThreads, (1,)) as pool:
    yield from pool.imap(make, range(count), chunksize=16)


def _size(text: str) -> tuple[int, int]:
  """'64x80' -> (64, 80), height and width."""
  height, _, width = text.partition('x')
  if not (height.isdecimal() and width.isdecimal()):
    raise argparse.ArgumentTypeError(f'{text!r} is not HEIGHTxWIDTH, for example 64x64')
  return int(height), int(width)


def main() -> None:
  """The command line."""
  default = Settings()
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', type=Path, required=True, help='directory to write to')
  parser.add_argument('--size', type=_size, default=(default.height, default.width), metavar='HxW')
  for name in ('train', 'test', 'clip_frames', 'frame_stride', 'seed', 'workers'):
    flag = '--' + name.replace('_', '-')
    parser.add_argument(flag, type=int, default=getattr(default, name), metavar='N')
  parser.add_argument('--hard', action='store_true', help='busier background, more, smaller people')
  parser.add_argument('--overwrite', action='store_true', help='replace what is in --output')
  flags = vars(parser.parse_args())
  output, overwrite = flags.pop('output'), flags.pop('overwrite')
  height, width = flags.pop('size')
  with exit_on_input_error():
    generate(output, Settings(height=height, width=width, **flags), overwrite=overwrite)


if __name__ == '__main__':
  main()
