"""Clips of every aspect ratio on a short list of canvases, with one canvas a batch.

Every canvas is a compiled shape. A clip goes to the canvas that wastes least on it, and every step
takes a batch of one canvas. Which one is a pure function of seed and step, so that all hosts take
the same without talking to each other, and a run that is resumed goes on where it was.
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
  """The place in `canvases` of the one that frames of height x width pixels fill best.

  Of equally good ones the first. Raises InputError where the picture is larger than all of them.
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
  """(E,) frame heights and widths -> (E,) places in `canvases`; errors as in `choose_canvas`."""
  sizes, number = np.unique(np.stack([heights, widths], axis=-1), axis=0, return_inverse=True)
  chosen = [
    choose_canvas(int(h), int(w), canvases, short_side=short_side, max_long=max_long)
    for h, w in sizes
  ]
  return np.array(chosen, np.int64)[number.ravel()]


class Schedule(grain.transforms.DatasetSelectionMap):
  """Step -> (which canvas, which batch of that canvas), without end and without state.

  Canvases come up as often as they have clips, and evenly: every batch of a canvas falls into its
  own part of the period, at a random place there. So no canvas is ever further ahead of its share,
  or behind it, than by as many batches as there are other canvases.
  """

  def __init__(self, counts: Sequence[int], seed: int):
    """counts: clips of each canvas, none of them 0."""
    share = np.array(counts, np.int64) // np.gcd.reduce(counts)  # batches in one period
    generator = np.random.default_rng(seed)
    due = [(np.arange(n) + generator.random(n)) / n for n in share]  # one in every n-th part
    order = np.argsort(np.concatenate(due), kind='stable')
    self._share = share
    self._canvas = np.repeat(np.arange(len(share)), share)[order]
    self._batch = np.concatenate([np.arange(n) for n in share])[order]

  def __len__(self) -> int:
    """As good as endless."""
    return sys.maxsize

  def __getitem__(self, step: int) -> tuple[int, int]:
    """Canvas and batch number of a step, counted from 0."""
    period, place = divmod(step, len(self._canvas))
    canvas = int(self._canvas[place])
    return canvas, int(period * self._share[canvas] + self._batch[place])
