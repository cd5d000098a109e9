"""Tests and measures an accelerator in ten minutes, in one command.

  python -m evad_jax.tools.accelerator_report --seconds 560 --output DIR

Stages: device (its name and peak rates), tests (those marked `accelerator`), prediction and
training (time, memory, share of the peak), parts (of the model, one by one), pytorch (on the same
device), profile (time by part of the model), records (thirty steps from files). Each stage is a
process of its own with a time limit. DIR/report.md and DIR/report.jsonl are rewritten after each:
whatever ends the command, at most one stage is lost, and the same command runs the missing ones.

Exit status 1 where a stage failed, ran over its limit or had no time left; the last lines name it.
"""

import argparse
import os
import time
from pathlib import Path

from evad_jax import checkout, command_line
from evad_jax.cost import stage_runs
from evad_jax.cost.stage_runs import DONE, FAILED, OVER, SKIPPED, Result
from evad_jax.errors import InputError
from evad_jax.files.atomic_files import write_json

MODULE = 'evad_jax.tools.accelerator_report'
# Name -> the largest share of --seconds that it may take. They add up to more than 1, because most
# stages need less.
SHARES = {
  'device': 0.10,
  'tests': 0.25,
  'prediction': 0.22,
  'training': 0.26,
  'parts': 0.16,
  'pytorch': 0.12,
  'profile': 0.16,
  'records': 0.30,
}
SHORTEST = 45  # seconds that every stage may take, in a short report too
SIZES = ('auto', 'B', 'L', 'small', 'tiny')


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = command_line.Parser(MODULE, __doc__)
  add = parser.add_argument
  add(
    '--output', type=Path, required=True, metavar='DIR', help='directory of the report; resumes it'
  )
  add('--seconds', type=command_line.positive, default=560, help='limit in total (default 560)')
  add('--size', choices=SIZES, default='auto', help='model size; auto: B, on a CPU tiny')
  add('--batches', nargs='+', type=command_line.positive, help='batch sizes (8 1 16; CPU: 2)')
  add('--stages', nargs='+', choices=SHARES, default=list(SHARES), help='what to run (all)')
  add('--again', action='store_true', help='also repeat stages that failed or ran over their limit')
  add('--stage', choices=SHARES, help=argparse.SUPPRESS)  # this process runs that stage
  add('--limit', type=float, help=argparse.SUPPRESS)  # seconds for it
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
  """The command line; returns the exit status."""
  args = parse_arguments(argv)
  if args.stage:
    return work(args)
  checkout.module('configs.common')  # every stage would fail without it
  begin = time.monotonic()
  results = open_report(args)
  known = {result.stage for result in results}
  for name in sorted(known & set(args.stages), key=list(SHARES).index):
    print(f'{name}: from the earlier run', flush=True)
  waiting = [name for name in SHARES if name in args.stages and name not in known]
  total, without_time = len(waiting), []
  for number, name in enumerate(waiting, 1):
    left = args.seconds - (time.monotonic() - begin)
    if left < stage_runs.LEAST:
      without_time = waiting[number - 1 :]
      break
    limit = min(left, max(SHORTEST, SHARES[name] * args.seconds))
    print(f'[{number}/{total}] {name}: at most {limit:.0f} s of {left:.0f} s left', flush=True)
    command = stage_runs.stage_command(MODULE, name, limit, settings_of(args))
    result = stage_runs.run_stage(args.output, name, command, limit, environment(args, name))
    results = sorted([*results, result], key=lambda r: list(SHARES).index(r.stage))
    stage_runs.write_results(args.output, title(args), results)
    print(progress(result, args, begin, waiting[number:]), flush=True)
  return summary(args, results, without_time)


def open_report(args: argparse.Namespace) -> list[Result]:
  """Returns earlier results. Raises InputError where DIR was started with other settings."""
  import json

  try:
    args.output.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'--output {args.output} cannot be made a directory ({error}).') from error
  settings, path = {'size': args.size, 'batches': args.batches}, args.output / 'settings.json'
  if path.exists():
    before = json.loads(path.read_text(encoding='utf-8'))
    if before != settings:
      raise InputError(
        f'{args.output} holds a report with the settings {before}; use those, or choose another '
        '--output.'
      )
  else:
    write_json(path, settings)
  results = stage_runs.read_results(args.output)
  repeated = args.stages if args.again else ()
  return [r for r in results if r.status in (DONE, SKIPPED) or r.stage not in repeated]


def settings_of(args: argparse.Namespace) -> list[str]:
  """The flags that a stage's process needs."""
  flags = ['--output', str(args.output), '--size', args.size]
  return flags + (['--batches', *map(str, args.batches)] if args.batches else [])


def environment(args: argparse.Namespace, name: str) -> dict[str, str]:
  """Stages share compiled programs; PyTorch and JAX share the device in the stage `pytorch`."""
  found = dict(os.environ)
  found.setdefault('JAX_COMPILATION_CACHE_DIR', str((args.output / 'programs').resolve()))
  if name == 'pytorch':
    found.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  return found


def title(args: argparse.Namespace) -> str:
  """The first line of report.md."""
  return f'Accelerator report, size {args.size}'


def progress(result: Result, args: argparse.Namespace, begin: float, after: list[str]) -> str:
  """One line: how a stage ended, and the time left."""
  left = args.seconds - (time.monotonic() - begin)
  to_go = min(left, args.seconds * sum(SHARES[name] for name in after))
  text = f'  {result.status} in {result.seconds:.0f} s, {len(result.rows)} rows'
  if result.status == SKIPPED:
    text += f' ({result.notes[-1]})'
  return f'{text}; {left:.0f} s left, at most {max(0, to_go):.0f} s to go'


def summary(args: argparse.Namespace, results: list[Result], without_time: list[str]) -> int:
  """Prints the report and what it lacks; returns the exit status."""
  print((args.output / 'report.md').read_text(encoding='utf-8') if results else '')
  bad = [f'{r.stage} {r.status}' for r in results if r.status in (FAILED, OVER)]
  bad = [text for text in bad if text.split()[0] in args.stages]
  skipped = [f'{r.stage} ({r.notes[-1]})' for r in results if r.status == SKIPPED]
  if skipped:
    print(f'Skipped: {"; ".join(skipped)}')
  if bad:
    print(f'Failed: {", ".join(bad)}; --again repeats them')
  if without_time:
    print(f'No time for: {", ".join(without_time)}; the same command runs them')
  print(f'The report: {args.output / "report.md"}')
  return 1 if bad or without_time else 0


def work(args: argparse.Namespace) -> int:
  """Runs one stage in this process."""
  stage_runs.end_with_parent()
  from evad_jax.cost import accelerator_stages  # imports JAX, which only stages need

  stage = stage_runs.Stage(args.output, args.stage, args.limit)
  try:
    return accelerator_stages.run(stage, args.size, args.batches)
  except stage_runs.Skipped as reason:
    stage.skipped(str(reason))
    return 0


if __name__ == '__main__':
  command_line.run(main)
