"""Detects people and their actions in a video; writes an annotated video, csv and JSON.

  python -m evad_jax.tools.detect_video party.mp4 --checkpoint runs/demo --output party_seen.mp4
  python -m evad_jax.tools.detect_video webcam:0 --checkpoint runs/ava --output seen.mp4 \\
    --keep-rate 1.0 0.7 0.6 --latency-budget 0.25

The input may be any file that FFmpeg reads, - for standard input, a URL (rtsp://...), or a camera
(webcam:0). OUTPUT is the video with boxes, ids and actions drawn in. Beside it are written
OUTPUT_detections.csv and .jsonl (the people on every keyframe and their actions), and
OUTPUT_tubes.csv and .jsonl (the boxes and actions of each person over time). Ctrl-C stops at any
moment; the files are complete up to there.

An action needs frames from before and after: people on a frame are known half a clip later. Cameras
and live streams do not wait: when the detector falls behind, the oldest keyframes are skipped and
counted. With --latency-budget, the highest --keep-rate that stays within so many seconds is used.
"""

import argparse
import contextlib
import itertools
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from evad_jax import command_line
from evad_jax.errors import InputError
from evad_jax.files import storage
from evad_jax.files.replacement import Replacement
from evad_jax.formats import class_lists
from evad_jax.inference import result_files, streaming
from evad_jax.inference.detector import Detector
from evad_jax.inference.result_files import DetectionFiles
from evad_jax.training.run_log import duration
from evad_jax.video import video_source, video_writer
from evad_jax.video.video_source import OpenSource, TimedPicture
from evad_jax.video.video_writer import VideoWriter
from evad_jax.visualization.annotated_video import AnnotatedVideo
from evad_jax.visualization.draw_people import Style

LIVE_FRAMES = 300  # that may wait to be drawn; more are left out of the annotated video
EXIT_INTERRUPTED = 130  # the shells' convention
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that stop the command


class Summary(NamedTuple):
  """Counts and times of a run; seconds of wall time."""

  frames: int
  keyframes: int
  people: int
  seconds: float
  model_seconds: float
  latency_mean: float
  latency_largest: float
  dropped: int  # keyframes
  left_out: int  # frames of the annotated video
  peak_memory: int  # bytes, of the process since it started
  interrupted: bool
  files: Sequence[Path] = ()  # with the results
  notes: tuple[str, ...] = ()  # on irregularities of the input

  def text(self) -> str:
    """The summary for people."""
    pace = self.keyframes / max(self.seconds, 1e-9)
    lines = [
      f'{self.frames} frames, {self.keyframes} keyframes, {self.people} people in '
      f'{duration(self.seconds)}: {pace:.2f} keyframes/s, '
      f'{self.frames / self.seconds:.1f} frames/s',
      f'detector {100 * self.model_seconds / self.seconds:.0f} % of the time; from the last frame '
      f'of a clip to its people {self.latency_mean:.3f} s, at most {self.latency_largest:.3f} s; '
      f'peak memory {self.peak_memory / 2**20:.0f} MiB',
    ]
    if self.dropped or self.left_out:
      lines.append(
        f'too slow for this source: {self.dropped} keyframes were skipped, {self.left_out} frames '
        'left out of the video; lower --keep-rate or raise --keyframe-stride'
      )
    return '\n'.join([*lines, *(f'note: {note}' for note in self.notes)])


class Stop:
  """Handles Ctrl-C and SIGTERM: the first ends the source at its next frame, the second at once."""

  def __init__(self):
    """Starts unasked."""
    self.asked = False

  def __call__(self, number: int, frame: object) -> None:
    """The signal handler."""
    if self.asked:
      raise KeyboardInterrupt
    self.asked = True
    print('\nstopping; press Ctrl-C again if nothing happens', file=sys.stderr, flush=True)

  def ends(self, pictures: Iterable[TimedPicture]) -> Iterator[TimedPicture]:
    """The pictures up to the first signal."""
    return itertools.takewhile(lambda _: not self.asked, pictures)


