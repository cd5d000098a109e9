"""Time by part of the model, from a trace of jax.profiler and the compiled program's text.

The trace names operations of the compiled program; the program's text says which line of the model
each comes from (op_name). Needs only the standard library.
"""

import collections
import gzip
import json
import re
from pathlib import Path

# The first pattern found in an operation's name gives its part.
PARTS = (
  ('pruning', r'top_k|importance|take_along_axis'),
  ('encoder attention', r'encoder/.*attention'),
  ('encoder MLP', r'encoder/.*mlp'),
  ('encoder, other', r'encoder'),
  ('pyramid', r'fpn'),
  ('person stages', r'person_detector'),
  ('decoder attention', r'context_refinement/.*attention'),
  ('decoder, other', r'context_refinement'),
)
OTHER = 'losses, matcher, optimizer'
UNKNOWN = 'not recognised'
OUTER = re.compile(r'^(while|call|conditional)')  # their time is that of their bodies


def part_of(name: str) -> str:
  """The part that an operation's op_name belongs to, forward or backward."""
  for part, pattern in PARTS:
    if re.search(pattern, name):
      return f'{part}, backward' if 'transpose(' in name else part
  return OTHER


def names_of(program: str) -> dict[str, str]:
  """Instruction of the compiled program -> its op_name ('' if it has none)."""
  found = {}
  for line in program.splitlines():
    instruction = re.match(r'\s*(?:ROOT )?%?([\w.-]+) = ', line)
    if instruction:
      origin = re.search(r'op_name="([^"]*)"', line)
      found[instruction[1]] = origin[1] if origin else ''
  return found


def operations(events: list[dict]) -> list[dict]:
  """The events of operations, each once.

  An accelerator has a process of its own in the trace and may list the same time on several
  threads: by operation, by module, by step. A CPU's operations are among the host's events.
  """
  processes, threads = {}, {}
  for event in events:
    if event.get('ph') == 'M' and event.get('name') in ('process_name', 'thread_name'):
      found = processes if event['name'] == 'process_name' else threads
      found[event.get('pid'), event.get('tid')] = event['args'].get('name', '')
  devices = {pid for (pid, _), name in processes.items() if '/device:' in name}
  by_operation = {key for key, name in threads.items() if name == 'XLA Ops' and key[0] in devices}
  found = [event for event in events if event.get('ph') == 'X']
  if by_operation:
    return [event for event in found if (event.get('pid'), event.get('tid')) in by_operation]
  return [event for event in found if not devices or event.get('pid') in devices]


def by_part(directory: Path, program: str) -> dict[str, float]:
  """Seconds by part over the complete trace; empty if the trace has none of the operations."""
  names, spent, known = names_of(program), collections.Counter(), 0
  for path in sorted(directory.glob('**/*.trace.json.gz')):
    with gzip.open(path, 'rt', encoding='utf-8') as file:
      events = json.load(file).get('traceEvents', [])
    for event in operations(events):
      arguments = event.get('args') or {}
      operation = arguments.get('hlo_op', event.get('name', ''))
      if OUTER.match(operation):
        continue
      if operation in names:
        known += 1
        spent[part_of(names[operation]) if names[operation] else UNKNOWN] += event['dur'] / 1e6
      elif 'hlo_op' in arguments:
        spent[UNKNOWN] += event['dur'] / 1e6
  return dict(spent) if known else {}
