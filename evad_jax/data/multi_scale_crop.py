"""Multi-scale crops of VideoMAE's pre-training (arXiv 2203.12602): where to cut, and cutting.

A crop's height and width are fractions of the frame's short side, its place one of 13 fixed points.
All frames of a clip have the same crop. It is resized to a square canvas, so the aspect ratio of
the picture changes a little.
"""

from typing import NamedTuple

import cv2
import numpy as np

SNAP = 2  # pixels by which a side may miss the canvas and still be taken as its size
MOST_DISTORTED = 1  # steps of scale between height and width
# Places in quarters (y, x) of the free space: corners, centre, middles of edges, inner points.
POINTS = (
  *((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)),
  *((2, 0), (2, 4), (4, 2), (0, 2)),
  *((1, 1), (1, 3), (3, 1), (3, 3)),
)


class Crop(NamedTuple):
  """A rectangle of a frame, pixels."""

  top: int
  left: int
  height: int
  width: int


def sizes(height: int, width: int, canvas: int, scales: tuple[float, ...]) -> list[tuple[int, int]]:
  """The (height, width) that a crop may have, pixels; equally probable, some may be equal.

  Args:
    height: of the frame, pixels.
    width: of the frame, pixels.
    canvas: side, pixels; a side of nearly that size becomes it, so that less is resized.
    scales: fractions of the frame's short side, falling.
  """
  short = min(height, width)
  sides = [max(1, int(short * scale)) for scale in scales]
  sides = [canvas if abs(side - canvas) <= SNAP and canvas <= short else side for side in sides]
  numbered = list(enumerate(sides))
  return [(h, w) for i, h in numbered for j, w in numbered if abs(i - j) <= MOST_DISTORTED]


def draw(
  height: int, width: int, canvas: int, scales: tuple[float, ...], generator: np.random.Generator
) -> Crop:
  """Draws a crop of a frame of height x width pixels; arguments as for `sizes`."""
  possible = sizes(height, width, canvas, scales)
  crop_height, crop_width = possible[generator.integers(len(possible))]
  down, right = POINTS[generator.integers(len(POINTS))]
  top, left = down * ((height - crop_height) // 4), right * ((width - crop_width) // 4)
  return Crop(top, left, crop_height, crop_width)


def centre(height: int, width: int) -> Crop:
  """The largest square in the middle of a frame of height x width pixels."""
  short = min(height, width)
  return Crop((height - short) // 2, (width - short) // 2, short, short)


def cut(frame: np.ndarray, crop: Crop, flip: bool, out: np.ndarray) -> None:
  """Resizes a crop of a frame to the whole canvas, in place.

  OpenCV's INTER_AREA where both sides shrink, which does not alias; else INTER_LINEAR.

  Args:
    frame: (h, w, 3) uint8.
    crop: inside the frame.
    flip: mirror left and right.
    out: (H, W, 3) uint8, contiguous.
  """
  picture = frame[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
  shrinks = crop.height > out.shape[0] and crop.width > out.shape[1]
  method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  cv2.resize(picture, out.shape[1::-1], dst=out, interpolation=method)
  if flip:
    cv2.flip(out, 1, dst=out)
