"""Building blocks of pictures: fonts, colours, text, tiles, positions of panels, files."""

import bisect
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from evad_jax.files import atomic_files, storage
from evad_jax.visualization.lettering import Font

BACKGROUND = (24, 26, 30)
TEXT_COLOUR = (232, 234, 237)
FAINT_COLOUR = (150, 156, 166)
MARK_COLOUR = (255, 158, 44)
FONT_SIZE = 15  # pixels

Panel = tuple[int, int, int, int]  # xyxy pixels, exclusive at the far ends


@functools.cache
def font_of(size: int) -> Font:
  """A font for text `size` pixels high, in any script."""
  return Font(size)


def line_height(font_size: int = FONT_SIZE) -> int:
  """Line spacing in pixels."""
  return sum(font_of(font_size).getmetrics()) + 1


def fit(text: str, width: float, font: Font) -> str:
  """Truncates the text with an ellipsis if it is wider than `width` pixels."""
  if font.getlength(text) <= width:
    return text
  lengths = range(len(text))
  room = bisect.bisect_right(lengths, width, key=lambda n: font.getlength(text[:n] + '...')) - 1
  return text[: max(room, 0)].rstrip() + '...'


def free_place(
  box: Sequence[int],  # xyxy pixels
  width: int,  # of the panel
  height: int,
  size: tuple[int, int],  # width and height of the picture
  taken: Sequence[Panel],
) -> Panel:
  """Finds a position for a panel that belongs to a box.

  The first position along the box's edges, moved into the picture, that overlaps `taken` least.
  """
  x1, y1, x2, y2 = (int(x) for x in box)
  corners = [(x, y) for y in (y1, y2 - height + 1) for x in (x1, x2 - width + 1)]
  corners += [(x, y) for x in (x1, x2 - width + 1) for y in range(y1 + height, y2 - height, height)]
  return least_covered(corners, width, height, size, taken)


def least_covered(
  corners: Sequence[tuple[int, int]],
  width: int,
  height: int,
  size: tuple[int, int],
  taken: Sequence[Panel],
) -> Panel:
  """The first panel at one of the corners, moved into the picture, that overlaps `taken` least."""
  panels = []
  for x, y in corners:
    x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
    panels.append((x, y, min(size[0], x + width), min(size[1], y + height)))
  return min(panels, key=lambda panel: sum(covered(panel, other) for other in taken))


def covered(a: Panel, b: Panel) -> int:
  """Pixels in which two panels overlap."""
  width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
  return max(0, width) * max(0, height)


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
  font = font_of(FONT_SIZE)
  font.write(draw, xy, fit(text, width, font), colour)


def write_picture(path: str | os.PathLike, picture: Image.Image, **arguments: Any) -> None:
  """Writes a picture atomically, as PNG unless the arguments of `save` say otherwise."""
  storage.refuse_address(path, 'A picture to write')
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_files.writing(path, 'wb') as file:
    picture.save(file, **{'format': 'PNG'} | arguments)


def write_animation(
  path: str | os.PathLike, pictures: Sequence[Image.Image], milliseconds: int = 250
) -> None:
  """Writes a GIF that loops forever, `milliseconds` per picture; atomically."""
  more = {'save_all': True, 'append_images': pictures[1:], 'duration': milliseconds, 'loop': 0}
  write_picture(path, pictures[0], format='GIF', **more)
