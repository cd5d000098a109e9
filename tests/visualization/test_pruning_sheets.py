"""Sheets and animation: what is dimmed where, what is written on them, and what is saved."""

import numpy as np
import pytest
from PIL import Image

from evad_jax.structures import PruningStage
from evad_jax.visualization import drawing, pruning_animation, pruning_sheets
from evad_jax.visualization.drawing import MARK_COLOUR
from evad_jax.visualization.pruning_sheets import GAP, MARGIN, PrunedClip
from evad_jax.visualization.token_painting import GONE_COLOUR

GREEN = (20, 180, 40)
TILE = 300  # pixels; four tokens of 150 x 150


def hand_made(**changes):
  """Four green frames of 2 x 2 tokens in two slots; the keyframe's is the second."""
  kept = np.array([[[[True, False], [True, True]]], [[[False, False], [True, False]]]])
  kept = np.concatenate([kept, np.ones((2, 1, 2, 2), bool)], axis=1)  # stage, slot, row, column
  importance = np.array([[[4, 1], [2, 2]], [[2, 2], [1, 2]]], np.float32)
  later = np.where(kept[0], importance, np.nan)
  stages = [PruningStage(3, kept[0], importance), PruningStage(6, kept[1], later)]
  frames = np.full((4, 8, 8, 3), GREEN, np.uint8)
  return PrunedClip(frames, stages, patch=4, tubelet=2, **changes)


def tiles(sheet, colour):
  """Where a sheet has this colour, by slot: columns of TILE pixels."""
  found = (np.asarray(sheet) == colour).all(axis=-1)
  return [found[:, MARGIN + i * (TILE + GAP) :][:, :TILE] for i in (0, 1)]


