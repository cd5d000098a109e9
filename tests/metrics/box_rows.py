"""Rows of boxes as the table that the metrics take."""

import numpy as np

from evad_jax.formats.box_table import BoxTable


def columns(rows):
  """Rows (frame, box, label) or (frame, box, label, score) -> BoxTable."""
  parts = zip(*rows, strict=True) if rows else [()] * 4
  frames, boxes, labels, *scores = (list(part) for part in parts)
  boxes = np.reshape(np.array(boxes, float), (-1, 4))
  scores = [np.array(some, float) for some in scores]
  return BoxTable(np.array(frames, np.int64), boxes, np.array(labels, np.int64), *scores)
