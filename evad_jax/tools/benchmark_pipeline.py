"""Measures the throughput of the input pipeline, by stage and against the bare JPEG decoder.

  python -m evad_jax.tools.benchmark_pipeline
  python -m evad_jax.tools.benchmark_pipeline --directory data/ava --split train --canvas 288x384 \\
    --canvas 288x512 --canvas 288x544 --canvas 288x704 --canvas 288x768

Without --directory it makes temporary records. Decoding limits the throughput of a pipeline of JPEG
frames. So the last line compares the complete pipeline (reading, checksums, parsing, decoding,
mirroring, resizing, padding, boxes, batching) with the bare decoder of the same library, on the
same frames with the same number of threads, in turn, in one run.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from tqdm import tqdm

from evad_jax.command_line import Parser, above_zero, positive, run, size
from evad_jax.data import augment, clip_sampling, pipeline
from evad_jax.data.aspect_buckets import choose_canvas
from evad_jax.data.clips import ClipSettings, Item, MakeBatch
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.record_writer import write_dataset_metadata, write_split
from evad_jax.data.records import Example, Record, RecordReader
from evad_jax.errors import InputError
from evad_jax.files import atomic_files

SAMPLE = 64  # clips that are measured stage by stage, and that the bare codec decodes
STAGES = {
  'read and parse': 'bytes from disk, checksums, message, boxes',
  'decode': 'the frames of the clip, nothing else',
  'place': 'mirror, resize, pad',
  'whole clip': 'all of these, boxes, copied into a batch',
}


class Speeds(NamedTuple):
  """The measurements."""

  stage_ms: dict[str, float]  # milliseconds per clip on one core, by stage
  codec: float  # clips per second, with the same number of threads as the pipeline
  pipeline: float  # clips per second
  share: float  # of the codec's throughput: median over the rounds


def write_records(directory: Path, clips: int, height: int, width: int, settings) -> RecordIndex:
  """Writes records of moving, softly textured, grainy frames, about as large as a camera's."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (height // 16 + 2, width // 12 + 2, 3), np.uint8)
  texture = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
  texture += rng.integers(-5, 6, texture.shape, np.int16)
  texture = np.clip(texture, 0, 255).astype(np.uint8)
  stride, frames = settings.frame_stride, settings.clip_frames

  def records() -> Iterator[Record]:
    for clip in tqdm(range(clips), 'making records', unit='clip', leave=False):
      starts = (clip * 37 + 3 * np.arange(frames)) % width
      jpegs = [
        simplejpeg.encode_jpeg(
          np.ascontiguousarray(texture[:, x : x + width]), 90, 'RGB', colorsubsampling='420'
        )
        for x in starts
      ]
      low = rng.uniform(0, 0.5, (3, 2))
      boxes = np.concatenate([low, low + rng.uniform(0.1, 0.5, (3, 2))], axis=1)
      yield Record(
        f'video_{clip}',
        25.0,
        stride * frames,
        height,
        width,
        jpegs,
        stride * np.arange(frames),
        np.array([stride * (frames // 2)]),
        boxes.astype(np.float32),
        np.zeros(3, np.int64),
        np.ones((3, 1), np.uint8),
      )

  write_split(directory, 'benchmark', 'train', 1, 2, records())
  write_dataset_metadata(
    directory, 'benchmark', ['person'], clip_frames=frames, frame_stride=stride
  )
  return RecordIndex.open(directory, 'train')


def clip_jpegs(example: Example, settings: ClipSettings) -> list[bytes]:
  """Returns the JPEG files that a clip needs: each distinct frame once."""
  numbers = clip_sampling.clip_frame_numbers(
    example.keyframe, example.num_frames, settings.clip_frames, settings.frame_stride
  )
  positions = clip_sampling.stored_positions(numbers, example.frame_numbers, example.video)
  return [example.frames[position] for position in np.unique(positions)]


def decode_all(jpegs: list[bytes]) -> list[np.ndarray]:
  """Decodes all frames with the bare decoder."""
  return [simplejpeg.decode_jpeg(jpeg, 'RGB') for jpeg in jpegs]


def milliseconds(function: Callable, arguments: list[tuple]) -> float:
  """Mean time of a call, in milliseconds, after one call to warm up."""
  function(*arguments[0])
  start = time.perf_counter()
  for argument in arguments:
    function(*argument)
  return 1e3 * (time.perf_counter() - start) / len(arguments)


def time_stages(index: RecordIndex, settings: ClipSettings, numbers: list[int]) -> dict[str, float]:
  """Measures milliseconds per clip of every stage, one after the other on this thread."""
  reader = RecordReader(index)
  examples = [reader[number] for number in numbers]
  rule = {'short_side': settings.short_side, 'max_long': settings.max_long}

  def draw(frames: list[np.ndarray], out: np.ndarray, flip: bool) -> None:
    canvas = out.shape[1:3]
    resize = augment.plan_resize(*frames[0].shape[:2], canvas=canvas, **rule)
    for t, frame in enumerate(frames):
      augment.draw_frame(frame, resize, flip, out[t])

  def assemble(example: Example, canvas: tuple[int, int], flip: bool) -> None:
    MakeBatch(settings, canvas, len(index.classes))([Item(0, example, flip)])

  canvases = [
    settings.canvases[choose_canvas(e.height, e.width, settings.canvases, **rule)] for e in examples
  ]
  jpegs = [clip_jpegs(example, settings) for example in examples]
  flips = [bool(i % 2) for i in range(len(examples))]
  frames = decode_all(jpegs[0])
  clip = np.zeros((settings.clip_frames, *canvases[0], 3), np.uint8)
  return {
    'read and parse': milliseconds(reader.__getitem__, [(number,) for number in numbers]),
    'decode': milliseconds(decode_all, [(files,) for files in jpegs]),
    'place': milliseconds(draw, [(frames, clip, flip) for flip in flips]),
    'whole clip': milliseconds(assemble, list(zip(examples, canvases, flips, strict=True))),
  }


def codec_speed(jpegs: list[list[bytes]], threads: int, seconds: float) -> float:
  """Clips per second of the bare decoder with `threads` threads."""
  with ThreadPoolExecutor(threads) as pool:
    start = time.perf_counter()
    done = 0
    while time.perf_counter() - start < seconds:
      done += sum(1 for _ in pool.map(decode_all, jpegs))
    return done / (time.perf_counter() - start)


def measure(index: RecordIndex, settings: ClipSettings, args: argparse.Namespace) -> Speeds:
  """Measures everything; codec and pipeline run in turn, so that drift affects both alike."""
  numbers = np.linspace(0, len(index) - 1, min(SAMPLE, len(index))).astype(int).tolist()
  stage_ms = time_stages(index, settings, numbers)
  reader = RecordReader(index)
  jpegs = [clip_jpegs(reader[number], settings) for number in numbers]
  codec, whole = [], []
  with pipeline.train_batches(
    index,
    settings,
    seed=0,
    batch_size=args.batch,
    workers=args.workers,
    threads=args.threads,
    prefetch=args.prefetch,
  ) as batches:
    for _ in tqdm(range(args.rounds), 'measuring', unit='round', leave=False):
      codec.append(codec_speed(jpegs, args.threads, args.seconds))
      # What was made ahead while the codec ran does not count.
      for _ in itertools.islice(batches, args.prefetch + args.threads + 2 * args.workers):
        pass
      start, done = time.perf_counter(), 0
      while time.perf_counter() - start < args.seconds:
        done += len(next(batches).clips)
      whole.append(done / (time.perf_counter() - start))
  shares = [ours / theirs for ours, theirs in zip(whole, codec, strict=True)]
  return Speeds(
    stage_ms, statistics.median(codec), statistics.median(whole), statistics.median(shares)
  )


def report(speeds: Speeds, index: RecordIndex, settings: ClipSettings, threads: int) -> str:
  """The measurements as text."""
  sizes = np.unique(index.record_size, axis=0)
  frames = ', '.join(f'{h} x {w}' for h, w in sizes[:4]) + ', ...' * (len(sizes) > 4)
  canvases = ', '.join(f'{h} x {w}' for h, w in settings.canvases)
  lines = [
    f'clips of {settings.clip_frames} frames; stored as {frames}; canvases {canvases}',
    '',
    f'{"stage, on one core":20}{"ms/clip":>10}{"clips/s":>9}',
  ]
  for name, meaning in STAGES.items():
    ms = speeds.stage_ms[name]
    lines.append(f'{name:20}{ms:10.2f}{1e3 / ms:9.1f}   {meaning}')
  lines += [
    '',
    f'bare codec, {threads} threads: {speeds.codec:.1f} clips/s '
    f'({speeds.codec / threads:.1f} per thread)',
    f'pipeline, {threads} threads:   {speeds.pipeline:.1f} clips/s '
    f'({speeds.pipeline / threads:.1f} per thread)',
    f'share of the codec:    {100 * speeds.share:.1f} %',
  ]
  return '\n'.join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = Parser('evad_jax.tools.benchmark_pipeline', __doc__)
  add = parser.add_argument
  add('--directory', type=Path, help='prepared data set (default: temporary records)')
  add('--split', default='train', help='split of the data set (default train)')
  add('--canvas', type=size, action='append', metavar='HxW', help='repeat for several (288x512)')
  add('--short-side', type=positive, default=288, help='of resized frames, pixels (default 288)')
  add('--clip-frames', type=positive, default=16, help='frames of a clip (default 16)')
  add('--frame-stride', type=positive, default=4, help='step between frames of a clip (default 4)')
  add(
    '--stored-size',
    type=size,
    default=(288, 512),
    metavar='HxW',
    help='of temporary records (288x512)',
  )
  add('--batch', type=positive, default=8, help='clips per batch (default 8)')
  add('--threads', type=positive, default=2, help='decoding threads, per process (default 2)')
  add('--prefetch', type=positive, default=4, help='batches made ahead (default 4)')
  add('--workers', type=int, default=0, help='worker processes (default 0: threads alone)')
  add('--reduced-decoding', action='store_true', help='decode large frames at a reduced size')
  add('--rounds', type=positive, default=5, help='turns of codec and pipeline (default 5)')
  add('--seconds', type=above_zero(float), default=4.0, help='length of a turn (default 4)')
  add('--json', type=Path, help='also write the measurements to this file')
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  settings = ClipSettings(
    args.clip_frames,
    args.frame_stride,
    tuple(args.canvas or [(288, 512)]),
    args.short_side,
    max_boxes=256,
    reduced_decoding=args.reduced_decoding,
  )
  with tempfile.TemporaryDirectory(prefix='evad-jax-benchmark-') as scratch:
    if args.directory:
      index = RecordIndex.open(args.directory, args.split)
    else:
      index = write_records(Path(scratch), SAMPLE, *args.stored_size, settings)
    speeds = measure(index, settings, args)
  print(report(speeds, index, settings, args.threads * max(args.workers, 1)))
  if args.json:
    write_json(args.json, speeds)


def write_json(path: Path, speeds: Speeds) -> None:
  """Writes the fields of Speeds. Raises InputError where the file cannot be written."""
  try:
    atomic_files.write_json(path, speeds._asdict())
  except OSError as error:
    raise InputError(f'{path}: cannot be written ({error.strerror}); choose another') from error


if __name__ == '__main__':
  run(main)
