"""The chart: bars as long as their values, in falling order, and a line at the mean."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from evad_jax.visualization import bar_chart
from evad_jax.visualization.bar_chart import Bar

BARS = [Bar('walk', 0.25, 10), Bar('stand', 1.0, 2000), Bar('swim', None, 0), Bar('run', 0.0, 3)]


def runs(picture, colour):
  """The number of pixels of a colour, for every row of the picture."""
  return (picture == np.array(ImageColor.getrgb(colour))).all(axis=2).sum(axis=1)


def test_lengths_and_order():
  picture = np.array(bar_chart.draw('mAP 41.67', 0.4, BARS))
  lengths = runs(picture, bar_chart.BAR_COLOUR)
  top = bar_chart.MARGIN + 2 * bar_chart.ROW + 8
  middles = [top + bar_chart.ROW * row + bar_chart.ROW // 2 for row in range(3)]
  # The mean's line of two pixels lies over the longest bar; ends of a bar are drawn.
  assert lengths[middles].tolist() == pytest.approx([480 - 2, 120, 1], abs=1.5)
  columns = np.flatnonzero(
    (picture[middles[0]] == np.array(ImageColor.getrgb(bar_chart.MEAN_COLOUR))).all(axis=1)
  )
  left = np.flatnonzero(
    (picture[middles[0]] == np.array(ImageColor.getrgb(bar_chart.BAR_COLOUR))).all(axis=1)
  )[0]
  assert columns.mean() - left == pytest.approx(0.4 * 480, abs=2)


def test_file(tmp_path):
  path = tmp_path / 'new' / 'bars.png'
  bar_chart.write_bar_chart(path, 'mAP 41.67', 0.4, BARS)
  with Image.open(path) as picture:
    assert picture.format == 'PNG'
    np.testing.assert_array_equal(picture, bar_chart.draw('mAP 41.67', 0.4, BARS))
  assert list(path.parent.iterdir()) == [path]


def test_nothing_to_show():
  picture = np.array(bar_chart.draw('mAP -', 0.0, [Bar('swim', None, 0)]))
  assert not runs(picture, bar_chart.BAR_COLOUR).any()
