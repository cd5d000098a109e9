"""Multi-scale crops against a loop written from their definition, and against Pillow's resizing."""

import collections

import cv2
import numpy as np
import pytest
from PIL import Image

from evad_jax.data import multi_scale_crop
from evad_jax.data.multi_scale_crop import Crop

SCALES = (1, 0.875, 0.75, 0.66)
FRAMES = [(240, 320), (320, 240), (256, 454), (340, 340), (226, 300), (223, 400), (40, 30), (1, 3)]


def crops_by_hand(height, width, canvas, scales):
  """Every crop and in how many of the 10 x 13 equally probable cases it comes up."""
  short, found = min(height, width), collections.Counter()
  for i in range(4):
    for j in range(4):
      if abs(i - j) > 1:
        continue
      h, w = max(1, int(short * scales[i])), max(1, int(short * scales[j]))
      if short >= canvas:
        h = canvas if abs(h - canvas) < 3 else h
        w = canvas if abs(w - canvas) < 3 else w
      y, x = (height - h) // 4, (width - w) // 4
      tops_and_lefts = [(0, 0), (0, 4 * x), (4 * y, 0), (4 * y, 4 * x), (2 * y, 2 * x)]
      tops_and_lefts += [(2 * y, 0), (2 * y, 4 * x), (4 * y, 2 * x), (0, 2 * x)]
      tops_and_lefts += [(y, x), (y, 3 * x), (3 * y, x), (3 * y, 3 * x)]
      found.update(Crop(top, left, h, w) for top, left in tops_and_lefts)
  return found


def test_sides_of_ucf101():
  found = multi_scale_crop.sizes(240, 320, 224, SCALES)
  assert len(found) == 10 and {h for h, _ in found} == {240, 210, 180, 158}
  assert (240, 180) not in found and (180, 210) in found


@pytest.mark.parametrize(('short', 'first'), [(226, 224), (227, 227), (224, 224), (222, 222)])
def test_a_side_of_nearly_the_canvas_is_the_canvas(short, first):
  assert multi_scale_crop.sizes(short, 400, 224, SCALES)[0] == (first, first)


@pytest.mark.parametrize('frame', FRAMES)
def test_draws_are_crops_of_the_definition(frame):
  generator = np.random.default_rng(0)
  expected = crops_by_hand(*frame, 224, SCALES)
  assert sum(expected.values()) == 130
  drawn = {multi_scale_crop.draw(*frame, 224, SCALES, generator) for _ in range(1500)}
  assert drawn == set(expected)
  for crop in drawn:
    assert 0 <= crop.top <= frame[0] - crop.height and 0 <= crop.left <= frame[1] - crop.width


def test_ten_pairs_and_thirteen_points_are_equally_frequent():
  scales, generator = (0.9, 0.8, 0.7, 0.6), np.random.default_rng(1)
  expected = crops_by_hand(240, 320, 224, scales)
  assert len(expected) == 130  # with free space on all sides no two cases are the same crop
  drawn = [multi_scale_crop.draw(240, 320, 224, scales, generator) for _ in range(6500)]
  counts = collections.Counter(drawn)
  assert set(counts) == set(expected)
  assert all(20 < count < 85 for count in counts.values())  # 50 +- 4 standard deviations or more
  pairs = collections.Counter((crop.height, crop.width) for crop in drawn)
  assert len(pairs) == 10 and all(550 < count < 750 for count in pairs.values())
  in_quarters = collections.Counter(
    (crop.top // ((240 - crop.height) // 4), crop.left // ((320 - crop.width) // 4))
    for crop in drawn
  )
  assert set(in_quarters) == set(multi_scale_crop.POINTS)
  assert all(410 < count < 590 for count in in_quarters.values())


@pytest.mark.parametrize(
  ('frame', 'crop'), [((240, 320), (0, 40, 240, 240)), ((320, 240), (40, 0, 240, 240))]
)
def test_the_centre(frame, crop):
  assert multi_scale_crop.centre(*frame) == Crop(*crop)


def _smooth(height, width):
  coarse = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
  return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
  'crop',
  [Crop(0, 0, 240, 240), Crop(30, 52, 180, 158), Crop(7, 5, 100, 210), Crop(16, 48, 112, 112)],
)
@pytest.mark.parametrize('canvas', [224, 112])
def test_cutting_is_bilinear_resizing_of_the_crop(crop, canvas):
  frame = _smooth(240, 320)
  box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
  expected = Image.fromarray(frame).resize((canvas, canvas), Image.Resampling.BILINEAR, box)
  out, mirrored = np.zeros((2, canvas, canvas, 3), np.uint8)
  multi_scale_crop.cut(frame, crop, False, out)
  difference = np.abs(out.astype(int) - np.asarray(expected))
  assert difference.mean() < 1.5 and np.percentile(difference, 99) < 8
  multi_scale_crop.cut(frame, crop, True, mirrored)
  assert (mirrored == out[:, ::-1]).all()


def test_shrinking_does_not_alias():
  stripes = np.zeros((120, 120, 3), np.uint8)
  stripes[:, ::2] = 255
  out = np.zeros((40, 40, 3), np.uint8)
  multi_scale_crop.cut(stripes, Crop(0, 0, 120, 120), False, out)
  assert 80 < out.min() and out.max() < 175