def detect(
  detector: Detector,
  source: OpenSource,
  settings: streaming.Settings,
  files: DetectionFiles,
  writer: VideoWriter | None,
  style: Style,
) -> Summary:
  """Runs a source through the detector and into the files, to its end or to a signal.

  When it raises InputError (a file that breaks off), the files hold what came before.
  """
  stop = Stop()
  handlers = {asking: signal.signal(asking, stop) for asking in SIGNALS}
  annotated = AnnotatedVideo(
    writer, detector.classes, style, LIVE_FRAMES if settings.live else None
  )
  frames = annotated.watch(stop.ends(source.pictures))
  name, total = Path(source.name).name, source.num_frames
  bar = tqdm(total=total, unit='frame', desc=name, smoothing=0.1)
  stream = detector.stream(_counted(frames, bar), settings)
  start = time.perf_counter()
  try:
    for people in stream:
      files.add(people, annotated.seconds(people.frame), annotated.size)
      annotated.add(people)
      bar.set_postfix_str(f'{len(people.ids)} people, keep rate {stream.keep_rate}', refresh=False)
  except KeyboardInterrupt:
    pass  # second signal: the files hold what was found
  except InputError:
    if not stop.asked or annotated.count:  # else it was stopped before the first frame
      raise
  finally:
    for asking, handler in handlers.items():
      signal.signal(asking, handler)
    if files.num_keyframes or stop.asked:  # else the input was bad, and leaves no files
      annotated.finish()
    bar.close()
  return Summary(
    frames=annotated.count - annotated.lost,
    keyframes=files.num_keyframes,
    people=files.num_people,
    seconds=time.perf_counter() - start,
    model_seconds=stream.model_seconds,
    latency_mean=stream.latencies.mean(),
    latency_largest=stream.latencies.largest,
    dropped=stream.dropped,
    left_out=annotated.left_out,
    peak_memory=peak_memory(),
    interrupted=stop.asked,
    notes=tuple(source.notes()),
  )


def _counted(frames: Iterable, bar: tqdm) -> Iterator:
  """The frames; the bar, which outlasts them, counts them."""
  for frame in frames:
    yield frame
    bar.update()


def peak_memory() -> int:
  """Peak memory of this process, in bytes."""
  unit = 1 if sys.platform == 'darwin' else 1024
  return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _fraction(text: str) -> Fraction:
  try:
    return Fraction(text)
  except (ValueError, ZeroDivisionError) as error:
    raise argparse.ArgumentTypeError(f'{text!r} is not a number like 25 or 30000/1001') from error


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = command_line.Parser('evad_jax.tools.detect_video', __doc__)
  add = parser.add_argument
  add('input', help='video file, -, URL, or webcam:N')
  add('--checkpoint', required=True, help='working directory of a run, or converted checkpoint')
  add('--output', type=Path, required=True, help='annotated video to write: .mp4, .mov or .mkv')
  add('--no-video', action='store_true', help='write only the csv and JSON files')
  add('--overwrite', action='store_true', help='replace old files once the new ones are complete')
  group = parser.add_argument_group('input').add_argument
  group(
    '--keyframe-stride', type=int, default=8, help='step between keyframes (default %(default)s)'
  )
  group('--rate', type=_fraction, help='frames per second to read; default: every frame')
  group('--seconds', type=float, help='stop after so many seconds of the video')
  group('--live', action='store_true', help='skip keyframes rather than wait; cameras always do')
  group('--input-format', help="FFmpeg's name of the format, where it cannot be guessed")
  group = parser.add_argument_group('detector').add_argument
  group(
    '--keep-rate', type=float, nargs='+', help="share of tokens kept; default: the checkpoint's"
  )
  group('--latency-budget', type=float, help='seconds per call; chooses among several --keep-rate')
  group('--batch-size', type=int, help='keyframes per call (default 4; live: 1)')
  group('--step', type=int, default=0, help='of the checkpoint; 0: newest (default), -1: best')
  group('--dtype', help='of the computation: float32, bfloat16 or auto')
  group('--labels', type=Path, help='names of the classes: .pbtxt, or one per line')
  for name, what in (
    ('clip-frames', 'frames of a clip'),
    ('frame-stride', 'step between frames of a clip'),
    ('short-side', 'short side of resized frames, pixels'),
  ):
    group(f'--{name}', type=int, help=f"{what}; default: the checkpoint's")
  group = parser.add_argument_group('results').add_argument
  group(
    '--person-threshold', type=float, default=0.7, help='lowest person score (default %(default)s)'
  )
  group(
    '--action-threshold',
    type=float,
    default=0.3,
    help='lowest score of an action drawn (default %(default)s)',
  )
  group(
    '--lowest-score',
    type=float,
    default=0.05,
    help='lowest score of an action in the files (default %(default)s); 0: all',
  )
  return parser.parse_args(argv)


