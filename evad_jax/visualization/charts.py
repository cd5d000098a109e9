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
  from matplotlib.offsetbox import OffsetBox

FONT_SIZE = 14  # pixels
DPI = 100
NAME_WIDTH = 300  # of a class, pixels, at most


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
      '`python -m pip install matplotlib`, or leave --plot out.'
    )


def bar_chart(title: str, mean: float, bars: Sequence[Bar]) -> 'Figure':
  """Draws the bars in falling order, with the mean as a line and ground-truth counts."""
  shown = sorted((bar for bar in bars if bar.value is not None), key=lambda bar: -bar.value)
  names = [_fitted(bar.name, NAME_WIDTH) for bar in shown]
  room = max([drawing.font_of(FONT_SIZE).getlength(name) for name in names], default=0)
  figure = _figure(title, 5.8 + room / DPI, 1.4 + 0.22 * len(shown))
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
  _name_rows(axes, names)
  return figure


def cost_chart(title: str, panels: Sequence[Panel]) -> 'Figure':
  """Draws the panels side by side; lines with the same name share a colour.

  Axes start at zero, so that lengths can be compared.
  """
  names = list(dict.fromkeys(name for kind in panels for name in kind.lines))
  colours = {name: f'C{number}' for number, name in enumerate(names)}
  figure = _figure(title, 4.5 * len(panels), 3.8 + 0.22 * len(names), colours)
  for axes, kind in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
    for name, points in kind.lines.items():
      rates, costs = zip(*sorted(points), strict=True)
      axes.plot(rates, costs, 'o-', color=colours[name])
    ticks = sorted({rate for points in kind.lines.values() for rate, _ in points})
    axes.set_title(kind.title, loc='left', fontsize='medium')
    axes.set(xlabel='keep rate', xlim=(0, 1.05), xticks=ticks)
    axes.set_ylim(bottom=0)
    axes.grid(axis='y')
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


def _figure(
  title: str, width: float, height: float, legend: Mapping[str, str] | None = None
) -> 'Figure':
  """An empty figure of this size in inches, with a title above and a legend (name -> colour) below.

  Both may be in any script; what is too long is truncated.
  """
  from matplotlib import lines, offsetbox
  from matplotlib.figure import Figure

  figure = Figure((width, height), dpi=DPI, layout='constrained')
  room = DPI * width - 60
  rows = []
  for name, colour in (legend or {}).items():
    handle = offsetbox.DrawingArea(20, 10)
    handle.add_artist(lines.Line2D([0, 10, 20], [4, 4, 4], color=colour, marker='o'))
    rows.append(
      offsetbox.HPacker(children=[handle, _words(_fitted(name, room))], align='center', sep=6)
    )
  parts = [('upper left', [_words(_fitted(title, room))]), ('lower left', rows)]
  for place, children in parts[: 1 + bool(rows)]:
    box = offsetbox.VPacker(children=children, sep=2)
    figure.add_artist(
      offsetbox.AnchoredOffsetbox(
        place,
        child=box,
        frameon=False,
        bbox_to_anchor=(0, 0, 1, 1),
        bbox_transform=figure.transFigure,
      )
    )
  line = 1.4 * drawing.line_height(FONT_SIZE) / DPI / height
  figure.get_layout_engine().set(rect=(0, len(rows) * line, 1, 1 - (len(rows) + 1) * line))
  return figure


def _fitted(text: str, width: float) -> str:
  return drawing.fit(text, width, drawing.font_of(FONT_SIZE))


def _words(text: str) -> 'OffsetBox':
  """The text as it is, without formulas; a picture of it where matplotlib's font lacks a letter."""
  from matplotlib import font_manager, offsetbox

  font = font_manager.get_font(font_manager.findfont(None))
  if all(font.get_char_index(ord(x)) for x in text):
    return offsetbox.TextArea(text, textprops={'parse_math': False})
  return offsetbox.OffsetImage(_lettering(text), zoom=1, dpi_cor=False)


def _name_rows(axes: 'Axes', names: Sequence[str]) -> None:
  """Names the rows of a chart, to the left of its axis."""
  from matplotlib import offsetbox

  axes.set_yticks(range(len(names)), [''] * len(names))
  for row, name in enumerate(names):
    axes.add_artist(
      offsetbox.AnnotationBbox(
        _words(name),
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
