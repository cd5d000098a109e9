"""Position tables by their formula, and their resizing against OpenCV and by hand."""

import math

import cv2
import numpy as np
import pytest

from evad_jax.model.position_embedding import bicubic_matrix, position_table, sincos_table


def test_table_by_formula():
  table = sincos_table(40, 6)
  for p in (0, 1, 17, 39):
    for j in range(6):
      angle = p / 10000 ** (2 * (j // 2) / 6)
      wanted = math.sin(angle) if j % 2 == 0 else math.cos(angle)
      assert table[p, j] == pytest.approx(wanted, abs=1e-7)


def test_bicubic_weights_by_hand():
  """Doubling 4: centres at -0.25, 0.25, 0.75, ...; a = -0.75; taps outside fall on the edge."""
  outer, inner, near, far = -0.10546875, 0.87890625, 0.26171875, -0.03515625
  matrix = bicubic_matrix(4, 8)
  np.testing.assert_allclose(matrix[3], [outer, inner, near, far], atol=1e-12)
  np.testing.assert_allclose(matrix[4], [far, near, inner, outer], atol=1e-12)
  np.testing.assert_allclose(matrix[0], [far + near + inner, outer, 0, 0], atol=1e-12)
  np.testing.assert_allclose(matrix[1], [outer + inner, near, far, 0], atol=1e-12)
  np.testing.assert_allclose(bicubic_matrix(5, 5), np.eye(5), atol=1e-12)


def slow_bicubic(image, height, width):
  """One output pixel at a time, by the cubic through its 4 x 4 neighbours."""

  def kernel(d, a=-0.75):
    d = abs(d)
    if d <= 1:
      return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0

  rows, columns = image.shape[:2]
  out = np.zeros((height, width, image.shape[2]))
  for i in range(height):
    y = (i + 0.5) * rows / height - 0.5
    for j in range(width):
      x = (j + 0.5) * columns / width - 0.5
      for r in range(math.floor(y) - 1, math.floor(y) + 3):
        for c in range(math.floor(x) - 1, math.floor(x) + 3):
          pixel = image[min(max(r, 0), rows - 1), min(max(c, 0), columns - 1)]
          out[i, j] += kernel(y - r) * kernel(x - c) * pixel
  return out


@pytest.mark.parametrize('height, width', [(18, 18), (9, 28), (5, 4)])
def test_every_slot_is_resized_by_itself(height, width):
  frames, side, channels = 2, 14, 4
  found = position_table((frames, height, width), (side, side), channels)
  slots = sincos_table(frames * side * side, channels).astype(float)
  slots = slots.reshape(frames, side, side, channels)
  for slot, ours in zip(slots, found.reshape(frames, height, width, channels), strict=True):
    np.testing.assert_allclose(ours, slow_bicubic(slot, height, width), atol=1e-10)
    opencv = cv2.resize(slot, (width, height), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(ours, opencv, atol=1e-5)


def test_same_number_of_positions_takes_the_table_as_it_is():
  np.testing.assert_array_equal(position_table((3, 2, 8), (4, 4), 6), sincos_table(48, 6))
  assert np.abs(position_table((3, 2, 9), (4, 4), 6)[:6] - sincos_table(48, 6)[:6]).max() > 0.1
