"""The positions of the points in the cost chart, and the file."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from evad_jax.visualization import cost_chart
from evad_jax.visualization.cost_chart import HEIGHT, LEFT, MARGIN, ROW, WIDTH, Line, Panel

TOP = MARGIN + 3 * ROW


def coloured(picture, number):
  """Pixels (y, x) of a line's colour inside the panels."""
  same = np.asarray(picture) == ImageColor.getrgb(cost_chart.COLOURS[number])
  same[TOP + HEIGHT + 10 :] = False
  return np.argwhere(same.all(axis=-1))


def test_points_stand_at_their_rate_and_cost():
  lines = [Line('one', [(0.5, 100.0), (1.0, 400.0)]), Line('two', [(0.25, 0.0)])]
  picture = cost_chart.draw('costs', [Panel('cost', lines), Panel('other', [])])
  one, two = coloured(picture, 0), coloured(picture, 1)
  # 400 is the top of the axis: the first point is a quarter up, the last in the corner.
  np.testing.assert_allclose(one.min(axis=0), [TOP - 4, LEFT + WIDTH / 2 - 4], atol=1)
  np.testing.assert_allclose(one.max(axis=0), [TOP + 0.75 * HEIGHT + 4, LEFT + WIDTH + 4], atol=1)
  np.testing.assert_allclose(two.mean(axis=0), [TOP + HEIGHT, LEFT + WIDTH / 4], atol=1)


@pytest.mark.parametrize(
  'value, wanted', [(0.03, 0.04), (1, 1), (243.0, 400), (7.5, 8), (9, 10), (0, 1)]
)
def test_axis_ends_at_a_round_number(value, wanted):
  assert cost_chart._round_up(value) == pytest.approx(wanted)


def test_a_file_is_written_whole(tmp_path):
  panels = [Panel('cost', [Line('one', [(0.5, 100.0)])])]
  cost_chart.write_cost_chart(tmp_path / 'new' / 'chart.png', 'a title', panels)
  (path,) = (tmp_path / 'new').iterdir()
  assert path.name == 'chart.png'
  np.testing.assert_array_equal(Image.open(path), cost_chart.draw('a title', panels))
