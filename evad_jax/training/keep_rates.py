"""Draws a keep rate at each step, so that one set of parameters serves every budget.

As in slimmable networks (arXiv 1812.08928). Each rate is a compiled program of its own. The rate
follows from seed and step alone: all hosts draw the same, and a resumed run draws what it would
have drawn without the interruption.
"""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from evad_jax.model import multiply_adds
from evad_jax.model.evad import EVAD

KeepRate = float | tuple[float, ...]  # one for all pruning blocks, or one for each

_STREAM = 7  # separates this use of the seed from others


def of_step(rates: Sequence[KeepRate], seed: int, step: int) -> KeepRate:
  """The keep rate of a step, counted from 1.

  Each round of len(rates) steps has every rate once, in a new random order.
  """
  turn, place = divmod(step - 1, len(rates))
  order = np.random.default_rng((_STREAM, seed, turn)).permutation(len(rates))
  return rates[order[place]]


def listed(config: ConfigDict) -> tuple[KeepRate, ...]:
  """The rates that training draws from: config.train.keep_rates, or the model's own alone."""
  rates = config.train.keep_rates or (config.model.keep_rate,)
  return tuple(tuple(rate) if isinstance(rate, tuple | list) else rate for rate in rates)


def check(config: ConfigDict, model: EVAD) -> None:
  """Raises InputError for a rate that a canvas does not allow, before anything is compiled."""
  for rate in listed(config):
    for canvas in config.clip.canvases:
      multiply_adds.count_tokens(
        model.clone(keep_rate=rate), config.clip.clip_frames, tuple(canvas)
      )
