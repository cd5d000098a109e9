"""The contact sheet: colours where the boxes are, and no text outside its tile."""

import numpy as np
import pytest
from PIL import Image

from evad_jax.data.buffer_pool import RecycledMemory
from evad_jax.data.clips import empty_batch
from evad_jax.structures import Batch, Detections, Targets
from evad_jax.visualization import contact_sheet
from evad_jax.visualization.contact_sheet import PREDICTED_COLOUR, TRUTH_COLOUR, Style, Tile
from tests.visualization import pixels

NAMES = ['stand', 'walk', 'talk to (e.g., self, a person, a group)']


def grey_tile(height=64, width=64, people=1, **kwargs):
  boxes = np.tile(np.array([[0.25, 0.25, 0.75, 0.75]]), (people, 1))
  labels = np.ones((people, 3))
  frame = np.full((height, width, 3), 128, np.uint8)
  return Tile(frame, boxes, labels, boxes + 0.125, labels * 0.5, **kwargs)


@pytest.mark.parametrize('size', [(64, 64), (1080, 1080), (3, 3)])
def test_boxes_stand_where_they_belong(size):
  style = Style(tile_width=400)
  stage = contact_sheet._draw_people(grey_tile(*size), style)
  assert stage.size == (400, 400)
  for colour, low, high in ((TRUTH_COLOUR, 100, 299), (PREDICTED_COLOUR, 150, 349)):
    for axis in pixels.where(stage, colour):
      assert abs(axis.min() - low) <= 2
      assert abs(axis.max() - high) <= 2


def test_truth_is_dashed_and_prediction_is_not():
  stage = np.asarray(contact_sheet._draw_people(grey_tile(), Style(tile_width=400)))
  bottom = (stage[297:300, 110:290] == TRUTH_COLOUR).all(axis=-1).any(axis=0)
  assert 0.3 < bottom.mean() < 0.7
  bottom = (stage[345:350, 160:340] == PREDICTED_COLOUR).all(axis=-1).any(axis=0)
  assert bottom.all()


def test_empty_and_inverted_boxes_are_drawn_inside():
  tile = grey_tile()
  odd = np.array([[0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1], [-3, -3, 4, 4]])
  tile = tile._replace(boxes=odd, action_scores=np.full((3, 3), 0.5))
  stage = contact_sheet._draw_people(tile, Style(tile_width=400))
  rows, columns = pixels.where(stage, PREDICTED_COLOUR)
  # The third box goes around the picture; the first is a point in its middle.
  for axis in (rows, columns):
    assert axis.min() <= 2 and axis.max() >= 397
  assert (abs(rows - 200) + abs(columns - 200)).min() <= 4
  assert contact_sheet.draw_tile(tile, NAMES, Style()).width == 360


@pytest.mark.parametrize('people', [1, 40])
@pytest.mark.parametrize('size', [(48, 200), (200, 48), (240, 320)])
def test_text_stays_inside(written, size, people):
  tile = grey_tile(*size, people=people, title='a very long title ' * 9)
  names = ['stand', 'walk ' * 30, NAMES[2]]
  sheet = contact_sheet.contact_sheet([tile] * 2, names, style=Style(tile_width=256))
  assert sheet.width == 2 * 256 + 3 * contact_sheet.GAP
  assert '1' in written and ('a' if people == 1 else 'an') in written
  assert any(text.endswith('...') for text in written)


def test_names_and_scores():
  tile = grey_tile()._replace(
    truth_labels=np.array([[1, 0, 1]]), action_scores=np.array([[0.1, 0.9, 0.35]])
  )
  lines = contact_sheet._entries(tile, NAMES, Style(tile_width=800))
  assert lines == [
    (TRUTH_COLOUR, '1', f'stand, {NAMES[2]}'),
    (PREDICTED_COLOUR, 'a', f'0.90 walk, 0.35 {NAMES[2]}'),
  ]
  # The best is named however low it is.
  lines = contact_sheet._entries(tile, NAMES, Style(lowest_score=0.95, tile_width=800))
  assert lines[1] == (PREDICTED_COLOUR, 'a', '0.90 walk')


