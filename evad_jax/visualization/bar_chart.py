"""A bar chart of the average precision of every class."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from evad_jax.visualization.drawing import font_of, write_picture

FONT_SIZE = 14
ROW = 22  # pixels from one bar to the next
BAR = 15  # pixels, thickness of a bar
LENGTH = 480  # pixels of an average precision of 1
MARGIN = 16
INK, PALE, BAR_COLOUR, MEAN_COLOUR = '#202020', '#d8d8d8', '#3b75af', '#c44e25'


class Bar(NamedTuple):
  """One class."""

  name: str
  value: float | None  # in [0, 1]; None without ground truth: named below the bars
  num_truth: int


def write_bar_chart(path: str | os.PathLike, title: str, mean: float, bars: Sequence[Bar]) -> None:
  """Writes a PNG of the bars in falling order, with the mean as a line and ground-truth counts."""
  write_picture(path, draw(title, mean, bars))


def draw(title: str, mean: float, bars: Sequence[Bar]) -> Image.Image:
  """Draws the chart."""
  font = font_of(FONT_SIZE)
  shown = sorted((bar for bar in bars if bar.value is not None), key=lambda bar: -bar.value)
  absent = len(bars) - len(shown)
  left = MARGIN + max([font.getlength(bar.name) for bar in shown], default=0) + 8
  counts = [f'{100 * bar.value:.1f}   ({bar.num_truth:,})' for bar in shown]
  right = max([font.getlength(text) for text in counts], default=0) + 12
  top = MARGIN + 2 * ROW + 8
  size = (int(left + LENGTH + right + MARGIN), top + ROW * (len(shown) + 2))
  size = (max(size[0], int(font.getlength(title)) + 2 * MARGIN), size[1])
  picture = Image.new('RGB', size, 'white')
  pen = ImageDraw.Draw(picture)
  font.write(pen, (MARGIN, MARGIN - 4), title, INK)
  bottom = top + ROW * len(shown)
  for tenth in range(0, 11, 2):
    x = left + LENGTH * tenth / 10
    pen.line((x, top - 4, x, bottom), PALE)
    font.write(pen, (x, top - 6), f'{10 * tenth}', INK, 'mb')
  for row, (bar, count) in enumerate(zip(shown, counts, strict=True)):
    middle = top + ROW * row + ROW / 2
    end = left + LENGTH * bar.value
    pen.rectangle((left, middle - BAR / 2, end, middle + BAR / 2), BAR_COLOUR)
    font.write(pen, (left - 8, middle), bar.name, INK, 'rm')
    font.write(pen, (end + 6, middle), count, INK, 'lm')
  x = left + LENGTH * mean
  pen.line((x, top - 4, x, bottom), MEAN_COLOUR, 2)
  note = 'after each bar: average precision in percent (ground-truth count); red: mean'
  if absent:
    note += f'; {absent} classes without ground truth are not shown'
  font.write(pen, (MARGIN, bottom + 10), note, INK)
  return picture
