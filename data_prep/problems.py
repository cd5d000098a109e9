"""What was wrong with the input of a preparation: told at once, counted, kept for the manifest."""

import sys

from tqdm import tqdm

from evad_jax.errors import InputError


class Problems:
  """A list of problems by kind and name, in the order of reporting."""

  def __init__(self, strict: bool = False):
    """With `strict` the first problem raises InputError."""
    self.strict = strict
    self.entries: list[dict[str, str]] = []
    self._told: set[tuple[str, ...]] = set()

  def report(self, kind: str, name: str, detail: str) -> None:
    """Tells a problem once, on standard error and without breaking a progress bar.

    Args:
      kind: a few words that group problems, e.g. 'missing video'.
      name: of the video or file.
      detail: what was done about it.
    """
    if self.strict:
      raise InputError(f'{name}: {kind}: {detail} (--strict stops at the first problem)')
    if (kind, name, detail) in self._told:
      return
    self._told.add((kind, name, detail))
    self.entries.append({'kind': kind, 'name': name, 'detail': detail})
    tqdm.write(f'problem: {name}: {kind}: {detail}', file=sys.stderr)

  def counts(self) -> dict[str, int]:
    """Number of problems of each kind, the most frequent first."""
    kinds = [entry['kind'] for entry in self.entries]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda k: -kinds.count(k))}
