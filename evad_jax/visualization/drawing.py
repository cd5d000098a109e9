"""Shared by all annotated pictures: fonts, colours, text fitting, positions of panels."""

import bisect
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from evad_jax.files import atomic_files, storage
from evad_jax.visualization.lettering import Font

BACKGROUND = (24, 26, 30)
TEXT_COLOUR = (232, 234, 237)

Panel = tuple[int, int, int, int]  # xyxy pixels, exclusive at the far ends


@functools.cache
def font_of(size: int) -> Font:
  """A font for text `size` pixels high, in any script."""
  return Font(size)


def line_height(font_size: int) -> int:
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
  panels = []
  for x, y in corners:
    x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
    panels.append((x, y, x + width, y + height))
  return min(panels, key=lambda panel: sum(covered(panel, other) for other in taken))


def covered(a: Panel, b: Panel) -> int:
  """Pixels in which two panels overlap."""
  width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
  return max(0, width) * max(0, height)


def write_picture(path: str | os.PathLike, picture: Image.Image, **arguments: Any) -> None:
  """Writes a picture atomically, as PNG unless the arguments of `save` say otherwise."""
  storage.refuse_address(path, 'A picture to write')
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_files.writing(path, 'wb') as file:
    picture.save(file, **{'format': 'PNG'} | arguments)
