"""Rows of annotation -> boxes, against a table worked by hand."""

import numpy as np

from data_prep.common.boxes import gather_boxes


def test_rows_of_one_box_become_one_row_and_odd_ones_are_told():
  a, b = [0.5, 0, 1, 0.5], [0, 0, 0.25, 0.5]
  rows = [
    (7, a, 1),
    (3, b, 0),
    (3, a, 2),
    (7, b, 2),
    (3, b, 2),  # b on frame 3 does two things
    (7, a, 1),  # again
    (3, [-0.5, 0.5, 0.5, 1.25], 1),  # clipped
    (3, [0.5, 0.5, 0.5, 1], 1),  # no area
    (3, [1.5, 0, 2, 1], 1),  # none within the frame
    (7, b, 3),  # there are three labels
    (8, b, -1),
  ]
  frames, boxes, labels = zip(*rows, strict=True)
  made, found = gather_boxes(np.array(frames), np.array(boxes), np.array(labels), 3)
  assert made.frames.tolist() == [3, 3, 3, 7, 7]
  assert made.boxes.tolist() == [b, a, [0, 0.5, 0.5, 1], a, b]
  assert made.labels.tolist() == [[1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
  assert found == {
    'unknown label': '2 rows dropped (label numbers -1, 3)',
    'duplicate row': '1 dropped',
    'box outside the frame': '1 clipped',
    'box without area': '2 dropped',
  }


def test_nothing_gives_nothing():
  made, found = gather_boxes(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, int), 3)
  assert made.frames.shape == (0,) and made.boxes.shape == (0, 4) and made.labels.shape == (0, 3)
  assert found == {}
