"""Writes an annotated video frame by frame; it stays playable however the writing ends.

MP4 files are written in fragments and rearranged into a plain file when closed: after a kill, the
file still plays up to its last fragment. Rearranging needs the position of every picture, some 6 MB
per hour. Endless videos stay in fragments and need no such memory.
"""

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from evad_jax.errors import InputError
from evad_jax.files import storage
from evad_jax.video.decode import local_file

# Container options by file suffix. Packets are flushed one by one: what is buffered in memory is
# lost if the program is killed, and a small video would be lost entirely.
CONTAINERS = {
  '.mp4': {'movflags': 'hybrid_fragmented', 'flush_packets': '1'},
  '.mov': {'movflags': 'hybrid_fragmented', 'flush_packets': '1'},
  '.mkv': {'flush_packets': '1'},
}
ENDLESS = {'movflags': 'frag_keyframe+empty_moov+default_base_moof', 'flush_packets': '1'}
CODEC = 'libx264'
# No B-frames: pictures are stored at their own times. With them, a fragmented file begins two
# pictures late.
ENCODING = {'preset': 'veryfast', 'crf': '20', 'bf': '0'}
HIGH_DEFINITION = (720, 1280)  # height or width in pixels; from here on players expect BT.709.
# The matrix from RGB, then what the file states: matrix (H.273's numbers), primaries, transfer.
BT709 = Colorspace.ITU709, 1, ColorPrimaries.BT709, ColorTrc.BT709
BT601 = Colorspace.ITU601, 6, ColorPrimaries.SMPTE170M, ColorTrc.SMPTE170M
LONGEST = 16384  # pixels, the largest side in H.264
TIME_BASE = Fraction(1, 90000)  # seconds


def check_name(path: Path) -> None:
  """Raises InputError for an address, or a name without the suffix of a known container."""
  storage.refuse_address(path, 'A video to write')
  if path.suffix.lower() not in CONTAINERS:
    raise InputError(f'{path}: a video name ends with {", ".join(CONTAINERS)}; rename it.')


class VideoWriter(contextlib.AbstractContextManager):
  """A video file written frame by frame; close it, or use it as a context manager."""

  def __init__(self, path: str | os.PathLike, fps: float, endless: bool = False):
    """fps: approximate frames per second; every frame has its own time. endless: bounded memory.

    Raises InputError for a name without the suffix of a known container, or a file that cannot be
    written.
    """
    self.path = Path(path)
    check_name(self.path)
    options = CONTAINERS[self.path.suffix.lower()]
    if endless and 'movflags' in options:
      options = ENDLESS
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self.path.open('wb').close()  # the container itself is opened with the codec's first packet
      self._container = av.open(local_file(self.path), 'w', options=options)
    except OSError as error:
      raise InputError(f'{self.path}: cannot be written ({error}).') from error
    self._fps = Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)
    self._stream: Any = None
    self._reformatter = VideoReformatter()  # its tables are made once
    self._time = -1
    self.num_frames = 0

  def write(self, frame: np.ndarray, seconds: float) -> None:
    """Appends a frame, (H, W, 3) uint8 RGB with square pixels, shown from `seconds` on.

    All frames have the size of the first. The codec needs even sides, so an odd one gets its last
    row or column twice.
    """
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
      frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
    if self._stream is None:
      self._start(*frame.shape[:2])
    self._time = max(self._time + 1, round(seconds / TIME_BASE))
    picture = self._converted(frame)
    picture.pts, picture.time_base = self._time, TIME_BASE
    self._container.mux(self._stream.encode(picture))
    self.num_frames += 1

  def _start(self, height: int, width: int) -> None:
    if max(height, width) > LONGEST:
      raise InputError(
        f'{self.path}: frames of {height} x {width} (height x width) are too large for a video, '
        f'whose sides are at most {LONGEST} pixels; make them smaller.'
      )
    self._stream = self._container.add_stream(CODEC, rate=self._fps, options=ENCODING)
    self._stream.height, self._stream.width = height, width
    self._stream.pix_fmt = 'yuv420p'
    self._stream.time_base = self._stream.codec_context.time_base = TIME_BASE
    high = height >= HIGH_DEFINITION[0] or width >= HIGH_DEFINITION[1]
    self._matrix, *noted = BT709 if high else BT601
    context = self._stream.codec_context
    context.colorspace, context.color_primaries, context.color_trc = map(int, noted)
    context.color_range = ColorRange.MPEG
    # A fragment ends before each key picture, so a killed program loses a few seconds at most.
    self._stream.codec_context.gop_size = max(1, round(4 * self._fps))

  def _converted(self, frame: np.ndarray) -> av.VideoFrame:
    """Converts RGB to YUV that players convert back to the same RGB."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
    return self._reformatter.reformat(
      picture,
      format='yuv420p',
      dst_colorspace=self._matrix,
      dst_color_range=ColorRange.MPEG,
      threads=1,
    )

  def close(self) -> None:
    """Writes what the codec still holds and the table of contents."""
    if self._container is None:
      return
    if self._stream is not None:
      self._container.mux(self._stream.encode())
    self._container.close()
    self._container = None
    if self._stream is None:  # nothing was written: remove the empty file
      self.path.unlink(missing_ok=True)

  def __exit__(self, *exception: Any) -> None:
    self.close()
