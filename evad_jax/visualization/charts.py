"""Charts: the average precision of every class, and cost against keep rate.

Drawn by matplotlib, which comes with the extra `plots` and is imported only to draw.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from evad_jax.errors import InputError
from evad_jax.files import atomic_files
from evad_jax.visualization import drawing

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

FONT_SIZE = 14  # pixels


class Bar(NamedTuple):
  """One class."""

  name: str
  value: float | None  # in [0, 1]; None without ground truth: named below the bars
  num_truth: int


class Panel(NamedTuple):
  """One kind of cost."""

  title: str  # with its unit
  lines: Mapping[str, Sequence[tuple[float, float]]]  # name -> keep rates in (0, 1] and costs


def panel(
  title: str, rows: Sequence[Any], name: Callable[[Any], str], cost: Callable[[Any], float]
) -> Panel:
  """A line through the costs of the rows of each name; a row has a `keep_rate`."""
  lines: dict[str, list[tuple[float, float]]] = {}
  for row in rows:
    lines.setdefault(name(row), []).append((row.keep_rate, cost(row)))
  return Panel(title, lines)


def check_installed(path: Path | None) -> None:
  """Raises InputError where a chart is to be written, at `path`, and matplotlib is missing."""
  if path and importlib.util.find_spec('matplotlib') is None:
    raise InputError(
      'matplotlib is needed for charts and is not installed; install it with '
      "`python -m pip install 'evad_jax[plots]'`, or leave --plot out."
    )


def bar_chart(title: str, mean: float, bars: Sequence[Bar]) -> 'Figure':
  """Draws the bars in falling order, with the mean as a line and ground-truth counts."""
  shown = sorted((bar for bar in bars if bar.value is not None), key=lambda bar: -bar.value)
  figure = _figure(title, 7.2, 1.4 + 0.22 * len(shown))
  axes = figure.subplots()
  rows, percent = range(len(shown)), [100 * bar.value for bar in shown]
  drawn = axes.barh(rows, percent, 0.7)
  counts = [f'{x:.1f}   ({bar.num_truth:,})' for x, bar in zip(percent, shown, strict=True)]
  axes.bar_label(drawn, counts, padding=4)
  axes.axvline(100 * mean, color='C3')
  axes.spines[['top', 'right']].set_visible(False)  # numbers reach beyond
  note = 'average precision in percent (ground-truth count); red: mean'
  if len(shown) < len(bars):
    note += f'\n{len(bars) - len(shown)} classes without ground truth are not shown'
  axes.set(xlabel=note, xlim=(0, 100), ylim=(max(len(shown), 1) - 0.5, -0.5))
  _name_rows(axes, [bar.name for bar in shown])
  return figure


def cost_chart(title: str, panels: Sequence[Panel]) -> 'Figure':
  """Draws the panels side by side; lines with the same name share a colour.

  Axes start at zero, so that lengths can be compared.
  """
  names = list(dict.fromkeys(name for kind in panels for name in kind.lines))
  colours = {name: f'C{number}' for number, name in enumerate(names)}
  figure = _figure(title, 4.5 * len(panels), 3.8 + 0.22 * len(names))
  handles = {}
  for axes, kind in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
    for name, points in kind.lines.items():
      rates, costs = zip(*sorted(points), strict=True)
      handles[name] = axes.plot(rates, costs, 'o-', color=colours[name])[0]
    ticks = sorted({rate for points in kind.lines.values() for rate, _ in points})
    axes.set_title(kind.title, loc='left', fontsize='medium')
    axes.set(xlabel='keep rate', xlim=(0, 1.05), xticks=ticks)
    axes.set_ylim(bottom=0)
    axes.grid(axis='y')
  if names:
    legend = figure.legend(
      [handles[name] for name in names], names, loc='outside lower left', frameon=False
    )
    for text in legend.get_texts():
      text.set_parse_math(False)
  return figure


def write(path: str | os.PathLike, figure: 'Figure') -> None:
  """Writes a figure as PNG; atomically."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  pixels = np.asarray(canvas.buffer_rgba())[..., :3]
  drawing.write_picture(path, Image.fromarray(np.ascontiguousarray(pixels)))


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
      write(picture, cost_chart(title, panels))
  except OSError as error:
    raise InputError(
      f'{error.filename}: cannot be written ({error.strerror}); choose another file.'
    ) from error


def _figure(title: str, width: float, height: float) -> 'Figure':
  """An empty figure of this size in inches; no '$' in the title starts a formula."""
  from matplotlib.figure import Figure

  figure = Figure((width, height), layout='constrained')
  figure.suptitle(title, x=0.01, ha='left', fontsize='medium', wrap=True, parse_math=False)
  return figure


def _name_rows(axes: 'Axes', names: Sequence[str]) -> None:
  """Names the rows of a chart; those with letters that matplotlib's font lacks, by pictures."""
  from matplotlib import font_manager, offsetbox

  font = font_manager.get_font(font_manager.findfont(None))
  texts = [name if all(font.get_char_index(ord(x)) for x in name) else '' for name in names]
  axes.set_yticks(range(len(names)), texts, parse_math=False)
  for row in [row for row, text in enumerate(texts) if not text]:
    picture = offsetbox.OffsetImage(_lettering(names[row]), zoom=1, dpi_cor=False)
    axes.add_artist(
      offsetbox.AnnotationBbox(
        picture,
        (0, row),
        (-6, 0),
        xycoords=('axes fraction', 'data'),
        boxcoords='offset points',
        box_alignment=(1, 0.5),
        frameon=False,
        pad=0,
      )
    )


def _lettering(text: str) -> np.ndarray:
  """The text in black on white, in any script: (height, width, 3) uint8."""
  font = drawing.font_of(FONT_SIZE)
  size = int(font.getlength(text)) + 2, drawing.line_height(FONT_SIZE)
  picture = Image.new('RGB', size, 'white')
  font.write(ImageDraw.Draw(picture), (1, 0), text, 'black')
  return np.asarray(picture)
