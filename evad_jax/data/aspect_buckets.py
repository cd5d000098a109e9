"""Assigns clips of every aspect ratio to a short list of canvases; each batch has one canvas.

Every canvas is a compiled shape. A clip goes to the canvas with the least padding. The canvas of a
step is a pure function of seed and step: all hosts choose the same without communication, and a
resumed run continues where it stopped.
"""

import sys
from collections.abc import Sequence

import grain
import numpy as np

from evad_jax.data import augment
from evad_jax.errors import InputError

Canvas = tuple[int, int]  # height and width, pixels


def choose_canvas(
  height: int,
  width: int,
  canvases: Sequence[Canvas],
  *,
  short_side: int | None,
  max_long: int,
) -> int:
  """Index in `canvases` of the one that frames of height x width pixels fill best.

  The first of equally good ones. Raises InputError where the picture is larger than every canvas.
  """
  filled = {}
  for place, canvas in enumerate(canvases):
    resize = augment.plan_resize(
      height, width, canvas=canvas, short_side=short_side, max_long=max_long
    )
    if resize.height <= canvas[0] and resize.width <= canvas[1]:
      filled[place] = resize.height * resize.width / (canvas[0] * canvas[1])
  if not filled:
    listed = ', '.join(f'{h} x {w}' for h, w in canvases)
    raise InputError(
      f'a frame of {height} x {width} (height x width) becomes a picture of {resize.height} x '
      f'{resize.width}, larger than every canvas ({listed}); '
      'add a larger one to config.clip.canvases or make config.clip.short_side smaller'
    )
  return max(filled, key=filled.get)  # the first of equals


def canvases_of(
  heights: np.ndarray,
  widths: np.ndarray,
  canvases: Sequence[Canvas],
  *,
  short_side: int | None,
  max_long: int,
) -> np.ndarray:
  """(E,) frame heights and widths -> (E,) indices in `canvases`; errors as in `choose_canvas`."""
  sizes, number = np.unique(np.stack([heights, widths], axis=-1), axis=0, return_inverse=True)
  chosen = [
    choose_canvas(int(h), int(w), canvases, short_side=short_side, max_long=max_long)
    for h, w in sizes
  ]
  return np.array(chosen, np.int64)[number.ravel()]


class Schedule(grain.transforms.DatasetSelectionMap):
  """Step -> (canvas, batch of that canvas), endless and stateless.

  Each canvas comes up in proportion to its clips, and evenly: every batch of a canvas has its own
  part of the period, at a random time within it. So a canvas is never ahead of its share, or behind
  it, by more batches than there are other canvases.
  """

  def __init__(self, counts: Sequence[int], seed: int):
    """counts: number of clips of each canvas, all above 0."""
    share = np.array(counts, np.int64) // np.gcd.reduce(counts)  # batches in one period
    generator = np.random.default_rng(seed)
    due = [(np.arange(n) + generator.random(n)) / n for n in share]  # one in each n-th part
    order = np.argsort(np.concatenate(due), kind='stable')
    self._share = share
    self._canvas = np.repeat(np.arange(len(share)), share)[order]
    self._batch = np.concatenate([np.arange(n) for n in share])[order]

  def __len__(self) -> int:
    """Practically endless."""
    return sys.maxsize

  def __getitem__(self, step: int) -> tuple[int, int]:
    """Returns canvas and batch number of a step; all count from 0."""
    period, place = divmod(step, len(self._canvas))
    canvas = int(self._canvas[place])
    return canvas, int(period * self._share[canvas] + self._batch[place])