def test_sheet_of_several_rows(tmp_path):
  tiles = [grey_tile(), grey_tile(30, 90, people=3), grey_tile(90, 30)]
  tiles[1] = tiles[1]._replace(strip=np.full((5, 30, 90, 3), 200, np.uint8), title='clip')
  contact_sheet.write_contact_sheet(tmp_path / 'out' / 'sheet.png', tiles, NAMES, columns=2)
  with Image.open(tmp_path / 'out' / 'sheet.png') as picture:
    assert picture.size[0] == 2 * 360 + 3 * contact_sheet.GAP
    rows, columns = pixels.where(picture.convert('RGB'), (200, 200, 200))
  assert columns.min() == 380 and columns.max() == 739  # the strip fills the second tile
  assert [path.name for path in (tmp_path / 'out').iterdir()] == ['sheet.png']


def test_tiles_of_batch():
  clips = np.zeros((2, 4, 32, 48, 3), np.uint8)
  clips[0, :, :16, :24] = np.arange(5, 9)[:, None, None, None]
  targets = Targets(
    boxes=np.array([[[6, 4, 12, 8], [0, 0, 0, 0]]] * 2, np.float32),
    labels=np.eye(3, dtype=np.float32)[None, :2].repeat(2, axis=0),
    box_mask=np.array([[True, False]] * 2),
  )
  sizes = np.array([[16, 24], [32, 48]], np.int32)
  batch = Batch(clips, sizes, targets.boxes, targets, np.array([True, False]), np.array([41, 0]))
  detections = Detections(
    np.arange(16, dtype=np.float32).reshape(2, 2, 4) / 16,
    np.array([[0.2, 0.4], [0.9, 0.9]], np.float32),
    np.zeros((2, 2, 3), np.float32),
  )
  (tile,) = contact_sheet.tiles_of_batch(batch, detections, strip_frames=2)
  assert tile.title == 'example 41'
  np.testing.assert_array_equal(tile.frame, np.full((16, 24, 3), 7))
  np.testing.assert_allclose(tile.truth_boxes, [[0.25, 0.25, 0.5, 0.5]])
  np.testing.assert_array_equal(tile.truth_labels, [[1, 0, 0]])
  np.testing.assert_array_equal(tile.boxes, detections.boxes[0, 1:])  # the best: none passes
  np.testing.assert_array_equal(tile.strip, clips[0, [0, 3], :16, :24])
  many = detections._replace(person_scores=np.full((2, 2), 0.8, np.float32))
  assert len(contact_sheet.tiles_of_batch(batch, many)[0].boxes) == 2


def test_tiles_keep_no_batch_alive():
  """12 tiles of as many batches of an evaluation: one buffer serves all batches."""
  memory, tiles = RecycledMemory(), []
  for number in range(12):
    batch = empty_batch(memory.take((4, 8, 32, 48, 3)), 2, 2)
    batch = batch._replace(
      example_mask=np.arange(4) == number % 4, index=np.arange(4, dtype=np.int32)
    )
    batch.clips[:] = number
    found = Detections(np.zeros((4, 3, 4)), np.ones((4, 3)), np.zeros((4, 3, 2)))
    tiles += contact_sheet.tiles_of_batch(batch, found, strip_frames=3)
    del batch
  assert len(memory._buffers) == 1
  assert [int(tile.frame.max()) for tile in tiles] == list(range(12))
  assert [int(tile.strip.min()) for tile in tiles] == list(range(12))


def test_bad_arguments():
  with pytest.raises(ValueError, match='at least one tile'):
    contact_sheet.contact_sheet([], NAMES)
  with pytest.raises(ValueError, match='at least 256'):
    contact_sheet.contact_sheet([grey_tile()], NAMES, style=Style(tile_width=100))
  with pytest.raises(ValueError, match='3 classes in a tile, but 2 names'):
    contact_sheet.contact_sheet([grey_tile()], NAMES[:2])