def test_dropped_tokens_are_dimmed_in_their_row_and_slot():
  other, keyframe = tiles(pruning_sheets.pruning_sheet(hand_made()), GREEN)
  token = (TILE // 2) ** 2
  assert keyframe.sum() == 3 * TILE**2
  assert other.sum() == TILE**2 + 3 * token + 1 * token
  # The first column of tokens is complete twice, and half below; the second lacks its upper half.
  assert other[:, 0].sum() == 2 * TILE + TILE // 2
  assert other[:, -1].sum() == TILE + TILE // 2


def test_what_is_written_on_a_sheet(written):
  pruning_sheets.pruning_sheet(hand_made(title='walk', frame_numbers=[30, 34, 38, 42]))
  assert written == [
    'walk',
    'Dropped tokens are dimmed and hatched. Tokens of the keyframe (marked) are always kept.',
    'input: 8 tokens, 4 x 4 pixels of 2 frames each',
    'frame 30',
    'keyframe 38',
    'after block 3: 7 of 8 tokens',
    '3 of 4',
    '4 of 4',
    'after block 6: 5 of 8 tokens',
    '1 of 4',
    '4 of 4',
  ]


def test_the_keyframe_is_marked_in_every_row():
  sheet = pruning_sheets.pruning_sheet(hand_made())
  marked = (np.asarray(sheet) == MARK_COLOUR).all(axis=-1)
  left, right = (MARGIN + i * (TILE + GAP) for i in (1, 2))
  assert (marked[:, left - 2].sum(), marked[:, right - GAP + 1].sum()) == (3 * (TILE + 6),) * 2
  assert not marked[:, : left - 3].any()


def test_the_heat_map_is_dark_where_an_earlier_block_dropped(written):
  other, keyframe = tiles(pruning_sheets.importance_sheet(hand_made()), GONE_COLOUR)
  rows = slice(0, 2 * TILE + 120)  # without the legend, which has the colour too
  assert other[rows].sum() == (TILE // 2) ** 2 and not keyframe[rows].any()
  assert 'block 3 drops 1 of 8 tokens' in written and 'block 6 drops 2 of 7 tokens' in written
  scale = 'importance, in multiples of the mean of the row'  # of which 1 is a bit below half
  assert written[:7] == [scale, '1/4', '1/2', '1', '2', '4', 'dropped by an earlier block']


def test_padding_is_told_and_not_shown(written):
  clip = hand_made()
  smaller = clip._replace(frames=clip.frames[:, :8, :3])  # one column of tokens of two
  sheet = pruning_sheets.pruning_sheet(smaller)
  told = 'input: 4 tokens, 4 x 4 pixels of 2 frames each; 4 more are padding, which is not shown'
  assert written[2] == told
  assert 'after block 3: 4 of 4 tokens' in written and 'after block 6: 3 of 4 tokens' in written
  green = (np.asarray(sheet) == GREEN).all(axis=-1)  # tiles of 169 x 450 pixels, tokens of 225
  assert green.sum() == 169 * (6 * 450 - 225)


@pytest.mark.parametrize('size', [(64, 64), (288, 512), (512, 288), (9, 200), (200, 9)])
@pytest.mark.parametrize('slots', [2, 16])
def test_any_size_is_readable(written, size, slots):
  h, w = -(-size[0] // 16), -(-size[1] // 16)
  kept = np.ones((slots, h, w), bool)
  stages = [PruningStage(i, kept, kept.astype(np.float32)) for i in range(2)]
  frames = np.zeros((2 * slots, *size, 3), np.uint8)
  numbers = range(10_000, 10_000 + len(frames))
  clip = PrunedClip(frames, stages, 16, 2, 'a long title ' * 30, numbers)
  for sheet in (pruning_sheets.pruning_sheet(clip), pruning_sheets.importance_sheet(clip)):
    assert 700 <= sheet.width <= 2000
  assert pruning_animation.pruning_animation(clip._replace(frames=frames[:, :1, :1]))
  assert f'keyframe {10_000 + slots}' in written  # not cut


def test_an_animation_has_all_frames_though_they_are_equal(tmp_path, written):
  pictures = pruning_animation.pruning_animation(hand_made())
  drawing.write_animation(tmp_path / 'new' / 'x.gif', pictures, milliseconds=120)
  with Image.open(tmp_path / 'new' / 'x.gif') as animation:
    assert animation.n_frames == 4
    for frame in range(4):
      animation.seek(frame)
      assert animation.info['duration'] == 120 and animation.size == pictures[0].size
  assert [p.name for p in (tmp_path / 'new').iterdir()] == ['x.gif']
  assert written.count('here 3 of 4') == 2 and written.count('here 1 of 4') == 2
  assert written[6] == 'frame 0   (1 of 4)'
  assert 'keyframe 2: all its tokens are kept   (3 of 4)' in written


def test_an_animation_shows_each_frame_with_the_tokens_of_its_slot():
  clip = hand_made()
  counts = []
  for picture in pruning_animation.pruning_animation(clip):
    green = (np.asarray(picture) == GREEN).all(axis=-1)
    counts.append(green.sum() / 340**2)
  assert counts == [1 + 3 / 4 + 1 / 4] * 2 + [3] * 2


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
  path = tmp_path / 'x.png'
  path.write_bytes(b'old')

  def broken(self, file, **arguments):
    file.write(b'half')
    raise OSError('disk full')

  monkeypatch.setattr(Image.Image, 'save', broken)
  with pytest.raises(OSError, match='disk full'):
    drawing.write_picture(path, Image.new('RGB', (2, 2)))
  assert path.read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'stages': []}, 'no pruning stage'),
    ({'tubelet': 3}, '4 frames do not divide into tubelets of 3'),
    ({'patch': 2}, r'block 3 has tokens of shape \(2, 2, 2\), but .* have \(2, 4, 4\)'),
    ({'tubelet': 4}, r'have \(1, 2, 2\)'),
    ({'frame_numbers': [1, 2]}, '2 frame_numbers were given for 4 frames'),
  ],
)
def test_what_does_not_fit_is_told(changes, message):
  clip = hand_made()._replace(**changes)
  for draw in (
    pruning_sheets.pruning_sheet,
    pruning_sheets.importance_sheet,
    pruning_animation.pruning_animation,
  ):
    with pytest.raises(ValueError, match=message):
      draw(clip)
