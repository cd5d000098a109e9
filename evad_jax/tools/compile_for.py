"""Compiles prediction and training step for accelerators on a CPU, and estimates their cost.

  python -m evad_jax.tools.compile_for h100 --programs predict step --json compiled.json
  python -m evad_jax.tools.compile_for v5e v5e:2x4 --programs predict --batch 8
  python -m evad_jax.tools.compile_for h100 --keep-rate 1.0 0.7 --canvas 288x384 288x512

The compilers for H100 and TPU run without the device (pip install -r requirements-compilers.txt).
ViT-B takes from half a minute (prediction) to several minutes (a training step on a TPU). A
combination that --json already holds, of the same compilers and commit, is not compiled again;
failures and uncommitted code are.

TFLOP, GB  arithmetic and memory traffic of one device and one run; loops count every iteration
launches   kernels started on the device, with the matcher's search for --people people
ms         GPU: estimated; each kernel takes 2.5 us to launch, and the longer of bytes / 3 TB/s and
           its arithmetic (TFLOP/s: products 700, cuDNN attention 350 forward and 300 backward);
           TPU: the compiler's estimate of cycles; Pallas kernels by their arithmetic at the peak
ideal      the model's own arithmetic at the nominal peak, as a share of these ms
"""

import argparse
import datetime
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evad_jax import checkout
from evad_jax.command_line import Parser, positive, run, size
from evad_jax.cost import compile_targets, compiled_cost
from evad_jax.cost.measured_cost import make_config
from evad_jax.errors import InputError
from evad_jax.files import atomic_files

RATES = {  # operations per second that kernels on an H100 are assumed to reach
  'product': 700e12,
  'convolution': 700e12,
  'attention': 350e12,
  'attention backward': 300e12,
}
VECTOR_RATE, BANDWIDTH, LAUNCH = 67e12, 3e12, 2.5e-6
HEADER = (
  f'{"target":9}{"program":9}{"size":6}{"canvas":>8}  {"type":9}{"batch":>6}{"keep":>6}{"TFLOP":>8}'
  f'{"GB":>8}{"launches":>10}{"temp GB":>9}{"ms":>9}{"ideal":>8}'
)


def seconds_on_gpu(work: compiled_cost.Work) -> float:
  """Estimated time of one run of a kernel on an H100."""
  return max(work.bytes / BANDWIDTH, work.flops / RATES.get(work.kind, VECTOR_RATE)) + LAUNCH


