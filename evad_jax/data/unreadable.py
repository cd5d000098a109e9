"""Skips unreadable clips, where config.data.unreadable is 'skip'.

The clip keeps its row in the batch, which is masked. So the order of all other clips, the position
at which a run resumes, and what other hosts read do not depend on it. `Batch.index` still gives its
number: -2 - number there, and -1 for padding.
"""

import sys

import numpy as np

from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import InputError

POLICIES = ('stop', 'skip')
TOLD = 20  # clips that are reported one by one
FEWEST = 100  # clips after which a run stops if most are unreadable


def numbers_in(index: np.ndarray) -> list[int]:
  """The numbers of the unreadable examples in a batch's `index` (B,)."""
  return [-2 - number for number in np.asarray(index).tolist() if number < -1]


class Unreadable:
  """Counts and reports the unreadable clips of one process."""

  def __init__(self, index: RecordIndex):
    """Starts with none."""
    self._index = index
    self.numbers: dict[int, None] = {}  # in the order of their first appearance
    self._met = 0  # rows of all batches seen

  def note(self, index: np.ndarray) -> None:
    """Reads the `index` (B,) of a batch, and reports new unreadable clips on standard error.

    Raises InputError where most clips are unreadable: then the damage is not limited to a few.
    """
    self._met += len(index)
    for number in numbers_in(index):
      if number not in self.numbers:
        self.numbers[number] = None
        if len(self.numbers) <= TOLD:
          print(f'unreadable clip skipped: {self.name(number)}', file=sys.stderr, flush=True)
    if self._met >= FEWEST and 2 * len(self.numbers) > self._met:
      raise InputError(
        f'{self._index.directory}: {len(self.numbers)} of {self._met} clips cannot be read, first '
        f'{self.name(next(iter(self.numbers)))}; config.data.unreadable=skip is meant for a few, '
        'so copy or prepare the data again.'
      )

  def name(self, number: int) -> str:
    """Video and time of a clip."""
    return name(self._index, number)


def name(index: RecordIndex, number: int) -> str:
  """Video and time of a clip."""
  return f'{index.videos[number]} at {index.timestamps[number]}'


def summary(index: RecordIndex, numbers: list[int]) -> str:
  """The sentence for the end of a run; '' where no clip was unreadable."""
  numbers = sorted(set(numbers))
  if not numbers:
    return ''
  named = ', '.join(name(index, number) for number in numbers[:TOLD])
  more = ', ...' if len(numbers) > TOLD else ''
  return (
    f'{len(numbers)} of {len(index)} clips of {index.split} could not be read and were skipped: '
    f'{named}{more}; prepare the data again without them.'
  )
