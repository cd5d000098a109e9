"""Charts: the data that is drawn, and what is said where matplotlib is missing."""

import sys
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.offsetbox import AnnotationBbox, DrawingArea, OffsetImage, TextArea
from PIL import Image

from evad_jax.errors import InputError
from evad_jax.tools import benchmark, compare_keep_rates, score
from evad_jax.visualization import charts
from evad_jax.visualization.charts import Bar, Panel

BARS = [Bar('walk', 0.25, 10), Bar('stand', 1.0, 2000), Bar('swim', None, 0), Bar('run', 0.0, 3)]
CHINESE = '\u8d70\u8def'


def words(artist):
  """The texts in an artist, in order; a picture of a text is None."""
  if isinstance(artist, TextArea | OffsetImage):
    return [artist.get_text() if isinstance(artist, TextArea) else None]
  return [text for child in artist.get_children() for text in words(child)]


def test_bars_fall_with_names_counts_and_mean():
  figure = charts.bar_chart('mAP 41.67', 0.4, BARS)
  (axes,) = figure.axes
  assert [bar.get_width() for bar in axes.patches] == [100, 25, 0]
  assert [bar.get_y() + bar.get_height() / 2 for bar in axes.patches] == pytest.approx([0, 1, 2])
  assert words(axes) == ['stand', 'walk', 'run']
  assert axes.get_yticks().tolist() == [0, 1, 2] and axes.get_ylim() == (2.5, -0.5)  # downwards
  counts = [text.get_text() for text in axes.texts]
  assert counts == ['100.0   (2,000)', '25.0   (10)', '0.0   (3)']
  (mean,) = axes.lines
  assert list(mean.get_xdata()) == [40, 40]
  assert words(figure)[0] == 'mAP 41.67'
  assert '1 classes without ground truth are not shown' in axes.get_xlabel()


def test_no_bar_without_ground_truth():
  (axes,) = charts.bar_chart('mAP -', 0.0, [Bar('swim', None, 0)]).axes
  assert not axes.patches and not words(axes)


def test_texts_that_matplotlib_has_no_letters_for_are_pictures():
  bars = [Bar('\u00fcber $x$ or $y$', 0.75, 1), Bar(CHINESE, 0.5, 1), Bar('run', 0.25, 1)]
  figure = charts.bar_chart(f'mAP {CHINESE}', 0.5, bars)
  (axes,) = figure.axes
  assert words(axes) == ['\u00fcber $x$ or $y$', None, 'run']
  picture = [child for child in axes.get_children() if isinstance(child, AnnotationBbox)][1]
  assert picture.xy == (0, 1)
  np.testing.assert_array_equal(picture.offsetbox.get_data(), charts._lettering(CHINESE))
  assert [text for text in words(figure) if text is None] == [None, None]  # the title, and a row
  lines = {CHINESE: [(1.0, 1.0)], '$a$': [(1.0, 2.0)]}
  assert words(charts.cost_chart('costs', [Panel('cost', lines)])) == ['costs', None, '$a$']


@pytest.mark.parametrize('name', ['w' * 90, CHINESE * 60])
def test_long_texts_leave_room_for_what_is_drawn(tmp_path, recwarn, name):
  widths = []
  for text in ('run', name):
    figure = charts.bar_chart(text, 0.5, [Bar(text, 0.5, 1)])
    charts.write(tmp_path / 'bars.png', figure)
    widths.append(figure.axes[0].get_window_extent().width)
    charts.write(tmp_path / 'costs.png', charts.cost_chart(text, [Panel('', {text: [(1, 1)]})]))
  assert widths[1] == pytest.approx(widths[0], abs=20) and widths[0] > 400
  assert not recwarn.list  # of a layout that does not fit, or of letters that are missing


def test_lines_are_the_costs_in_order_of_their_rates():
  panels = [Panel('cost', {'_one': [(1.0, 400.0), (0.5, 100.0)], 'two': [(0.25, 0.0)]})]
  panels += [Panel('empty', {}), Panel('other', {'two': [(0.7, 3.0)]})]
  figure = charts.cost_chart('costs', panels)
  first, empty, other = figure.axes
  assert [axes.get_title('left') for axes in figure.axes] == ['cost', 'empty', 'other']
  drawn = [line.get_xydata().tolist() for line in first.lines]
  assert drawn == [[[0.5, 100], [1, 400]], [[0.25, 0]]]
  assert first.get_xticks().tolist() == [0.25, 0.5, 1] and not empty.lines
  assert [axes.get_ylim()[0] for axes in figure.axes] == [0, 0, 0]
  assert other.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
  assert words(figure) == ['costs', '_one', 'two']
  handles = figure.findobj(lambda artist: isinstance(artist, DrawingArea))
  colours = [handle.get_children()[0].get_color() for handle in handles]
  assert colours == [line.get_color() for line in first.lines]


def test_rows_become_lines_by_their_names():
  class Row(NamedTuple):
    name: str
    keep_rate: float
    seconds: float

  rows = [Row('a', 1.0, 2.0), Row('b', 1.0, 3.0), Row('a', 0.5, 1.0)]
  panel = charts.panel('ms', rows, lambda row: row.name, lambda row: 1e3 * row.seconds)
  assert panel == Panel('ms', {'a': [(1.0, 2000.0), (0.5, 1000.0)], 'b': [(1.0, 3000.0)]})


def test_a_file_is_written_whole(tmp_path):
  path = tmp_path / 'new' / 'bars.png'
  charts.write(path, charts.bar_chart('mAP 41.67', 0.4, BARS))
  assert list(path.parent.iterdir()) == [path]
  with Image.open(path) as picture:
    assert (picture.format, picture.mode) == ('PNG', 'RGB')
    colours = {colour for _, colour in picture.getcolors(1 << 16)}
  assert {(31, 119, 180), (214, 39, 40)} <= colours  # matplotlib's first and fourth: bars and mean


def test_commands_say_that_matplotlib_is_missing(tmp_path, monkeypatch):
  """Before they read, compile or evaluate anything."""
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  plot = ['--plot', str(tmp_path / 'x.png')]
  files = ['--protocol', 'frame', '--groundtruth', 'none.csv', '--detections', 'none.csv']
  for command, arguments in (
    (score, files),
    (benchmark, ['--sizes', 'small']),
    (compare_keep_rates, ['none', '--config=configs/demo.py']),
  ):
    with pytest.raises(InputError, match='^matplotlib is needed .* -m pip install matplotlib`'):
      command.main([*arguments, *plot])
  with pytest.raises(InputError, match=r'none\.csv'):  # without a chart, nothing needs it
    score.main(files)