def run(args: argparse.Namespace) -> Summary:
  """Runs the command, from flags to files."""
  rates = tuple(args.keep_rate or ())
  if len(rates) > 1 and args.latency_budget is None:
    raise InputError('Several --keep-rate need a --latency-budget; give one, or a single rate.')
  for name, value in (('--seconds', args.seconds), ('--rate', args.rate)):
    if value is not None and not 0 < value < math.inf:
      raise InputError(f'{name} {value} must be above 0.')
  prefix = result_files.prefix_of(args.output)
  if not args.no_video:
    video_writer.check_name(args.output)
    if os.path.isfile(args.input) and args.output.exists() and args.output.samefile(args.input):
      raise InputError(f'{args.output} is the input itself; give another --output.')
  written = result_files.paths(prefix) + [args.output] * (not args.no_video)
  outputs = Replacement(written, args.overwrite)
  source = video_source.find(args.input, args.input_format)
  live = args.live or source.live
  settings = streaming.Settings(
    keyframe_stride=args.keyframe_stride,
    batch_size=(1 if live else 4) if args.batch_size is None else args.batch_size,
    person_threshold=args.person_threshold,
    live=live,
    keep_rates=rates if args.latency_budget is not None else (),
    latency_budget=args.latency_budget,
    name=source.name,
  )
  streaming.check(settings)
  clip = {key: getattr(args, key) for key in ('clip_frames', 'frame_stride', 'short_side')}
  detector = Detector.from_checkpoint(
    args.checkpoint,
    step=args.step,
    keep_rate=rates[0] if len(rates) == 1 else None,
    classes=class_lists.read(args.labels) if args.labels else None,
    dtype=args.dtype,
    **{key: value for key, value in clip.items() if value is not None},
  )
  style = Style(lowest_score=args.action_threshold)
  with video_source.opened(source, args.rate) as opened:
    if args.seconds is not None:
      opened = _until(opened, args.seconds)
    with _told(outputs, args.output):
      summary = _detect_into(outputs, prefix, args, detector, opened, settings, style)
  if summary.keyframes or not outputs.replaces:
    return summary._replace(files=outputs.finish())
  outputs.discard()  # stopped before any result: the old files stay
  return summary


def _detect_into(
  outputs: Replacement,
  prefix: Path,
  args: argparse.Namespace,
  detector: Detector,
  source: OpenSource,
  settings: streaming.Settings,
  style: Style,
) -> Summary:
  """Runs a source through the detector and into the files that `args` asks for."""
  name = Path(source.name).name if args.input != '-' else 'stdin'
  found, lowest = outputs.place(prefix), args.lowest_score
  with DetectionFiles(found, name, detector.classes, lowest, detector.class_ids) as files:
    if args.no_video:
      return detect(detector, source, settings, files, None, style)
    with VideoWriter(outputs.place(args.output), source.fps, endless=settings.live) as writer:
      return detect(detector, source, settings, files, writer, style)


@contextlib.contextmanager
def _told(outputs: Replacement, output: Path) -> Iterator[None]:
  """Adds to an error of the input, or of a full disk, where the results up to there are."""
  try:
    with storage.told(output, 'another --output'):
      yield
  except InputError as error:
    left = outputs.leave()
    if not left:
      raise
    told = str(error).rstrip('.')
    raise InputError(f'{told}; what was found before is in {", ".join(map(str, left))}') from error


def _until(source: OpenSource, seconds: float) -> OpenSource:
  """The first `seconds` of a source."""
  most = round(seconds * source.fps)
  return source._replace(
    num_frames=min(source.num_frames, most) if source.num_frames else most,
    pictures=itertools.takewhile(lambda timed: timed.seconds < seconds, source.pictures),
  )


def main(argv: Sequence[str] | None = None) -> int:
  """The command line; returns the exit status."""
  args = parse_arguments(argv)
  command_line.keep_programs()
  summary = run(args)
  print(summary.text())
  told = ', '.join(map(str, summary.files)) or 'nothing was found; nothing was written'
  print(f'{"stopped; complete up to there: " if summary.interrupted else ""}{told}')
  return EXIT_INTERRUPTED if summary.interrupted else 0


if __name__ == '__main__':
  command_line.run(main)
