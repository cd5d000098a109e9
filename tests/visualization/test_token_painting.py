"""Dimming and heat map, pixel by pixel on frames of 2 x 2 tokens."""

import numpy as np
import pytest

from evad_jax.visualization import token_painting
from evad_jax.visualization.token_painting import FAINTEST, GONE_COLOUR, HATCH_LIGHT, HEAT

# Tokens of 2 x 2 pixels, every one of another colour; the last one is cut by the picture's edge.
COLOURS = np.array([[[200, 10, 10], [10, 200, 10]], [[10, 10, 200], [100, 100, 100]]], np.uint8)
FRAME = COLOURS.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize('scale', [1, 7])
def test_exactly_the_dropped_tokens_are_dimmed(scale):
  kept = np.array([[True, False], [False, True]])
  size = (4 * scale, 4 * scale)
  painted = token_painting.dim_dropped(FRAME, kept, 2, size)
  dropped = (~kept).repeat(2 * scale, axis=0).repeat(2 * scale, axis=1)
  changed = (painted != token_painting.enlarge(FRAME, size)).any(axis=-1)
  np.testing.assert_array_equal(changed, dropped)
  assert (painted[dropped] < 120).all()


def test_dropped_tokens_by_hand():
  frame = np.full((4, 4, 3), 200, np.uint8)
  painted = token_painting.dim_dropped(frame, np.array([[False, True], [True, True]]), 2, (4, 4))
  dimmed = [71, 72, 77]  # 0.78 of (34, 36, 42) and 0.22 of 200
  assert painted[0, 1].tolist() == painted[1, 0].tolist() == painted[1, 1].tolist() == dimmed
  assert painted[0, 0].tolist() == [x + HATCH_LIGHT for x in dimmed]
  assert (painted[2:] == 200).all() and (painted[:, 2:] == 200).all()


def test_tokens_that_the_edge_cuts():
  frame = np.full((3, 3, 3), 200, np.uint8)
  kept = np.array([[True, True], [True, False]])
  painted = token_painting.dim_dropped(frame, kept, 2, (30, 30))
  changed = (painted != 200).any(axis=-1)
  assert changed[20:, 20:].all() and changed.sum() == 100


def test_a_large_frame_is_reduced():
  frame = np.full((400, 200, 3), 50, np.uint8)
  kept = np.arange(8).reshape(4, 2) % 2 == 0
  painted = token_painting.dim_dropped(frame, kept, 100, (20, 40))
  np.testing.assert_array_equal((painted == 50).all(axis=-1), np.tile(np.arange(20) < 10, (40, 1)))


def test_importance_in_octaves():
  found = token_painting.relative(np.array([[1, 2], [np.nan, 0], [4, 5]]))  # a mean of 12 / 5
  expected = np.log2(np.array([[1, 2], [np.nan, 1], [4, 5]]) / 2.4)
  expected[1, 1] = -np.inf
  np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
  ('values', 'octaves'),
  [([0.1, -0.2], 1), ([1.5, 0], 2), ([-2.5, -np.inf, np.nan], 3), ([40], 5), ([np.nan], 1)],
)
def test_how_far_the_scale_reaches(values, octaves):
  assert token_painting.octaves_of([np.array(values), np.zeros(1)]) == octaves


def test_heat_map_by_hand():
  frame = np.full((2, 2, 3), 255, np.uint8)
  importance = np.array([[-2.0, np.nan], [-np.inf, 9.0]])
  painted = token_painting.heat(frame, importance, 1, (2, 2), octaves=2)
  least, most = list(HEAT[0]), list(HEAT[-1])
  assert painted.tolist() == [[least, list(GONE_COLOUR)], [least, most]]
  black = token_painting.heat(0 * frame, importance, 1, (2, 2), octaves=2)
  assert black[1, 1].tolist() == [round(FAINTEST * x) for x in most]
  middle = token_painting.heat_colours(np.array([0.0]), 2)[0]
  np.testing.assert_allclose(middle, (np.array(HEAT[2]) + HEAT[3]) / 2)
