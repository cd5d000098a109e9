"""What a run has left in its working directory."""

import json

import jax
import numpy as np

from evad_jax.checkpoints.manager import Checkpoints


def losses(workdir):
  """Step -> loss of a run that has ended."""
  path = workdir / 'metrics.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
  return {line['step']: line['loss'] for line in lines if 'loss' in line}


def steps_so_far(workdir):
  """The steps in the log of a run that may be writing its next line."""
  path = workdir / 'metrics.jsonl'
  if not path.exists():
    return set()
  complete = [line for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]
  return {json.loads(line)['step'] for line in complete}


def metrics(workdir):
  """Losses and metrics of evaluations, in order; without throughput and waiting times."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  timed = ('examples_per_second', 'data_wait_share')
  return [{name: x for name, x in line.items() if name not in timed} for line in lines]


def saved(workdir):
  """The complete checkpoints, the best one, and the parameters of the last."""
  with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
    steps = checkpoints.all_steps()
    params = checkpoints.read_params(steps[-1])
    return steps, checkpoints.best_step(), params


def assert_same(a, b):
  """That two results of `saved` are equal, to the last bit."""
  assert a[:2] == b[:2]
  jax.tree.map(np.testing.assert_array_equal, a[2], b[2])
