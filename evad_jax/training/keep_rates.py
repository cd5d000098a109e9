"""Keep rates drawn step by step, so that one set of parameters serves every budget.

The way of slimmable networks (arXiv 1812.08928): every rate is a compiled program of its own, and
which one has its turn follows from seed and step alone, so that all hosts take the same, and a run
that is resumed goes on with the one it would have had.
"""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from evad_jax.model import multiply_adds
from evad_jax.model.evad import EVAD

KeepRate = float | tuple[float, ...]  # one for all blocks that prune, or one each

_STREAM = 7  # tells this use of the seed from others


def of_step(rates: Sequence[KeepRate], seed: int, step: int) -> KeepRate:
  """The keep rate of a step, counted from 1.

  Each round of len(rates) steps has every rate once, in an order of its own.
  """
  turn, place = divmod(step - 1, len(rates))
  order = np.random.default_rng((_STREAM, seed, turn)).permutation(len(rates))
  return rates[order[place]]


def listed(config: ConfigDict) -> tuple[KeepRate, ...]:
  """The rates that training draws from: config.train.keep_rates, or the model's own alone."""
  rates = config.train.keep_rates or (config.model.keep_rate,)
  return tuple(tuple(rate) if isinstance(rate, tuple | list) else rate for rate in rates)


def check(config: ConfigDict, model: EVAD) -> None:
  """Raises InputError for a rate that a canvas makes impossible, before anything is compiled."""
  for rate in listed(config):
    for canvas in config.clip.canvases:
      multiply_adds.count_tokens(
        model.clone(keep_rate=rate), config.clip.clip_frames, tuple(canvas)
      )
