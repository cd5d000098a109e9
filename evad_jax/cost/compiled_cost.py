"""The cost of one run of a compiled program, read from its text (HLO) without running it.

A loop counts once per iteration, a conditional as its chosen branch, and a fusion as what it reads
and writes, where a slice of an array counts only the slice. A search with an unknown number of
iterations inside a loop over n columns (the matcher's) takes 1 + 2 + ... + n iterations at most.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$')
_ARRAY = re.compile(r'\b(pred|[sufc]\d+|bf16|f8\w+)\[([\d,]*)\]')
_NAME = re.compile(r'%([\w.\-]+)')
# Instructions that cost nothing themselves.
_FREE = set(
  'parameter constant get-tuple-element tuple bitcast after-all partition-id replica-id '
  'optimization-barrier iota copy-done async-done all-reduce-done all-gather-done'.split()
)
_SLICES = {'dynamic-slice', 'gather', 'slice'}
# Parts of the model, by patterns in operation names; the first match counts.
PARTS = (
  ('matcher', r'cond/branch_\d+_fun|match'),
  ('optimizer', r'^jit\(\w+\)/(jit\(_where\)|reduce_sum|mul|add|sqrt|div|square)'),
  ('attention', r'encoder/(.*/)?block_\d+/attention'),
  ('pruning', r'encoder/(.*/)?block_\d+/(top_k|jit\(take|concatenate|gather|scatter)'),
  ('MLP', r'encoder/(.*/)?block_\d+/mlp'),
  ('encoder, rest', r'encoder/'),
  ('person stages, RoIAlign', r'person_detector/(bpjx|bpiy|bkx|jit\(_take|gather|reduce|mul)'),
  ('person stages', r'person_detector/'),
  ('pyramid', r'fpn/'),
  ('decoder', r'context_refinement/'),
  ('rest', ''),
)


class Work(NamedTuple):
  """One operation that a device launches, and how often."""

  part: str  # of the model, one of PARTS
  kind: str  # 'product', 'attention', 'attention backward', 'convolution', 'kernel' or 'other'
  times: float
  flops: float  # per run
  bytes: int  # read and written per run
  cycles: int  # estimated by a TPU's compiler; 0 if it gives none


class Instruction(NamedTuple):
  """One line of a program."""

  name: str
  kind: str
  arrays: tuple[tuple[int, tuple[int, ...]], ...]  # of the result: bytes of an element, shape
  operands: tuple[str, ...]
  line: str
  root: bool

  def bytes(self) -> int:
    """Bytes of the result."""
    return sum(width * math.prod(shape) for width, shape in self.arrays)


def read(text: str, branch: int = 0) -> list[Work]:
  """The work of one run; text: `compiled.as_text()`; branch: its index in every conditional.

  Raises ValueError if the text has no entry.
  """
  computations, entry = _parse(text)
  if entry is None:
    raise ValueError('The text is not a compiled program: it has no ENTRY.')
  return list(_walk(computations, entry, 1.0, 1, branch))


def by_part(work: list[Work], seconds) -> dict[str, float]:
  """Total seconds for every part of the model, largest first; seconds: Work -> seconds per run."""
  total: Counter[str] = Counter()
  for item in work:
    total[item.part] += item.times * seconds(item)
  return dict(total.most_common())


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str | None]:
  computations, current, entry = {}, None, None
  for line in text.splitlines():
    head = _COMPUTATION.match(line)
    if head:
      current = head[2]
      computations[current] = []
      entry = current if head[1] else entry
    elif line.startswith('}'):
      current = None
    elif current:
      found = _INSTRUCTION.match(line)
      if found:
        name, result, kind, rest = found.groups()
        arrays = arrays_in(result)
        operands = tuple(_NAME.findall(rest[: _closing(rest)]))
        root = line.lstrip().startswith('ROOT ')
        computations[current].append(Instruction(name, kind, arrays, operands, line, root))
  return computations, entry


def arrays_in(text: str) -> tuple[tuple[int, tuple[int, ...]], ...]:
  """Bytes of an element, and shape, of every array type in a text such as '(f32[2,3], pred[])'."""
  found = []
  for kind, sizes in _ARRAY.findall(text):
    one = kind == 'pred' or kind.startswith('f8')
    width = 1 if one else max(1, int(re.sub(r'\D', '', kind)) // 8)
    found.append((width, tuple(int(size) for size in sizes.split(',') if size)))
  return tuple(found)


def _closing(rest: str) -> int:
  """Index at which the list of operands ends."""
  depth = 1
  for i, letter in enumerate(rest):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return i
  return len(rest)


def _walk(
  computations: dict[str, list[Instruction]], name: str, times: float, loop: int, branch: int
) -> Iterator[Work]:
  """loop: iterations of the enclosing loop, 1 if there is none."""
  known = {x.name: x for x in computations[name]}
  for item in computations[name]:
    if item.kind in _FREE:
      continue
    if item.kind == 'while':
      turns = _turns(computations, item) or (loop + 1) / 2
      body = re.search(r'body=%?([\w.\-]+)', item.line)[1]
      yield from _walk(computations, body, times * turns, int(turns), branch)
    elif item.kind == 'conditional':
      listed = re.search(r'branch_computations=\{(.*?)\}', item.line)
      if listed:
        names = _NAME.findall(listed[1])
      else:
        names = re.findall(r'(?:true|false)_computation=%?([\w.\-]+)', item.line)
      chosen = names[min(branch, len(names) - 1)]
      yield from _walk(computations, chosen, times, loop, branch)
    elif item.kind == 'call':
      called = re.search(r'to_apply=%?([\w.\-]+)', item.line)[1]
      yield from _walk(computations, called, times, loop, branch)
    else:
      yield _work(computations, known, item, times)


def _turns(computations: dict[str, list[Instruction]], item: Instruction) -> int | None:
  """Iterations of a loop: the compiler's count, or the constant that bounds its counter."""
  count = re.search(r'known_trip_count\D*(\d+)', item.line)
  if count:
    return int(count[1])
  condition = computations[re.search(r'condition=%?([\w.\-]+)', item.line)[1]]
  known = {x.name: x for x in condition}
  root = next(x for x in condition if x.root)
  if root.kind != 'compare' or 'direction=LT' not in root.line or len(root.operands) != 2:
    return None
  counter, bound = (known.get(name) for name in root.operands)
  if not (counter and bound and counter.kind == 'get-tuple-element' and bound.kind == 'constant'):
    return None
  return int(re.search(r'constant\((\d+)\)', bound.line)[1])


