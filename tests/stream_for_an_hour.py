"""Shows that a stream of any length needs constant memory: an hour of it, generated on the fly.

  python -m tests.stream_for_an_hour --checkpoint runs/demo [--minutes 60] [--keep-rate 0.7]

Frames come at 25 a second, 320 x 240, from a generator that repeats nothing; they pass through
evad_jax.tools.detect_video into an annotated video and all four files of a temporary directory.
Prints the memory of the process every tenth of the time, and exits with 1 where it grew by more
than --allowed MiB after the first tenth.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from evad_jax.inference import streaming
from evad_jax.inference.detector import Detector
from evad_jax.inference.result_files import DetectionFiles
from evad_jax.tools.detect_video import detect
from evad_jax.video.decode import Picture
from evad_jax.video.video_source import OpenSource, TimedPicture
from evad_jax.video.video_writer import VideoWriter
from evad_jax.visualization.draw_people import Style

FPS, SIZE = 25, (240, 320)


def memory() -> float:
  """MiB that this process holds now."""
  pages = int(Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def pictures(count: int, told: list[float]) -> Iterator[TimedPicture]:
  """Wandering blobs; records the memory at every tenth."""
  rng = np.random.default_rng(0)
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
  places, paces = rng.uniform(0, 1, (3, 2)), rng.uniform(-0.004, 0.004, (3, 2))
  for number in range(count):
    if number % (count // 10) == 0:
      told.append(memory())
      print(f'{number / FPS / 60:6.1f} minutes: {told[-1]:.0f} MiB', flush=True)
    places += paces
    paces[(places < 0) | (places > 1)] *= -1
    frame = np.full((*SIZE, 3), 100, np.uint8)
    for i, (y, x) in enumerate(np.clip(places, 0, 1) * SIZE):
      frame[((rows - y) / 60) ** 2 + ((columns - x) / 25) ** 2 < 1, i] = 30 + number % 200
    picture = av.VideoFrame.from_ndarray(frame, format='rgb24')
    yield TimedPicture(number / FPS, Picture(picture))


def main(argv: list[str] | None = None) -> int:
  """The command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--checkpoint', required=True)
  parser.add_argument('--minutes', type=float, default=60.0)
  parser.add_argument('--keep-rate', type=float)
  parser.add_argument('--allowed', type=float, default=16.0, help='MiB of growth (default 16)')
  args = parser.parse_args(argv)
  detector = Detector.from_checkpoint(args.checkpoint, keep_rate=args.keep_rate)
  count, told = round(args.minutes * 60 * FPS), []
  settings = streaming.Settings(keyframe_stride=FPS, batch_size=4, person_threshold=0.3)
  with tempfile.TemporaryDirectory() as directory:
    output = Path(directory) / 'seen.mp4'
    source = OpenSource('made as it is read', FPS, count, pictures(count, told))
    files = DetectionFiles(output.with_suffix(''), 'made', detector.classes, 0.05)
    with files, VideoWriter(output, FPS, endless=True) as writer:
      summary = detect(detector, source, settings, files, writer, Style())
    told.append(memory())
    size = output.stat().st_size / 2**20
  print(summary.text())
  growth = told[-1] - told[1]
  print(
    f'at the end {told[-1]:.0f} MiB, {growth:+.0f} since the first tenth; video of {size:.0f} MiB'
  )
  return int(growth > args.allowed)


if __name__ == '__main__':
  sys.exit(main())
