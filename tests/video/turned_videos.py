"""Videos of given pictures, with display matrices and shapes of pixels."""

import struct
from pathlib import Path

import av
import numpy as np

MATRICES = {  # a, b, c, d: x' = a x + c y, y' = b x + d y; their effect, in NumPy
  'mirror': ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
  'flip': ((1, 0, 0, -1), lambda x: x[::-1]),
  'quarter': ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
  'half': ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
  'back': ((0, -1, 1, 0), lambda x: np.rot90(x)),
  'transpose': ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
  'transverse': ((0, -1, -1, 0), lambda x: x[::-1, ::-1].swapaxes(0, 1)),
  'twice as wide': ((2, 0, 0, 1), lambda x: x),
}
CORNERS = np.zeros((64, 96, 3), np.uint8)  # every corner has its own colour
CORNERS[:32, :48, 0] = CORNERS[32:, :48, 1] = CORNERS[:32, 48:, 2] = 250


def with_matrix(path: Path, entries) -> Path:
  """Changes the display matrix in the header of an MP4 file with one track."""
  data = bytearray(path.read_bytes())
  a, b, c, d = (round(65536 * entry) for entry in entries)
  start = data.index(b'tkhd') + 4 + 4 + 20 + 16
  data[start : start + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path.write_bytes(data)
  return path


def write_pictures(path: Path, pictures, *, rate=25, pixel=None, options=None) -> Path:
  """Writes a video; `pixel`: width over height of a pixel."""
  with av.open(str(path), 'w', options=options or {}) as container:
    stream = container.add_stream('mpeg4', rate=rate, bit_rate=8_000_000)
    stream.height, stream.width = pictures[0].shape[:2]
    stream.pix_fmt = 'yuv420p'
    if pixel:
      stream.codec_context.sample_aspect_ratio = pixel
    for picture in pictures:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
    container.mux(stream.encode())
  return path


def differ(one, other) -> float:
  """The mean difference of two pictures in grey levels."""
  assert one.shape == other.shape
  return float(np.abs(one.astype(int) - other.astype(int)).mean())