def _work(computations, known, item: Instruction, times: float) -> Work:
  operands = [known[name] for name in item.operands if name in known]
  kind, flops = _arithmetic(computations, item, operands)
  called = re.search(r'calls=%?([\w.\-]+)', item.line)
  if item.kind in ('fusion', 'async-start') and called and called[1] in computations:
    moved = _fusion_bytes(computations[called[1]], item)
  elif item.kind in _SLICES:
    moved = 2 * item.bytes()
  elif item.kind == 'dynamic-update-slice':
    moved = 2 * operands[1].bytes() if len(operands) > 1 else item.bytes()
  else:
    moved = item.bytes() + sum(x.bytes() for x in operands)
    # A library's workspace occupies memory but is not traffic.
    moved -= sum(
      w * math.prod(s) for w, s in item.arrays[1:] if item.kind == 'custom-call' and w == 1
    )
  cycles = re.search(r'"estimated_cycles":"(\d+)"', item.line)
  name = re.search(r'op_name="([^"]*)"', item.line)
  return Work(
    _part(name[1] if name else ''), kind, times, flops, moved, int(cycles[1]) if cycles else 0
  )


def _part(name: str) -> str:
  return next(part for part, pattern in PARTS if re.search(pattern, name))


def _fusion_bytes(body: list[Instruction], item: Instruction) -> int:
  """Bytes that a fusion reads of its operands, and writes."""
  users: dict[str, list[Instruction]] = {}
  for inner in body:
    for name in inner.operands:
      users.setdefault(name, []).append(inner)
  written = item.bytes()
  read_bytes = 0
  for inner in body:
    if inner.kind != 'parameter':
      continue
    used = users.get(inner.name, [])
    first = [x for x in used if x.operands and x.operands[0] == inner.name]
    if used and len(first) == len(used) and all(x.kind in _SLICES for x in used):
      read_bytes += sum(min(x.bytes(), inner.bytes()) for x in used)
    elif used and len(first) == len(used) and all(x.kind == 'dynamic-update-slice' for x in used):
      # In place: only the updated slice is written; the rest is untouched.
      written -= inner.bytes()
      by_name = {x.name: x for x in body}
      written += sum(by_name[x.operands[1]].bytes() for x in used)
    else:
      read_bytes += inner.bytes()
  return read_bytes + max(0, written)


