"""Communication volume of a compiled program, read from its text (HLO).

Counts are per device and run of the program; the body of a loop is counted once.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

from evad_jax.cost.compiled_cost import arrays_in

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_LINE = re.compile(rf'= (.*?) ({"|".join(KINDS)})(-start)?\((.*)')
_MESH = re.compile(r'replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}')


class Collective(NamedTuple):
  """One collective operation."""

  kind: str  # one of KINDS
  result_bytes: int  # of its result on one device
  group: int  # devices that take part together

  def sent_bytes(self) -> int:
    """Bytes that one device sends around a ring, the least possible."""
    others = (self.group - 1) / self.group
    share = {
      'all-reduce': 2 * others,
      'all-gather': others,
      'reduce-scatter': self.group - 1,
      'all-to-all': others,
      'collective-permute': 1,
    }[self.kind]
    return round(share * self.result_bytes)


def read(text: str) -> list[Collective]:
  """Every collective of a program; text: `compiled.as_text()`."""
  found = []
  for line in text.splitlines():
    match = _LINE.search(line)
    if not match:
      continue
    result, kind, started, rest = match.groups()
    sizes = [width * math.prod(shape) for width, shape in arrays_in(result)]
    if started and kind != 'all-reduce':  # (operands, results)
      sizes = sizes[len(sizes) // 2 :]
    group = 2 if kind == 'collective-permute' else _group(rest)
    if group > 1:
      found.append(Collective(kind, sum(sizes), group))
  return found


def sent_by_kind(collectives: list[Collective]) -> dict[str, int]:
  """Bytes that one device sends, for every kind that occurs."""
  total: Counter[str] = Counter()
  for collective in collectives:
    total[collective.kind] += collective.sent_bytes()
  return dict(total)


def _group(rest: str) -> int:
  """The size of the groups, in any of the three notations that XLA uses."""
  mesh = _MESH.search(rest)
  if mesh:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
  listed = re.search(r'replica_groups=\{\{([\d,]*)\}', rest)
  if listed:
    return len(listed[1].split(','))
  folded = re.search(r'replica_groups=\[\d+,(\d+)\]', rest)
  if folded:
    return int(folded[1])
  raise ValueError(f'No replica groups in {rest[:200]!r}.')
