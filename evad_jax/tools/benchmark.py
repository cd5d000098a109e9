"""Measures the cost of keep rates: tokens, multiply-adds, time, memory, compilation, utilisation.

  python -m evad_jax.tools.benchmark --sizes B --keep-rates 1.0 0.7 0.6
  python -m evad_jax.tools.benchmark --train --batches 4 --json train.json --plot train.png

It prints a line for every combination of size, canvas, dtype, batch and keep rate, on one device:
from uint8 clips to detections, or, with --train, one training step. Parameters and clips are
random. The keep rates of a combination run in turn, so that drift of the machine affects all alike.

gmac      10^9 multiply-adds of one clip, forward pass, as the literature counts them
counted   half the operations that the compiler counts, as a share of our own count; they differ by
          norms, activations and the like, and by the products of convolutions with padding
memory    temporary / all: without and with the program's arguments and results
peak      multiply-adds per second (a training step counts as three forward passes), as a share of
          what a product of two large matrices reaches on this device, measured in the same run
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import jax

from evad_jax import checkout
from evad_jax.command_line import Parser, positive, run, size
from evad_jax.cost.measured_cost import Measurement, make_config, measure
from evad_jax.visualization import charts

SIZES = ('B', 'L', 'small')
DTYPES = ('float32', 'bfloat16')
HEADER = (
  f'{"size":6}{"canvas":>8}  {"type":9}{"batch":>6}{"keep":>6}  {"tokens":28}{"gmac":>9}'
  f'{"counted":>9}{"ms":>10}{"clips/s":>9}{"memory":>14}{"compile":>9}{"peak":>7}'
)


def line(m: Measurement) -> str:
  """One row of the table."""
  tokens = ' '.join(map(str, m.tokens))
  memory = f'{m.temporary_mb:.0f}/{m.all_mb:.0f} MB'
  return (
    f'{m.size:6}{m.canvas:>8}  {m.dtype:9}{m.batch:6}{m.keep_rate:6g}  {tokens:28}{m.gmac:9.2f}'
    f'{m.counted:9.3f}{1e3 * m.seconds:10.1f}{m.clips_per_second:9.2f}{memory:>14}'
    f'{m.compile_seconds:7.1f} s{100 * m.peak_share:5.0f} %'
  )


def panels(measurements: Sequence[Measurement]) -> list[charts.Panel]:
  """Multiply-adds and time per clip, and memory of a batch, against the keep rate."""

  def name(m: Measurement) -> str:
    return f'{m.size} {m.canvas} {m.dtype} batch {m.batch}'

  return [
    charts.panel(title, measurements, name, cost)
    for title, cost in (
      ('10^9 multiply-adds per clip, forward', lambda m: m.gmac),
      ('milliseconds per clip', lambda m: 1e3 / m.clips_per_second),
      ('temporary memory, MB', lambda m: m.temporary_mb),
    )
  ]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = Parser('evad_jax.tools.benchmark', __doc__)
  add = parser.add_argument
  add('--sizes', nargs='+', choices=SIZES, default=['B'], help='model sizes (default B)')
  add('--canvases', nargs='+', type=size, default=[(288, 288)], metavar='HxW', help='(288x288)')
  add('--keep-rates', nargs='+', type=float, default=[1.0, 0.7, 0.6], help='(default 1 0.7 0.6)')
  add('--dtypes', nargs='+', choices=DTYPES, default=['float32'], help='(default float32)')
  add('--batches', nargs='+', type=positive, default=[1], help='batch sizes, clips (default 1)')
  add('--train', action='store_true', help='measure a training step instead of a prediction')
  add('--rounds', type=positive, default=5, help='calls of each program (default 5)')
  add('--json', type=Path, help='also write the measurements to this file')
  add('--plot', type=Path, help='also plot cost against keep rate, as PNG')
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  charts.check_installed(args.plot)
  config = checkout.module('configs.common').get_config()
  jax.config.update('jax_enable_compilation_cache', False)  # compile time is measured
  jax.config.update('jax_default_matmul_precision', config.matmul_precision)
  device = jax.devices()[0]
  what = 'training step' if args.train else 'prediction'
  print(f'{what} on one device: {device.device_kind} ({device.platform}), jax {jax.__version__}')
  print(HEADER, flush=True)
  found = []
  for combination in itertools.product(args.sizes, args.canvases, args.dtypes, args.batches):
    configs = [make_config(*combination, rate) for rate in args.keep_rates]
    try:
      measured = measure(combination[0], configs, training=args.train, rounds=args.rounds)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      print(f'{combination}: out of device memory', flush=True)
      continue
    for m in measured:
      print(line(m), flush=True)
    found += measured
  title = f'{what}, {device.device_kind}'
  charts.write_files(args.json, args.plot, title, found, panels(found))


if __name__ == '__main__':
  run(main)
