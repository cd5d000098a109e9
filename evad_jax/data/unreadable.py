"""Clips that a run goes on without, where config.data.unreadable is 'skip'.

The place of such a clip in its batch stays, and is masked: so the order of all others does not
depend on it, nor does where a run continues, nor what other hosts read. Its number is still told:
`Batch.index` has -2 - number there, and -1 for filler.
"""

import sys

import numpy as np

from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError

POLICIES = ('stop', 'skip')
TOLD = 20  # clips that are named one by one
FEWEST = 100  # clips after which it is asked whether most can be read


def numbers_in(index: np.ndarray) -> list[int]:
  """The examples that could not be read, of a batch's `index` (B,)."""
  return [-2 - number for number in np.asarray(index).tolist() if number < -1]


class Unreadable:
  """Counts and names them for one process."""

  def __init__(self, index: RecordIndex):
    """None yet."""
    self._index = index
    self.numbers: dict[int, None] = {}  # in the order of meeting
    self._met = 0  # places of batches

  def note(self, index: np.ndarray) -> None:
    """Looks at the `index` (B,) of a batch, and names new ones on standard error.

    Raises InputError where most cannot be read: then it is not single clips that are damaged.
    """
    self._met += len(index)
    for number in numbers_in(index):
      if number not in self.numbers:
        self.numbers[number] = None
        if len(self.numbers) <= TOLD:
          print(f'skipped, cannot be read: {self.name(number)}', file=sys.stderr, flush=True)
    if self._met >= FEWEST and 2 * len(self.numbers) > self._met:
      raise InputError(
        f'{self._index.directory}: {len(self.numbers)} of {self._met} clips cannot be read, as '
        f'{self.name(next(iter(self.numbers)))}; config.data.unreadable=skip is for single ones, '
        'so copy or prepare the data again.'
      )

  def name(self, number: int) -> str:
    """Video and time of a clip."""
    return name(self._index, number)


def name(index: RecordIndex, number: int) -> str:
  """Video and time of a clip."""
  return f'{index.videos[number]} at {index.timestamps[number]}'


def summary(index: RecordIndex, numbers: list[int]) -> str:
  """A sentence for the end of a run; empty where there are none."""
  numbers = sorted(set(numbers))
  if not numbers:
    return ''
  named = ', '.join(name(index, number) for number in numbers[:TOLD])
  more = ', ...' if len(numbers) > TOLD else ''
  return (
    f'{len(numbers)} of {len(index)} clips of {index.split} could not be read and were skipped: '
    f'{named}{more}; prepare the data again without them.'
  )
