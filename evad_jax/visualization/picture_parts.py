"""Building blocks of token pictures: colours, lines, tiles, animations."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from evad_jax.visualization import drawing

FAINT_COLOUR = (150, 156, 166)
MARK_COLOUR = (255, 158, 44)
FONT_SIZE = 15  # pixels


def write_animation(
  path: str | os.PathLike, pictures: Sequence[Image.Image], milliseconds: int = 250
) -> None:
  """Writes a GIF that loops forever, `milliseconds` per picture; atomically."""
  more = {'save_all': True, 'append_images': pictures[1:], 'duration': milliseconds, 'loop': 0}
  drawing.write_picture(path, pictures[0], format='GIF', **more)


def paste(
  sheet: Image.Image, tile: np.ndarray, left: int, top: int, width: int
) -> tuple[int, int, int, int]:
  """Pastes (height, width, 3) uint8, centred in a column; returns its xyxy, ends excluded."""
  left += (width - tile.shape[1]) // 2
  sheet.paste(Image.fromarray(tile), (left, top))
  return left, top, left + tile.shape[1], top + tile.shape[0]


def mark(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
  """Draws a line around a box, outside it, so that it covers none of it."""
  draw.rectangle((box[0] - 3, box[1] - 3, box[2] + 2, box[3] + 2), outline=MARK_COLOUR, width=2)


def write_line(
  draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, width: float, colour: tuple
) -> None:
  """Writes one line from its top left corner, truncated with an ellipsis at `width` pixels."""
  font = drawing.font_of(FONT_SIZE)
  font.write(draw, xy, drawing.fit(text, width, font), colour)


def line_height() -> int:
  """Line spacing in pixels."""
  return drawing.line_height(FONT_SIZE)