def _arithmetic(computations, item: Instruction, operands: list[Instruction]) -> tuple[str, float]:
  """Kind of work, and operations (two per multiply-add)."""
  target = re.search(r'custom_call_target="([^"]*)"', item.line)
  target = target[1] if target else ''
  if item.kind == 'dot' or 'cublas' in target:
    return 'product', _dot(item, operands)
  if 'fmhaSoftmax' in target:
    query, key = (x.arrays[0][1] for x in operands[:2])
    # cuDNN's operands are (B, N, heads, d); scores and sums, or five products backward.
    b, n, heads, width = query
    products, kind = (5, 'attention backward') if 'Backward' in target else (2, 'attention')
    return kind, 2.0 * products * b * heads * n * key[1] * width
  if target.startswith('__cudnn$conv'):
    out, first = item.arrays[0][1], operands[0].arrays[0][1]
    if 'BackwardFilter' in target:
      return 'convolution', 2.0 * math.prod(out) * math.prod(first) / first[-1]
    window = re.search(r'size=([\dx]+)', item.line)
    size = math.prod(int(x) for x in window[1].split('x')) if window else 1
    return 'convolution', 2.0 * math.prod(out) * size * first[-1]
  if target == 'tpu_custom_call':
    return 'kernel', _flash(item, operands)
  if item.kind == 'fusion':
    called = re.search(r'calls=%?([\w.\-]+)', item.line)
    body = computations.get(called[1], []) if called else []
    known = {x.name: x for x in body}
    flops = 0.0
    for inner in body:
      if inner.kind == 'dot':
        flops += _dot(inner, [known[name] for name in inner.operands if name in known])
    return ('product' if flops else 'other'), flops
  return 'other', 0.0


def _dot(item: Instruction, operands: list[Instruction]) -> float:
  contracted = re.search(r'lhs_contracting_dim(?:ension)?s"?[:=][\[{]([\d",]*)[\]}]', item.line)
  if not contracted or not operands or not operands[0].arrays:
    return 0.0
  shape = operands[0].arrays[0][1]
  axes = [int(x) for x in re.findall(r'\d+', contracted[1])]
  return 2.0 * math.prod(item.arrays[0][1]) * math.prod(shape[i] for i in axes)


def _flash(item: Instruction, operands: list[Instruction]) -> float:
  """Operations of a kernel on (B, heads, N, d): two products forward, three and four backward."""
  shapes = [x.arrays[0][1] for x in operands if x.arrays and len(x.arrays[0][1]) == 4]
  if len(shapes) < 3:
    return 0.0
  (b, heads, n, width), key = shapes[0], shapes[1]
  products = 4 if '_dkv_' in item.name else 3 if '_dq_' in item.name else 2
  return 2.0 * products * b * heads * n * key[2] * width
