"""Drawn people: correct boxes, text inside the picture, and positions between keyframes."""

import numpy as np
import pytest

from evad_jax.inference.person_tracks import People
from evad_jax.visualization import draw_people
from evad_jax.visualization.draw_people import (
  Figure,
  Style,
  annotate,
  between,
  colour_of,
  enlargement,
)
from tests.visualization import pixels

NAMES = ['stand', 'walk', 'talk to (e.g., self, a person, a group)']


def figure(number, box, *lines):
  return Figure(number, np.array(box, np.float32), lines)


def test_a_box_has_the_colour_of_its_person():
  """On 400 x 600 pixels: x 150 to 450, y 100 to 300; black, one pixel, then two of the colour."""
  frame = np.full((400, 600, 3), 128, np.uint8)
  before = frame.copy()
  drawn = annotate(frame, [figure(3, (0.25, 0.25, 0.75, 0.75))])
  np.testing.assert_array_equal(frame, before)
  assert drawn.shape == (400, 600, 3) and drawn.dtype == np.uint8
  for y, x in ((200, 150), (200, 450), (300, 400), (100, 400)):
    inward = (np.sign(200 - y) if x == 400 else 0, np.sign(300 - x) if y == 200 else 0)
    along = [drawn[y + i * inward[0], x + i * inward[1]].tolist() for i in range(-1, 5)]
    colour = list(colour_of(3))
    assert along == [[128] * 3, [0] * 3, colour, colour, [0] * 3, [128] * 3]
  assert (drawn[104:297, 300] == 128).all() and (drawn[200, 154:447] == 128).all()
  # The panel is on top of the box, and begins with a patch of the colour.
  rows, columns = pixels.where(drawn[:100], colour_of(3))
  assert columns.min() == 150 and rows.max() == 99


def test_colours_differ_and_stay():
  colours = np.array([colour_of(number) for number in range(30)], int)
  assert colours.max() == 255 and colours.min() >= 0
  near = [np.abs(colours[i] - colours[j]).sum() for i in range(30) for j in range(max(0, i - 4), i)]
  assert min(near) > 100
  assert len({tuple(colour) for colour in colours.tolist()}) == 30
  # Hue 0 with saturation 0.6; id 1 is 0.618034 of the circle on: blue before red and green.
  assert colour_of(0) == (255, 102, 102) and colour_of(1) == (102, 146, 255)


@pytest.mark.parametrize(
  'size, factor',
  [
    ((400, 400), 1),
    ((399, 900), 2),
    ((200, 300), 2),
    ((199, 300), 3),
    ((64, 64), 7),
    ((1, 9), 400),
    ((20, 1000), 16),  # 20 would be 20,000 pixels wide, and H.264 ends at 16,384
    ((1000, 20), 16),
    ((30, 16384), 1),
  ],
)
def test_small_frames_are_enlarged(size, factor):
  assert enlargement(*size) == factor
  if min(size) > 1:
    frame = np.full((*size, 3), 90, np.uint8)
    enlarged = np.full((factor * size[0], factor * size[1], 3), 90)
    np.testing.assert_array_equal(annotate(frame, []), enlarged)


def test_frames_that_no_video_has_room_for_are_made_smaller():
  frame = np.full((40, 32768, 3), 90, np.uint8)
  frame[:, 16384:] = 200
  drawn = annotate(frame, [])
  assert drawn.shape == (20, 16384, 3)
  assert (drawn[:, :8190] == 90).all() and (drawn[:, 8194:] == 200).all()


def test_the_picture_shows_under_an_enlarged_box():
  frame = np.zeros((100, 100, 3), np.uint8)
  frame[:50] = 200
  drawn = annotate(frame, [figure(0, (0.1, 0.4, 0.6, 0.9))])
  assert (drawn[20, 395] == 200).all() and (drawn[380, 395] == 0).all()
  rows, columns = pixels.where(drawn[170:], colour_of(0))
  assert (columns.min(), columns.max(), rows.max() + 170) == (41, 239, 359)


@pytest.mark.parametrize(
  'box',
  [
    (0.5, 0.5, 0.5, 0.5),
    (0.9, 0.9, 0.1, 0.1),
    (-3, -3, 4, 4),
    (1, 1, 1, 1),
    (2, 2, 3, 3),
    (0, 0, 0, 0),
  ],
)
def test_odd_boxes_are_drawn_inside(box):
  drawn = annotate(np.full((400, 500, 3), 128, np.uint8), [figure(1, box, 'walk 0.50')])
  assert drawn.shape == (400, 500, 3)
  rows, columns = pixels.where(drawn, colour_of(1))
  assert len(rows) > 50 and rows.max() <= 399 and columns.max() <= 499


