"""Paints the state of tokens onto a frame: dropped ones dimmed, or a heat map.

Frames are resized first and painted afterwards, so that the edges of tokens stay sharp.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

GONE_COLOUR = (34, 36, 42)  # of dropped tokens
GONE_SHARE = 0.78  # of that colour in a dropped token; the rest is the grey of the frame
HATCH = 6  # pixels between hatching lines
HATCH_LIGHT = 14  # grey levels by which these are lighter, so that dark frames show what is dropped
FAINTEST = 0.7  # share of a heat map's colour where the frame is black
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue
# From low to high, all brighter than dropped tokens.
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
  """Resizes (H, W, 3) uint8 -> (height, width, 3) uint8; size: (width, height)."""
  larger = size[0] > frame.shape[1]
  resample = Image.Resampling.BICUBIC if larger else Image.Resampling.LANCZOS
  return np.array(Image.fromarray(np.ascontiguousarray(frame)).resize(size, resample))


def dim_dropped(
  frame: np.ndarray, kept: np.ndarray, patch: int, size: tuple[int, int]
) -> np.ndarray:
  """The frame with the pixels of dropped tokens dimmed and all others unchanged.

  Args:
    frame: (H, W, 3) uint8 RGB.
    kept: (h, w) bool; token (0, 0) is at the top left corner.
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
  """The range, up and down, that a scale needs for nearly all values of `relative`."""
  values = np.concatenate([stage[np.isfinite(stage)] for stage in stages])
  far = np.percentile(np.abs(values), 98) if values.size else 1
  return int(np.clip(np.ceil(far), 1, MOST_OCTAVES))


def heat(
  frame: np.ndarray, importance: np.ndarray, patch: int, size: tuple[int, int], octaves: int
) -> np.ndarray:
  """The frame coloured by its tokens' importance, shaded by its brightness; dark for NaN.

  Args:
    frame: (H, W, 3) uint8 RGB.
    importance: (h, w), in octaves, as from `relative`.
    patch: height and width of a token, pixels of the frame.
    size: width and height of the result.
    octaves: where the scale ends; values beyond are clipped.

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
  """(...) in octaves -> (..., 3) RGB, 0 to 255, unrounded."""
  place = (np.clip(importance / octaves, -1, 1) + 1) / 2 * (len(HEAT) - 1)
  colours = np.array(HEAT, float)
  channels = [np.interp(place, np.arange(len(HEAT)), colours[:, c]) for c in range(3)]
  return np.stack(channels, axis=-1)


def _spread(
  tokens: np.ndarray, shape: tuple[int, ...], patch: int, size: tuple[int, int]
) -> np.ndarray:
  """(h, w, ...) token values -> (height, width, ...), each pixel with its token's value."""
  row, column = (
    ((np.arange(long) + 0.5) * (side / long) // patch).astype(int)
    for side, long in zip(shape[:2], (size[1], size[0]), strict=True)
  )
  return tokens[row[:, None], column]
