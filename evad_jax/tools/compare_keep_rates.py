"""Compares keep rates of checkpoints: metrics of a split, and throughput in clips per second.

  python -m evad_jax.tools.compare_keep_rates runs/demo --config=configs/demo.py
  python -m evad_jax.tools.compare_keep_rates runs/a runs/b --keep-rates 1.0 0.7 0.5 \\
    --config=configs/ucf24.py:small --json rates.json --plot rates.png

The same parameters are evaluated at every rate on config.data.eval_split. clips/s is the throughput
of prediction alone, with config.eval.batch_size random clips at once on one device; the rates run
in turn.
"""

import functools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from evad_jax import command_line
from evad_jax.visualization import charts

ROUNDS = 5  # calls of each program


class Row(NamedTuple):
  """One checkpoint at one keep rate."""

  checkpoint: str
  keep_rate: float
  tokens: int  # that reach the decoder
  gmac: float  # 10^9 multiply-adds per clip
  frame_map: float  # frame-mAP@0.5, 0 to 1
  person_ap: float  # person AP@0.5, 0 to 1
  clips_per_second: float


def compare(config, paths: Sequence[str], rates: Sequence[float]) -> list[Row]:
  """Evaluates every checkpoint at every rate; raises InputError as `saved_model` does."""
  import jax

  from evad_jax.cost import measured_cost
  from evad_jax.evaluation import evaluate, saved_model
  from evad_jax.inference.predict import predict
  from evad_jax.model import multiply_adds

  frames, canvas = config.clip.clip_frames, tuple(config.clip.canvases[0])
  opened = [saved_model.open_checkpoint(config, path) for path in paths]
  costs = {}
  for rate in rates:  # impossible rates fail before the first evaluation
    model = opened[0].model.clone(keep_rate=rate)
    tokens = multiply_adds.count_tokens(model, frames, canvas)
    costs[rate] = (
      tokens.leaving[-1],
      sum(multiply_adds.multiply_adds(model, frames, canvas).values()),
    )
  random = config.copy_and_resolve_references()
  random.train.batch_size = config.eval.batch_size
  batch = jax.device_put(measured_cost.random_batch(random), jax.devices()[0])
  params = jax.device_put(opened[0].params, jax.devices()[0])
  calls = []
  for rate in rates:
    predicted = jax.jit(functools.partial(predict, opened[0].model.clone(keep_rate=rate)))
    calls.append(lambda predicted=predicted: jax.block_until_ready(predicted(params, batch)))
  seconds = map(statistics.median, measured_cost.take_turns(calls, ROUNDS))
  speed = dict(zip(rates, (config.eval.batch_size / s for s in seconds), strict=True))
  rows = []
  for saved in opened:
    for rate in rates:
      print(f'Evaluating {saved.where} on {saved.index.split} at keep rate {rate:g}', flush=True)
      model = saved.model.clone(keep_rate=rate)
      evaluator = evaluate.make_evaluator(saved.config, model, saved.index, saved.mesh)
      figures = evaluator(saved.params).metrics()
      found = figures['frame_mAP@0.5'], figures['person_AP@0.5']
      tokens, products = costs[rate]
      rows.append(Row(saved.where, rate, tokens, products / 1e9, *found, speed[rate]))
  return rows


def table(rows: Sequence[Row]) -> str:
  """The rows as a Markdown table."""
  names = ('checkpoint', 'keep rate', 'tokens left', 'G multiply-adds')
  names += ('frame-mAP@0.5', 'person AP@0.5', 'clips/s')
  forms = '', 'g', '', '.4g', '.3f', '.3f', '.1f'
  lines = [command_line.table_row(list(map(format, row, forms))) for row in rows]
  return '\n'.join([command_line.table_head(names), *lines])


def write(path: Path | None, plot: Path | None, rows: Sequence[Row]) -> None:
  """Writes the rows and the plot. Raises InputError where a file cannot be written."""
  panels = [
    charts.panel(title, rows, lambda row: row.checkpoint, cost)
    for title, cost in (
      ('frame-mAP@0.5, %', lambda row: 100 * row.frame_map),
      ('clips per second', lambda row: row.clips_per_second),
      ('10^9 multiply-adds per clip', lambda row: row.gmac),
    )
  ]
  title = 'one set of parameters at every keep rate'
  charts.write_files(path, plot, title, rows, panels)


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = command_line.Parser('evad_jax.tools.compare_keep_rates', __doc__)
  add = parser.add_argument
  add('checkpoints', nargs='+', metavar='CHECKPOINT', help='a run, or a directory of checkpoints')
  rates = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
  add('--keep-rates', nargs='+', type=float, default=rates, help='default 1 0.9 0.8 0.7 0.6 0.5')
  add('--json', type=Path, help='also write the metrics to this file')
  add('--plot', type=Path, help='also plot them, as PNG')
  args, config = parser.parse_with_config(argv)
  charts.check_installed(args.plot)
  import jax

  command_line.keep_programs()
  jax.config.update('jax_default_matmul_precision', config.matmul_precision)
  rows = compare(config, args.checkpoints, args.keep_rates)
  print(table(rows))
  write(args.json, args.plot, rows)


if __name__ == '__main__':
  command_line.run(main)
