"""Paints what happened to tokens onto a frame: dropped ones dimmed, or a heat map.

Frames are enlarged or reduced first and painted then, so that the edges of tokens stay sharp.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

GONE_COLOUR = (34, 36, 42)  # of tokens that are not there any more
GONE_SHARE = 0.78  # of that colour in a dropped token; the rest is the grey of the frame
HATCH = 6  # pixels from one line of the hatching to the next
HATCH_LIGHT = 14  # grey levels by which they are lighter; dark frames would hide what is dropped
FAINTEST = 0.7  # what is left of a heat map's colour where the frame is black
GREY = (0.299, 0.587, 0.114)  # of red, green and blue
# From little to much, all of them brighter than what is gone.
HEAT = (
  (54, 72, 176),
  (44, 138, 200),
  (92, 196, 160),
  (222, 218, 92),
  (250, 150, 40),
  (226, 44, 40),
)
MOST_OCTAVES = 5


def enlarge(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """(H, W, 3) uint8, enlarged or reduced -> (height, width, 3) uint8 of `size` (width, height)."""
  larger = size[0] > frame.shape[1]
  resample = Image.Resampling.BICUBIC if larger else Image.Resampling.LANCZOS
  return np.array(Image.fromarray(np.ascontiguousarray(frame)).resize(size, resample))


def dim_dropped(
  frame: np.ndarray, kept: np.ndarray, patch: int, size: tuple[int, int]
) -> np.ndarray:
  """The frame with the pixels of dropped tokens dimmed and all others as they are.

  Args:
    frame: (H, W, 3) uint8 RGB.
    kept: (h, w) bool; token (0, 0) begins at the top left corner.
    patch: height and width of a token, pixels of the frame.
    size: width and height of the result.

  Returns:
    (height, width, 3) uint8.
  """
  pixels = enlarge(frame, size)
  dropped = ~_spread(kept, frame.shape, patch, size)
  grey = pixels[dropped] @ np.array(GREY)
  dimmed = GONE_SHARE * np.array(GONE_COLOUR) + (1 - GONE_SHARE) * grey[:, None]
  dimmed[(np.add(*np.nonzero(dropped)) % HATCH) == 0] += HATCH_LIGHT
  pixels[dropped] = dimmed.round().astype(np.uint8)
  return pixels


def relative(importance: np.ndarray) -> np.ndarray:
  """Importance in octaves above its mean: 1 is twice the mean; NaN stays, 0 becomes -inf."""
  with np.errstate(divide='ignore'):
    return np.log2(importance / np.nanmean(importance))


def octaves_of(stages: Sequence[np.ndarray]) -> int:
  """How far a scale has to reach, up and down, for nearly all of what `relative` gave."""
  values = np.concatenate([stage[np.isfinite(stage)] for stage in stages])
  far = np.percentile(np.abs(values), 98) if values.size else 1
  return int(np.clip(np.ceil(far), 1, MOST_OCTAVES))


def heat(
  frame: np.ndarray, importance: np.ndarray, patch: int, size: tuple[int, int], octaves: int
) -> np.ndarray:
  """The frame in the colours of its tokens' importance, as light as it is; dark where that is NaN.

  Args:
    frame: (H, W, 3) uint8 RGB.
    importance: (h, w), in octaves, as `relative` gives it.
    patch: height and width of a token, pixels of the frame.
    size: width and height of the result.
    octaves: where the scale ends; what is beyond has the colour of its end.

  Returns:
    (height, width, 3) uint8.
  """
  pixels = enlarge(frame, size)
  gone = _spread(np.isnan(importance), frame.shape, patch, size)
  colours = heat_colours(np.nan_to_num(importance, nan=0.0, neginf=-octaves), octaves)
  colours = _spread(colours, frame.shape, patch, size)
  light = FAINTEST + (1 - FAINTEST) / 255 * (pixels @ np.array(GREY))
  pixels = (colours * light[..., None]).round().astype(np.uint8)
  pixels[gone] = GONE_COLOUR
  return pixels


def heat_colours(importance: np.ndarray, octaves: int) -> np.ndarray:
  """(...) in octaves -> (..., 3) RGB, 0 to 255, not rounded."""
  place = (np.clip(importance / octaves, -1, 1) + 1) / 2 * (len(HEAT) - 1)
  colours = np.array(HEAT, float)
  channels = [np.interp(place, np.arange(len(HEAT)), colours[:, c]) for c in range(3)]
  return np.stack(channels, axis=-1)


def _spread(
  tokens: np.ndarray, shape: tuple[int, ...], patch: int, size: tuple[int, int]
) -> np.ndarray:
  """(h, w, ...) values of tokens -> (height, width, ...), for each pixel that of its token."""
  row, column = (
    ((np.arange(long) + 0.5) * (side / long) // patch).astype(int)
    for side, long in zip(shape[:2], (size[1], size[0]), strict=True)
  )
  return tokens[row[:, None], column]
