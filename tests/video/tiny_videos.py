"""Videos of a few grey pictures: the grey level says which picture a frame shows."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from evad_jax.video import video_source

SIZE = (64, 96)  # height, width
STEP = 5  # grey levels between neighbours
UNEVEN = [0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.5, 0.54, 0.58, 0.62]  # one picture stays for 0.3 s


def level(number: int) -> int:
  """The grey of picture `number`; it repeats after 44."""
  return 20 + STEP * (number % 44)


def write_video(
  path: Path,
  num_pictures: int,
  *,
  rate: int = 25,
  times: list[float] | None = None,
  size: tuple[int, int] = SIZE,
  options: dict[str, str] | None = None,
  stream_options: dict[str, str] | None = None,
  metadata: dict[str, str] | None = None,
) -> Path:
  """Writes pictures 0, 1, ...; at `rate` a second, or at the given times in seconds."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), 'w', options=options or {}) as container:
    container.metadata.update(metadata or {})
    stream = container.add_stream('mpeg4', rate=rate, bit_rate=4_000_000)
    stream.height, stream.width = size
    stream.pix_fmt = 'yuv420p'
    stream.options = stream_options or {}
    if times is not None:
      stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
    for number in range(num_pictures):
      picture = np.full((*size, 3), level(number), np.uint8)
      frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
      if times is not None:
        frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def read_video(path: Path) -> tuple[list[np.ndarray], list[float]]:
  """Frames and times of a video, as our reader gives them."""
  with video_source.opened(video_source.find(str(path))) as source:
    timed = [(picture.rgb(), seconds) for seconds, picture, _ in source.pictures]
  return [frame for frame, _ in timed], [seconds for _, seconds in timed]


def picture_of(frame: np.ndarray) -> int:
  """Which picture a frame shows, of the first 44."""
  return round((float(frame.mean()) - level(0)) / STEP)


def break_metadata(path: Path) -> None:
  """Puts Latin-1 where UTF-8 belongs; the title must be 'cafebar'."""
  data = path.read_bytes()
  assert data.count(b'cafebar') == 1
  path.write_bytes(data.replace(b'cafebar', 'caf\xe9 \xfc.'.encode('latin1')))
