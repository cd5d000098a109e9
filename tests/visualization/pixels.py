"""Pixels of a colour in a picture."""

import numpy as np


def where(picture, colour):
  """Rows and columns of the pixels of exactly this colour."""
  return np.nonzero((np.asarray(picture) == colour).all(axis=-1))
