"""Interrupts a run again and again, at random, and compares its end with an undisturbed run's.

  python -m tests.soak --output runs/soak [--kills 20] [--stops 20] [--minutes 30] [--seed 0]

Not one of the default tests: it takes about ten minutes. SIGKILL and SIGTERM come in random order,
while the program starts, trains, saves or evaluates. After each the newest checkpoint has to be no
older than before, and readable; at the end losses, metrics of evaluations, parameters, and the
examples of every step have to equal those of the undisturbed run, to the last bit.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from evad_jax.checkpoints.manager import Checkpoints
from tests.run_results import assert_same, metrics, saved
from tests.tiny_run import make_data

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, BATCH, EPOCHS = 24, 4, 70
STEPS = EXAMPLES // BATCH * EPOCHS
SETTINGS = (f'--config.train.epochs={EPOCHS}', '--config.train.checkpoint_every=5')
SETTINGS += ('--config.train.eval_every=12',)


def start(output, name):
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(output / 'cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  command = [sys.executable, '-m', 'tests.run_tiny', str(output / 'data'), str(output / name)]
  with open(output / f'{name}.log', 'a') as log:
    return subprocess.Popen(
      [*command, *SETTINGS],
      cwd=ROOT,
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      start_new_session=True,
    )


def seen(workdir):
  """The records of tests/run_tiny.py, without an incomplete last line."""
  path = workdir / 'seen.jsonl'
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  return [json.loads(line) for line in lines if line.endswith('\n')]


def phase(workdir, lines_before):
  """What the program is doing."""
  lines = seen(workdir)
  if len(lines) == lines_before:
    return 'starting'
  if list((workdir / 'checkpoints').glob('*tmp*')):
    return 'saving'
  return 'evaluating' if 'evaluation' in lines[-1] else 'training'


def interrupt(output, number, generator):
  """Sends a signal at a random moment; returns the program's activity, None if it had ended."""
  workdir = output / 'disturbed'
  before = len(seen(workdir))
  process = start(output, 'disturbed')
  if generator.random() < 0.85:  # not only while it starts, and compiles in its first step
    while process.poll() is None and len(seen(workdir)) < before + 2:
      time.sleep(0.02)
    wait = generator.uniform(0, 4)
  else:
    wait = generator.uniform(0, 8)
  deadline = time.time() + wait
  while process.poll() is None and time.time() < deadline:
    time.sleep(0.01)
  doing = phase(workdir, before)
  if process.poll() is not None:
    assert process.returncode == 0, f'exit status {process.returncode}; see disturbed.log'
    return None
  os.killpg(process.pid, number)
  process.wait(timeout=600)
  early = doing == 'starting'  # before the handler is set, SIGTERM ends the program
  allowed = [-signal.SIGKILL] if number == signal.SIGKILL else [0] + [-signal.SIGTERM] * early
  assert process.returncode in allowed, f'exit status {process.returncode} while {doing}'
  return doing


def newest(workdir):
  """The newest checkpoint, which has to be readable; 0 without any."""
  if not (workdir / 'checkpoints').is_dir():
    return 0
  with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
    step = checkpoints.latest_step()
    if step is None:
      return 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(checkpoints.read_params(step)))
    return step


def check_examples(workdir, wanted):
  """Every step received its own examples, each time that it was computed."""
  for line in seen(workdir):
    if 'step' in line:
      assert line['examples'] == wanted[line['step']], line
  epoch = EXAMPLES // BATCH
  for first in range(1, STEPS + 1, epoch):
    examples = sum((wanted[step] for step in range(first, first + epoch)), [])
    assert sorted(examples) == list(range(EXAMPLES)), first


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', type=Path, required=True, help='a new directory')
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--stops', type=int, default=20)
  parser.add_argument('--minutes', type=float, default=30, help='it fails where this is not enough')
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  output, generator = arguments.output.absolute(), random.Random(arguments.seed)
  shutil.rmtree(output, ignore_errors=True)
  begin = time.time()
  make_data(output / 'data', train=EXAMPLES, test=6)
  assert start(output, 'undisturbed').wait() == 0
  whole = output / 'undisturbed'
  wanted = {line['step']: line['examples'] for line in seen(whole) if 'step' in line}
  assert sorted(wanted) == list(range(1, STEPS + 1))
  print(f'undisturbed: {STEPS} steps in {time.time() - begin:.0f} seconds', flush=True)

  signals = [signal.SIGKILL] * arguments.kills + [signal.SIGTERM] * arguments.stops
  generator.shuffle(signals)
  workdir, step, count = output / 'disturbed', 0, collections.Counter()
  for place, number in enumerate(signals, 1):
    doing = interrupt(output, number, generator)
    after = newest(workdir)
    assert after >= step, f'checkpoint {step} was lost: the newest is {after}'
    count[number.name, doing] += 1
    print(f'{place}: {number.name} while {doing}: step {step} -> {after}', flush=True)
    step = after
    assert time.time() - begin < 60 * arguments.minutes, 'the time is over'
    assert doing, 'the run ended before all signals were sent'
  assert start(output, 'disturbed').wait() == 0
  check_examples(workdir, wanted)
  assert metrics(workdir) == metrics(whole)
  assert_same(saved(workdir), saved(whole))
  print(', '.join(f'{n} {name} while {doing}' for (name, doing), n in sorted(count.items())))
  print(f'equal to the undisturbed run, after {(time.time() - begin) / 60:.1f} minutes')


if __name__ == '__main__':
  main()
