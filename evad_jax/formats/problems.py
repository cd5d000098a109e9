"""Problems with the input of a preparation: printed at once, counted, kept for the manifest."""

import collections
import sys
import threading

from tqdm import tqdm

from evad_jax import printable
from evad_jax.errors import InputError

MOST_TOLD = 20  # printed problems per kind; the manifest has all of them


class Problems:
  """A list of problems by kind and name, each once, in the order of reporting."""

  def __init__(self, strict: bool = False):
    """With `strict` the first problem raises InputError."""
    self.strict = strict
    self.entries: list[dict[str, str]] = []
    self._known: set[tuple[str, ...]] = set()
    self._screen = _Screen()

  def report(self, kind: str, name: str, detail: str) -> None:
    """Keeps a problem, and prints it to standard error without breaking a progress bar.

    Args:
      kind: a few words that group problems, e.g. 'missing video'.
      name: of the video or file.
      detail: what was done about it.

    Raises:
      InputError: `strict` is set.
    """
    name, detail = printable.name_of(name), printable.writable(printable.without_secrets(detail))
    if self.strict:
      raise InputError(f'{name}: {kind}: {detail} (--strict stops at the first problem)')
    if self._add(kind, name, detail):
      self._screen.tell(kind, name, detail)

  def part(self) -> 'Problems':
    """An empty list for a part of the work, which another thread may fill; `extend` merges it."""
    part = Problems(self.strict)
    part._screen = self._screen
    return part

  def extend(self, entries: list[dict[str, str]]) -> None:
    """Adds the problems of a part without printing them again; raises as `report` does."""
    for entry in entries:
      if self.strict:
        self.report(**entry)
      self._add(**entry)

  def counts(self) -> dict[str, int]:
    """Number of problems of each kind, the most frequent first."""
    counter = collections.Counter(entry['kind'] for entry in self.entries)
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))

  def names(self, kind: str) -> list[str]:
    """What was reported under a kind."""
    return [entry['name'] for entry in self.entries if entry['kind'] == kind]

  def _add(self, kind: str, name: str, detail: str) -> bool:
    """Whether it is new."""
    if (kind, name, detail) in self._known:
      return False
    self._known.add((kind, name, detail))
    self.entries.append({'kind': kind, 'name': name, 'detail': detail})
    return True


class _Screen:
  """Prints problems: each once, whichever thread meets it, and the first few of each kind."""

  def __init__(self):
    self._lock = threading.Lock()
    self._told: set[tuple[str, ...]] = set()
    self._counts: collections.Counter = collections.Counter()

  def tell(self, kind: str, name: str, detail: str) -> None:
    with self._lock:
      if (kind, name, detail) in self._told:
        return
      self._told.add((kind, name, detail))
      self._counts[kind] += 1
      if self._counts[kind] <= MOST_TOLD:
        tqdm.write(f'problem: {name}: {kind}: {detail}', file=sys.stderr)
      elif self._counts[kind] == MOST_TOLD + 1:
        tqdm.write(f'problem: more of the kind {kind!r}, not printed one by one', file=sys.stderr)


def complain(problems: Problems | None, kind: str, name: str, fault: str, done: str) -> None:
  """Reports a fault and what was done about it; raises InputError if there is no list."""
  if problems is None:
    raise InputError(f'{name}: {kind}: {fault}')
  problems.report(kind, name, f'{fault}; {done}')