def combinations(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Yields the settings of every compilation that the flags ask for."""
  keys = ('batch', 'mesh', 'fsdp', 'remat', 'attention', 'people', 'lower_only')
  common = {key: getattr(args, key) for key in keys} | {'precision': args.matmul_precision}
  lists = (args.targets, args.size, args.dtype, args.keep_rate, args.canvas, args.programs)
  names = ('target', 'size', 'dtype', 'keep_rate', 'canvas', 'program')
  for values in itertools.product(*lists):
    job = dict(zip(names, values, strict=True))
    yield job | {'canvas': 'x'.join(map(str, job['canvas']))} | common


def compile_one(job: dict[str, Any]) -> dict[str, Any]:
  """Compiles one combination in this process and reads its cost."""
  target = compile_targets.TARGETS[job['target']]
  places = compile_targets.devices(target)
  import jax

  from evad_jax.cost import lowering
  from evad_jax.distributed import sharding
  from evad_jax.model import multiply_adds
  from evad_jax.training import matcher

  height, width = map(int, job['canvas'].split('x'))
  config = make_config(job['size'], (height, width), job['dtype'], job['batch'], job['keep_rate'])
  config.model.update(remat=job['remat'], attention=job['attention'])
  config.mesh.update(model=job['mesh'], fsdp=job['fsdp'])
  jax.config.update('jax_default_matmul_precision', job['precision'])
  mesh = sharding.make_mesh(job['mesh'], places)
  sharding.check_model_axis(mesh, config.model)
  sharding.check_batch_size(job['batch'], mesh, '--batch')
  begin = time.perf_counter()
  with compile_targets.traced_for(target):
    parts = lowering.parts_of(config, job['batch'], (height, width))
    lower = lowering.lower_step if job['program'] == 'step' else lowering.lower_predict
    lowered = lower(config, parts, mesh)
    if job['lower_only']:
      return {'lowered': True, 'seconds': round(time.perf_counter() - begin, 1)}
    compiled = lowered.compile()
  branch = sum(size < job['people'] for size in matcher.SEARCHED)
  figures = {'compiled': True, 'seconds': round(time.perf_counter() - begin, 1)}
  figures |= read_cost(compiled, target, branch)
  frames = config.clip.clip_frames
  adds = multiply_adds.multiply_adds(parts.model, frames, (height, width), published=False)
  operations = 2 * sum(adds.values()) * job['batch'] / target.devices
  ideal = operations * (3 if job['program'] == 'step' else 1)
  return figures | {'ideal_ms': round(1e3 * ideal / target.peak, 2)}


def read_cost(compiled: Any, target: compile_targets.Target, branch: int) -> dict[str, Any]:
  """Reads the cost of a compiled program, for one device."""
  from evad_jax.cost import hlo_collectives

  text = compiled.as_text()
  work = compiled_cost.read(text, branch)
  if target.platform == 'gpu':
    seconds = seconds_on_gpu
  else:

    def seconds(item: compiled_cost.Work) -> float:
      return item.cycles / target.cycles + item.flops * (item.kind == 'kernel') / target.peak

  parts = compiled_cost.by_part(work, seconds)
  return {
    'tflop': round(sum(x.times * x.flops for x in work) / 1e12, 3),
    'gb': round(sum(x.times * x.bytes for x in work) / 1e9, 2),
    'launches': round(sum(x.times for x in work)),
    'cycles': round(sum(x.times * x.cycles for x in work)),
    'temporary_gb': round(compiled.memory_analysis().temp_size_in_bytes / 1e9, 3),
    'sent_mb': {
      kind: round(sent / 1e6, 1)
      for kind, sent in hlo_collectives.sent_by_kind(hlo_collectives.read(text)).items()
    },
    'ms': round(1e3 * sum(parts.values()), 2),
    'ms_by_part': {part: round(1e3 * value, 2) for part, value in parts.items()},
  }


def in_its_own_process(job: dict[str, Any], limit: float) -> dict[str, Any]:
  """Returns the cost, or the compiler's error; a compiler that aborts ends only its own process."""
  target = compile_targets.TARGETS[job['target']]
  command = [sys.executable, '-m', 'evad_jax.tools.compile_for', '--job', json.dumps(job)]
  try:
    done = subprocess.run(
      command,
      env=os.environ | compile_targets.environment(target),
      capture_output=True,
      text=True,
      timeout=limit,
    )
  except subprocess.TimeoutExpired:
    return {'compiled': False, 'error': f'not compiled within {limit:g} seconds'}
  lines = done.stdout.strip().splitlines()
  if done.returncode == 0 and lines:
    return json.loads(lines[-1])
  said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
  errors = [line for line in said if 'Error' in line or line.startswith('error:')]
  if done.returncode == 2:
    raise InputError(errors[-1].removeprefix('error: ') if errors else said[-1])
  return {'compiled': False, 'error': (errors or said or ['the compiler said nothing'])[-1][:500]}


def commit() -> str:
  """The commit of the code, with '-dirty' appended for uncommitted changes; '' without git."""
  command = ['git', 'describe', '--always', '--dirty', '--exclude=*', '--abbrev=12']
  try:
    done = subprocess.run(
      command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
  except (OSError, subprocess.CalledProcessError):
    return ''
  return done.stdout.strip()


def versions() -> dict[str, str]:
  """Versions of JAX and of the compilers."""
  from importlib import metadata

  found = {}
  for name in ('jax', 'jax-cuda13-pjrt', 'libtpu'):
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


def read_rows(path: Path | None) -> list[dict[str, Any]]:
  """Reads the rows of earlier calls. Raises InputError for a file of another origin."""
  if path is None or not path.exists():
    return []
  try:
    rows = json.loads(path.read_text(encoding='utf-8'))
    if not all({'job', 'versions', 'commit', 'figures'} <= set(row) for row in rows):
      raise ValueError
  except (ValueError, TypeError) as error:
    raise InputError(f'{path} was not written by compile_for; give --json another name.') from error
  return rows


def line(job: dict[str, Any], figures: dict[str, Any]) -> str:
  """One row of the table."""
  start = (
    f'{job["target"]:9}{job["program"]:9}{job["size"]:6}{job["canvas"]:>8}  {job["dtype"]:9}'
    f'{job["batch"]:6}{job["keep_rate"]:6g}'
  )
  if figures.get('lowered'):
    return f'{start}  lowered in {figures["seconds"]} s'
  if not figures['compiled']:
    return f'{start}  {figures["error"]}'
  share = figures['ideal_ms'] / max(figures['ms'], 1e-9)
  return (
    f'{start}{figures["tflop"]:8.2f}{figures["gb"]:8.1f}{figures["launches"]:10}'
    f'{figures["temporary_gb"]:9.2f}{figures["ms"]:9.1f}{100 * share:6.0f} %'
  )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = Parser('evad_jax.tools.compile_for', __doc__)
  add = parser.add_argument
  add('targets', nargs='*', metavar='TARGET', help=', '.join(compile_targets.TARGETS))
  add(
    '--programs',
    nargs='+',
    choices=('predict', 'step'),
    default=['predict', 'step'],
    help='what to compile (default: both)',
  )
  add('--size', nargs='+', choices=('B', 'L', 'small'), default=['B'], help='model size (B)')
  add('--canvas', nargs='+', type=size, default=[(288, 512)], metavar='HxW', help='(288x512)')
  dtypes = ('bfloat16', 'float32')
  add('--dtype', nargs='+', choices=dtypes, default=['bfloat16'], help='(bfloat16)')
  add('--keep-rate', nargs='+', type=float, default=[0.7], help='fraction of tokens kept (0.7)')
  add('--batch', type=positive, default=16, help='global batch size, clips (16)')
  add('--mesh', type=positive, default=1, help='tensor-parallel devices, which share a clip (1)')
  add('--fsdp', action='store_true', help='shard parameters over the data-parallel devices')
  add('--remat', action='store_true', help='recompute activations in the backward pass')
  add('--attention', default='auto', choices=('auto', 'plain', 'blocked', 'fused'), help='(auto)')
  add('--matmul-precision', choices=('highest', 'default'), default='highest', help='(highest)')
  add('--people', type=positive, default=8, help='most people in a clip, for the matcher (8)')
  add('--lower-only', action='store_true', help='trace and lower, but compile nothing')
  add('--seconds', type=positive, default=3600, help='time limit of one compilation (3600)')
  add('--json', type=Path, help='save the results to this file, and reuse those it holds')
  add('--job', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  unknown = [name for name in args.targets if name not in compile_targets.TARGETS]
  if unknown or not (args.targets or args.job):
    what = f'{unknown[0]!r} is not a target' if unknown else 'a target is missing'
    parser.error(f'{what}; there are {", ".join(compile_targets.TARGETS)}')
  return args


def main(argv: Sequence[str] | None = None) -> int:
  """The command line; returns 1 where something did not compile."""
  args = parse_arguments(argv)
  if args.job:
    print(json.dumps(compile_one(json.loads(args.job))))
    return 0
  checkout.module('configs.common')  # every compilation needs it
  rows, failed = read_rows(args.json), 0
  used, code = versions(), commit()
  print(HEADER, flush=True)
  for name in args.targets:
    compile_targets.check_compiler(compile_targets.TARGETS[name])
  for job in combinations(args):
    known = [
      row
      for row in rows
      if (row['job'], row['versions'], row['commit']) == (job, used, code)
      and not (code.endswith('-dirty') or 'error' in row['figures'])
    ]
    if known:
      figures = known[0]['figures']
    else:
      figures = in_its_own_process(job, args.seconds)
      rows = [row for row in rows if row['job'] != job]
      date = datetime.date.today().isoformat()
      rows.append({'job': job, 'versions': used, 'commit': code, 'date': date, 'figures': figures})
      if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_json(args.json, rows)
    print(line(job, figures) + ('  (kept)' if known else ''), flush=True)
    failed += 'error' in figures
  return int(bool(failed))


if __name__ == '__main__':
  run(main)
