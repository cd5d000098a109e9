"""Compares the model with reference numbers: python -m tests.golden_check CASE.npz

Takes any file of the golden format (tests/golden/README.md). Prints the worst error of every stage
and exits with 1 where one is above its tolerance, with 2 where the input cannot be used.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from evad_jax.errors import exit_on_input_error
from evad_jax.model.evad import PADDINGS
from tests.golden_case import load_case
from tests.golden_compare import Row, compare_stages
from tests.golden_stages import stages_of
from tests.golden_train import compare_training


@contextlib.contextmanager
def _precision(x64: bool) -> Iterator[None]:
  """64-bit types on or off, and matrix products in full precision, for a while."""
  before = jax.config.jax_enable_x64
  jax.config.update('jax_enable_x64', x64)
  try:
    with jax.default_matmul_precision('highest'):
      yield
  finally:
    jax.config.update('jax_enable_x64', before)


def check(path: Path, *, strict: bool = False, **options) -> list[Row]:
  """All rows of a golden file; `options` are those of golden_case.load_case.

  strict: float32 training is not run again where it fails (golden_train.compare_training).

  Raises InputError where the file or the options cannot be used.
  """
  case = load_case(path, **options)
  with _precision(case.x64):
    if case.kind == 'train':
      return compare_training(case, strict=strict)
    return compare_stages(case.golden, stages_of(case), tiny=case.size == 'tiny', x64=case.x64)


def table(rows: list[Row]) -> str:
  """One line a row: key, error, tolerance, verdict."""
  width = max(len(row.key) for row in rows)
  lines = []
  for row in rows:
    if row.tolerance is None:
      verdict, tolerance = '-', ' ' * 8
    else:
      verdict, tolerance = 'ok' if row.passed() else 'FAIL', f'{row.tolerance:8.0e}'
    lines.append(
      f'{row.key:{width}}  {row.error:9.2e}  {tolerance}  {verdict:4}  {row.note}'.rstrip()
    )
  return '\n'.join(lines)


def main() -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('case', type=Path, help='CASE.npz, CASE_train.npz or CASE_float64.npz')
  parser.add_argument('--size', choices=('tiny', 'B', 'L'), help='default: by the number of blocks')
  parser.add_argument('--keep-rate', type=float, help='of every pruning block')
  parser.add_argument('--enhanced-weight', type=float, help='of the queries of the keyframe')
  parser.add_argument('--roi-extension', type=float, nargs=2, metavar=('EX', 'EY'))
  parser.add_argument(
    '--padding',
    choices=PADDINGS,
    default='released',
    help='default: as published; without padding in the case both give the same',
  )
  parser.add_argument('--x64', action='store_true', help='compute and compare in float64')
  parser.add_argument(
    '--strict',
    action='store_true',
    help='judge float32 training as it is; otherwise, where it fails, once more with the ReLU '
    'inputs that are within rounding of zero held on their float64 side',
  )
  args = parser.parse_args()
  extension = tuple(args.roi_extension) if args.roi_extension else None
  with exit_on_input_error():
    rows = check(
      args.case,
      strict=args.strict,
      size=args.size,
      keep_rate=args.keep_rate,
      enhanced_weight=args.enhanced_weight,
      roi_extension=extension,
      padding=args.padding,
      x64=args.x64,
    )
  failed = [row for row in rows if not row.passed()]
  judged = sum(row.tolerance is not None for row in rows)
  print(table(rows))
  print(f'{args.case.name}: {judged - len(failed)} of {judged} comparisons within tolerance')
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
