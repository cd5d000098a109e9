"""Videos whose pictures encode their number, in eight bits of bars above moving noise.

From a damaged picture the number can still be read, or the damage is detected.
"""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

SIZE = (96, 128)  # height, width
BITS, BAR = 8, 16  # bars, and their width
RATE = 25
CODECS = {
  '.mp4': 'libx264',
  '.mkv': 'libx264',
  '.ts': 'libx264',
  '.avi': 'mpeg4',
  '.webm': 'libvpx-vp9',
}


def picture(number: int) -> np.ndarray:
  """(H, W, 3) uint8."""
  frame = np.full((*SIZE, 3), 60, np.uint8)
  for bit in range(BITS):
    frame[8:40, bit * BAR + 2 : bit * BAR + 14] = 230 if number >> bit & 1 else 20
  noise = np.random.default_rng(number).integers(0, 255, (6, 16, 3), np.uint8)
  frame[48:] = np.kron(noise, np.ones((8, 8, 1), np.uint8))
  return frame


def number_of(frame: np.ndarray) -> int | None:
  """The number; None where the bars are no bars."""
  means = [frame[12:36, bit * BAR + 5 : bit * BAR + 11].mean() for bit in range(BITS)]
  if any(80 < mean < 170 for mean in means):
    return None
  return sum(int(mean > 125) << bit for bit, mean in enumerate(means))


def write(
  path: Path,
  count: int,
  *,
  options: dict[str, str] | None = None,  # of the container
  codec: dict[str, str] | None = None,  # options of the codec
  first: int = 0,  # number of the first picture
) -> Path:
  """Writes pictures of RATE a second, a key picture every 12."""
  with av.open(str(path), 'w', options=options or {}) as container:
    stream = container.add_stream(CODECS[path.suffix], rate=RATE, options=codec or {})
    stream.height, stream.width = SIZE
    stream.pix_fmt, stream.bit_rate = 'yuv420p', 800_000
    stream.codec_context.gop_size = 12
    for number in range(first, first + count):
      frame = av.VideoFrame.from_ndarray(picture(number), format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def packets(path: Path) -> list[tuple[int, int]]:
  """Offset and size in bytes of every packet with pictures, in the order of the file."""
  with av.open(str(path)) as container:
    return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def overwrite(path: Path, chosen: Callable[[int, list[bool]], bool]) -> int:
  """Overwrites the contents of some packets with ones, in files that store them contiguously.

  chosen: number of a packet, and for every packet whether it is a key picture -> whether to
  overwrite it. Returns how many were overwritten.
  """
  with av.open(str(path)) as container:
    payloads = [(bytes(p), p.is_keyframe) for p in container.demux(video=0) if p.size]
  data, keys = bytearray(path.read_bytes()), [key for _, key in payloads]
  hit = [payload for number, (payload, _) in enumerate(payloads) if chosen(number, keys)]
  for payload in hit:
    at = data.index(payload)
    data[at : at + len(payload)] = b'\xff' * len(payload)
  path.write_bytes(data)
  return len(hit)
