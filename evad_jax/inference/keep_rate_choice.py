"""Which of several keep rates a stream can afford, from how long each has taken.

    choice = start({1.0: 0.30, 0.7: 0.18})      seconds a batch, measured on the idle machine
    rate = choose(choice, budget=0.25)
    choice = observe(choice, rate, seconds)

A busy machine slows all rates down alike. So what is learned while one runs is one number, the load
of the machine, and a rate that has not run for an hour is judged by today's load.
"""

from collections.abc import Mapping
from typing import NamedTuple

MEMORY = 0.7  # share of the old load that stays at each observation


class Choice(NamedTuple):
  """What is known."""

  seconds: tuple[tuple[float, float], ...]  # (keep rate, seconds a batch at load 1), rate falling
  load: float  # how many times as long batches take now


def start(seconds: Mapping[float, float]) -> Choice:
  """seconds: keep rate -> seconds a batch as measured; at least one."""
  return Choice(tuple(sorted(seconds.items(), reverse=True)), 1.0)


def choose(choice: Choice, budget: float) -> float:
  """The highest rate that stays within `budget` seconds, or the lowest where none does."""
  for rate, seconds in choice.seconds:
    if seconds * choice.load <= budget:
      return rate
  return choice.seconds[-1][0]


def observe(choice: Choice, rate: float, seconds: float) -> Choice:
  """Learns from a batch at `rate` that took `seconds`."""
  load = seconds / dict(choice.seconds)[rate]
  return choice._replace(load=MEMORY * choice.load + (1 - MEMORY) * load)