@pytest.mark.parametrize('size', [(48, 200), (200, 48), (480, 640), (720, 400)])
@pytest.mark.parametrize('count', [1, 40])
def test_text_stays_inside(written, size, count):
  rng = np.random.default_rng(0)
  corners = [(0, 0, 0.2, 0.2), (0.9, 0, 1, 0.3), (0, 0.9, 0.1, 1), (0.95, 0.95, 1, 1), (0, 0, 1, 1)]
  low = rng.uniform(0, 0.9, (count, 2))
  boxes = [*corners, *np.concatenate([low, low + 0.1], 1)]
  lines = ('stand 0.99', 'walk ' * 60 + '0.90', f'{NAMES[2]} 0.80')
  annotate(
    np.zeros((*size, 3), np.uint8),
    [figure(10 ** (i % 6), box, *lines[: i % 4]) for i, box in enumerate(boxes)],
  )
  assert '#1' in written and 'stand 0.99' in written
  assert any(text.endswith('...') for text in written)


def test_panels_stand_above_below_or_inside():
  size = (600, 400)
  place = draw_people._place
  assert place((100, 100, 200, 300), 90, 40, size, []) == (100, 60, 190, 100)
  assert place((100, 30, 200, 300), 90, 40, size, []) == (100, 300, 190, 340)  # no room above
  assert place((100, 30, 200, 390), 90, 40, size, []) == (100, 30, 190, 70)  # nor below
  assert place((550, 100, 590, 300), 90, 40, size, []) == (510, 60, 600, 100)  # moved inside
  # Above is taken: below. Above and below: inside.
  above, below = (100, 60, 190, 100), (100, 300, 190, 340)
  assert place((100, 100, 200, 300), 90, 40, size, [above]) == below
  assert place((100, 100, 200, 300), 90, 40, size, [above, below]) == (100, 100, 190, 140)


def test_the_best_actions_are_named():
  scores = np.array([0.31, 0.9, 0.295], np.float32)
  assert draw_people.describe(scores, NAMES, Style()) == ('walk 0.90', 'stand 0.31')
  assert draw_people.describe(scores, NAMES, Style(lowest_score=0.95)) == ()
  everything = ('walk 0.90', 'stand 0.31', f'{NAMES[2]} 0.29')
  assert draw_people.describe(scores, NAMES, Style(lowest_score=0)) == everything
  assert draw_people.describe(scores, NAMES, Style(lowest_score=0, most_names=1)) == ('walk 0.90',)
  equal = np.full(3, 0.5, np.float32)
  assert draw_people.describe(equal, NAMES, Style(most_names=2)) == ('stand 0.50', 'walk 0.50')


def test_figures_come_by_id():
  people = People(
    frame=8,
    ids=np.array([7, 2]),
    boxes=np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32),
    person_scores=np.array([0.9, 0.8], np.float32),
    action_scores=np.array([[0.8, 0.1, 0.1], [0.1, 0.4, 0.1]], np.float32),
  )
  figures = draw_people.figures_of(people, NAMES, Style())
  assert [(f.id, f.box.tolist(), f.lines) for f in figures] == [
    (2, [0.5, 0, 1, 1], ('walk 0.40',)),
    (7, [0, 0, 0.5, 1], ('stand 0.80',)),
  ]


@pytest.mark.parametrize(
  'share, wanted',
  [
    (0.0, {1: ([0, 0, 4, 4], 'a'), 2: ([1, 1, 2, 2], 'b')}),
    (0.25, {1: ([2, 1, 6, 5], 'a'), 2: ([1, 1, 2, 2], 'b')}),
    (0.5, {1: ([4, 2, 8, 6], 'a'), 2: ([1, 1, 2, 2], 'b')}),
    (0.75, {1: ([6, 3, 10, 7], 'c'), 3: ([5, 5, 6, 6], 'd')}),
    (1.0, {1: ([8, 4, 12, 8], 'c'), 3: ([5, 5, 6, 6], 'd')}),
  ],
)
def test_people_between_two_keyframes(share, wanted):
  """Person 1 is on both and moves 8 to the right and 4 down; 2 leaves halfway, 3 comes."""
  before = [figure(1, (0, 0, 4, 4), 'a'), figure(2, (1, 1, 2, 2), 'b')]
  after = [figure(1, (8, 4, 12, 8), 'c'), figure(3, (5, 5, 6, 6), 'd')]
  found = between(before, after, share)
  assert {f.id: (f.box.tolist(), *f.lines) for f in found} == wanted
  assert [f.id for f in found] == sorted(wanted)


def test_nobody_between_keyframes():
  alone = [figure(1, (0, 0, 1, 1), 'a')]
  assert between([], [], 0.5) == []
  assert between(alone, [], 0.4) == alone and between(alone, [], 0.6) == []
  assert between([], alone, 0.4) == [] and between([], alone, 0.6) == alone
