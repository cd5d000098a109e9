"""Samples what is on the screen at even times, with FFmpeg's own filter `fps`."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av

from evad_jax.video.shown import Lost, Picture, Shown, VideoError

LONGEST_PAUSE = 3600  # seconds between two pictures; copies would fill a longer pause
FINEST = 1_000_000  # the largest denominator of a rate


def at_rate(
  shown: Iterable[Shown], tick: Fraction, rate: Fraction, start: int | None = None
) -> Iterator[Picture | Lost]:
  """Yields the picture of every time slot; a picture that stays is yielded again, the same object.

  Args:
    shown: what a stream shows.
    tick: seconds per tick of its times.
    rate: slots per second.
    start: second of the first slot on the stream's clock; the first picture stands in for missing
      ones before it. None: the slot of the first picture.

  Raises:
    VideoError: pictures are further apart than LONGEST_PAUSE, or all end before half a slot.
  """
  graph, source, sink = _graph(tick, rate, start)  # kept: its filters live as long
  offset, before, empty = 0 if start is None else round(start / tick), None, True
  for place in shown:
    if before is not None and place.ticks - before > LONGEST_PAUSE / tick:
      raise VideoError(
        f'its timestamps jump by {float((place.ticks - before) * tick):.0f} seconds, which no rate '
        'can fill; read it without one, or cut it there'
      )
    before = place.ticks
    # A small frame carries each picture through the filter, since pictures may change size.
    carrier = av.VideoFrame(16, 16, 'gray')
    carrier.pts, carrier.time_base = place.ticks - offset, tick
    carrier.duration, carrier.opaque = place.duration, place.picture
    source.push(carrier)
    for picture in _passed(sink):
      yield picture
      empty = False
  source.push(None)
  for picture in _passed(sink):
    yield picture
    empty = False
  if empty and before is not None:
    raise VideoError(f'is too short for a picture at {rate} a second; raise the rate')


def _graph(
  tick: Fraction, rate: Fraction, start: int | None
) -> tuple[av.filter.Graph, av.filter.context.FilterContext, av.filter.context.FilterContext]:
  graph = av.filter.Graph()
  source = graph.add(
    'buffer', video_size='16x16', pix_fmt='gray', time_base=str(tick), pixel_aspect='1/1'
  )
  options = f'fps={rate.limit_denominator(FINEST)}'
  fps = graph.add('fps', options if start is None else f'{options}:start_time=0')
  sink = graph.add('buffersink')
  source.link_to(fps)
  fps.link_to(sink)
  graph.configure()
  return graph, source, sink


def _passed(sink: av.filter.context.FilterContext) -> Iterator[Picture | Lost]:
  while True:
    try:
      yield sink.pull().opaque
    except (av.error.BlockingIOError, av.error.EOFError):
      return


def slots(seconds: int | None, rate: Fraction) -> int | None:
  """Number of slots in a length of time."""
  return None if seconds is None else math.ceil(seconds * rate)
