"""Keep rates chosen by hand-worked tables, and on a machine that gets busy."""

import pytest

from evad_jax.inference.keep_rate_choice import MEMORY, choose, observe, start

SECONDS = {0.7: 0.2, 1.0: 0.3, 0.5: 0.1}


@pytest.mark.parametrize(
  'budget, load, rate',
  [
    (1.0, 1.0, 1.0),
    (0.3, 1.0, 1.0),  # just within
    (0.299, 1.0, 0.7),
    (0.2, 1.0, 0.7),
    (0.15, 1.0, 0.5),
    (0.01, 1.0, 0.5),  # none stays within: the lowest
    (0.3, 1.25, 0.7),  # 0.375, 0.25
    (0.3, 1.6, 0.5),  # 0.48, 0.32, 0.16
    (0.3, 0.5, 1.0),
    (0.15, 0.5, 1.0),
  ],
)
def test_the_highest_rate_within_the_budget(budget, load, rate):
  assert choose(start(SECONDS)._replace(load=load), budget) == rate


def test_one_rate_is_always_chosen():
  assert choose(start({0.6: 9.0}), 0.1) == 0.6


def test_load_is_learned_from_the_rate_that_ran():
  choice = start(SECONDS)
  assert choice.load == 1
  choice = observe(choice, 0.7, 0.6)  # three times as long as measured
  assert choice.load == pytest.approx(MEMORY + (1 - MEMORY) * 3)
  again = observe(choice, 0.5, 0.1)
  assert again.load == pytest.approx(MEMORY * choice.load + (1 - MEMORY))
  assert choice.seconds == again.seconds == ((1.0, 0.3), (0.7, 0.2), (0.5, 0.1))


def run(choice, budget, machine, steps):
  """The rates of some batches on a machine that takes `machine` times as long as measured."""
  rates = []
  for _ in range(steps):
    rates.append(choose(choice, budget))
    choice = observe(choice, rates[-1], SECONDS[rates[-1]] * machine)
  return choice, rates


def test_a_busy_machine_and_its_recovery():
  """Loads after n steps at 3: 3 - 2 * 0.7^n = 1.6 2.02 2.314 2.52 2.66 2.76 ...; budget 0.25."""
  choice, rates = run(start(SECONDS), 0.25, 1.0, 3)
  assert rates == [0.7] * 3
  choice, rates = run(choice, 0.25, 3.0, 12)
  assert rates == [0.7] + [0.5] * 11  # 0.2 * 1.6 is too much at once
  assert choice.load == pytest.approx(3 - 2 * 0.7**12)
  # Back at 1: 1 + 1.97 * 0.7^n is at most 1.25 from n = 6 on.
  choice, rates = run(choice, 0.25, 1.0, 9)
  assert rates == [0.5] * 6 + [0.7] * 3


def test_a_faster_machine_than_measured():
  """Seconds measured while something else ran: at half of them 1.0 fits into 0.2 from 0.667 on."""
  # Loads 0.5 + 0.5 * 0.7^n: 1 0.85 0.745 0.6715 0.62.
  _, rates = run(start(SECONDS), 0.2, 0.5, 6)
  assert rates == [0.7, 0.7, 0.7, 0.7, 1.0, 1.0]


def test_a_long_run_keeps_the_measured_times():
  choice, _ = run(start(SECONDS), 0.2, 1.3, 1000)
  assert choice._replace(load=1) == start(SECONDS)
  assert choice.load == pytest.approx(1.3)
