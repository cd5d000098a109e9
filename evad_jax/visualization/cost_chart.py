"""A line chart of cost against keep rate: multiply-adds and time."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from evad_jax.errors import InputError
from evad_jax.files import atomic_files
from evad_jax.visualization.drawing import font_of, write_picture
from evad_jax.visualization.lettering import Font

FONT_SIZE = 14
WIDTH, HEIGHT = 380, 260  # pixels of one panel
MARGIN, LEFT, ROW = 20, 64, 20  # pixels: outer margin, room for a panel's numbers, line height
INK, PALE = '#202020', '#d8d8d8'
COLOURS = ('#3b75af', '#c44e25', '#4f8a3c', '#8256a5', '#a8862b', '#4b9c9c', '#b4558a', '#666666')


class Line(NamedTuple):
  """One model on one canvas."""

  name: str
  points: Sequence[tuple[float, float]]  # keep rate in (0, 1], cost


class Panel(NamedTuple):
  """One kind of cost."""

  title: str  # with its unit
  lines: Sequence[Line]


def write_files(
  figures: Path | None,
  picture: Path | None,
  title: str,
  rows: Sequence[NamedTuple],
  panels: Sequence[Panel],
) -> None:
  """Writes the rows as JSON and the panels as a PNG, each if its path is given.

  Raises InputError if a file cannot be written.
  """
  try:
    if figures:
      atomic_files.write_json(figures, [row._asdict() for row in rows])
    if picture:
      write_cost_chart(picture, title, panels)
  except OSError as error:
    raise InputError(
      f'{error.filename}: cannot be written ({error.strerror}); choose another file.'
    ) from error


def write_cost_chart(path: str | os.PathLike, title: str, panels: Sequence[Panel]) -> None:
  """Writes a PNG of the panels side by side; lines with the same name share a colour."""
  write_picture(path, draw(title, panels))


def draw(title: str, panels: Sequence[Panel]) -> Image.Image:
  """Draws the chart."""
  font = font_of(FONT_SIZE)
  names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
  colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
  width = max(len(panels) * (LEFT + WIDTH + MARGIN), int(font.getlength(title))) + MARGIN
  top = MARGIN + 3 * ROW
  bottom = top + HEIGHT
  picture = Image.new('RGB', (width, bottom + (len(names) + 3) * ROW), 'white')
  pen = ImageDraw.Draw(picture)
  font.write(pen, (MARGIN, MARGIN - 6), title, INK)
  for number, panel in enumerate(panels):
    _draw_panel(pen, font, panel, number * (LEFT + WIDTH + MARGIN) + LEFT, top, colours)
  for row, name in enumerate(names):
    y = bottom + (row + 2) * ROW + ROW / 2
    pen.line((MARGIN, y, MARGIN + 24, y), colours[name], 3)
    font.write(pen, (MARGIN + 32, y), name, INK, 'lm')
  return picture


def _draw_panel(
  pen: ImageDraw.ImageDraw,
  font: Font,
  panel: Panel,
  left: int,
  top: int,
  colours: dict[str, str],
) -> None:
  """Draws the lines and axes that start at zero, so that lengths can be compared."""
  points = [point for line in panel.lines for point in line.points]
  highest = _round_up(max((cost for _, cost in points), default=1.0))
  bottom = top + HEIGHT
  font.write(pen, (left, top - ROW), panel.title, INK)
  for part in range(5):
    y = bottom - HEIGHT * part / 4
    pen.line((left, y, left + WIDTH, y), PALE)
    font.write(pen, (left - 8, y), f'{highest * part / 4:g}', INK, 'rm')
  for rate in sorted({rate for rate, _ in points}):
    font.write(pen, (left + WIDTH * rate, bottom + 6), f'{rate:g}', INK, 'mt')
  font.write(pen, (left, bottom + 6), 'keep rate', INK, 'lt')
  for line in panel.lines:
    places = [
      (left + WIDTH * rate, bottom - HEIGHT * cost / highest) for rate, cost in sorted(line.points)
    ]
    pen.line(places, colours[line.name], 2)
    for x, y in places:
      pen.ellipse((x - 4, y - 4, x + 4, y + 4), colours[line.name])


def _round_up(value: float) -> float:
  """The next of 1, 2, 4, 8 times a power of ten, whose quarters are short numbers."""
  if value <= 0:
    return 1.0
  scale = 1.0
  while scale > value:
    scale /= 10
  while 10 * scale <= value:
    scale *= 10
  return next(step * scale for step in (1, 2, 4, 8, 10) if step * scale >= value)
