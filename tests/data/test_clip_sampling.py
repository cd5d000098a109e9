"""Clip frames against the reference's numbers and a hand-worked table."""

import json

import numpy as np
import pytest

from evad_jax.data.clip_sampling import clip_frame_numbers, stored_positions
from evad_jax.errors import InputError
from tests import external

GOLDEN = external.GOLDEN / 'units.json'


def test_equals_the_reference():
  if not GOLDEN.is_file():
    pytest.skip(external.missing(GOLDEN))
  cases = json.loads(GOLDEN.read_text())['clip_frames']
  assert len(cases) == 5
  for case in cases:
    clip_frames = 2 * case['half'] // case['rate']
    ours = clip_frame_numbers(case['center'], case['n'], clip_frames, case['rate'])
    assert ours.tolist() == case['seq']


@pytest.mark.parametrize(
  ('keyframe', 'num_frames', 'clip_frames', 'stride', 'expected'),
  [
    (10, 100, 4, 3, [4, 7, 10, 13]),
    (1, 100, 4, 3, [0, 0, 1, 4]),
    (99, 100, 4, 3, [93, 96, 99, 99]),
    (0, 1, 4, 3, [0, 0, 0, 0]),
    (5, 10, 3, 1, [4, 5, 6]),  # an odd length still has T frames, the keyframe in the middle
  ],
)
def test_hand_worked(keyframe, num_frames, clip_frames, stride, expected):
  ours = clip_frame_numbers(keyframe, num_frames, clip_frames, stride)
  assert ours.tolist() == expected
  assert ours[clip_frames // 2] == keyframe


@pytest.mark.parametrize('keyframe', [-1, 7])
def test_keyframe_outside_its_video_is_an_error(keyframe):
  with pytest.raises(InputError, match=f'keyframe {keyframe} is not in a video of 7 frames'):
    clip_frame_numbers(keyframe, 7, 4, 1)


def test_positions_among_the_stored_frames():
  stored = np.array([3, 5, 6, 9])
  assert stored_positions(np.array([3, 3, 6, 9, 9]), stored, 'v').tolist() == [0, 0, 2, 3, 3]


@pytest.mark.parametrize('missing', [2, 4, 10])  # before, between and after the stored ones
def test_a_frame_that_is_not_stored_is_named(missing):
  needed = np.sort(np.array([3, missing, 9]))
  with pytest.raises(InputError, match=f"video 'a_b': frame {missing} of a clip is not stored"):
    stored_positions(needed, np.array([3, 5, 6, 9]), 'a_b')
