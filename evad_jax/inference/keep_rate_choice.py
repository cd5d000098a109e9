"""Chooses the keep rate that a stream can afford, from how long calls have taken.

    choice = start({1.0: 0.30, 0.7: 0.18})      seconds per batch, measured on an idle machine
    rate = choose(choice, budget=0.25)
    choice = observe(choice, rate, seconds)

A busy machine slows all rates down alike. So one number is learned, the load of the machine, and a
rate that has not run for an hour is judged by the current load.
"""

from collections.abc import Mapping
from typing import NamedTuple

MEMORY = 0.7  # weight of the previous load at each observation


class Choice(NamedTuple):
  """Measured times and the current load."""

  seconds: tuple[tuple[float, float], ...]  # (keep rate, seconds per batch at load 1), rate falling
  load: float  # factor by which batches take longer now


def start(seconds: Mapping[float, float]) -> Choice:
  """seconds: keep rate -> measured seconds per batch; at least one."""
  return Choice(tuple(sorted(seconds.items(), reverse=True)), 1.0)


def choose(choice: Choice, budget: float) -> float:
  """The highest rate that stays within `budget` seconds, or the lowest if none does."""
  for rate, seconds in choice.seconds:
    if seconds * choice.load <= budget:
      return rate
  return choice.seconds[-1][0]


def observe(choice: Choice, rate: float, seconds: float) -> Choice:
  """Updates the load after a batch at `rate` that took `seconds`."""
  load = seconds / dict(choice.seconds)[rate]
  return choice._replace(load=MEMORY * choice.load + (1 - MEMORY) * load)
