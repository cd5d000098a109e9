"""Trains the tiny model of tests/tiny_run.py as its own program, in one process or several.

  python -m tests.run_tiny DATA WORKDIR [COORDINATOR PROCESSES PROCESS] [--config.key=value ...]

A step takes a tenth of a second at least, so that there is a middle of a run to interrupt. Process
0 appends to WORKDIR/seen.jsonl which examples every step was given, and when it evaluates.
"""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

from evad_jax import main
from evad_jax.distributed import processes as distributed
from evad_jax.errors import exit_on_input_error
from evad_jax.evaluation import evaluate
from evad_jax.training.programs import Programs
from tests.tiny_run import tiny_config


def configuration(data, *settings):
  """With an evaluation in the middle."""
  config = tiny_config(data)
  config.hosts.agree_every = 1  # there are few steps
  config.train.update(epochs=2.0, checkpoint_every=4, eval_every=6)
  for setting in settings:
    key, _, value = setting.partition('=')
    *sections, name = key.removeprefix('--config.').split('.')
    place = config
    for section in sections:
      place = place[section]
    kind = type(place[name])
    place[name] = value == 'True' if kind is bool else kind(value)
  return config


def record(workdir, what):
  if distributed.is_first():
    with open(workdir / 'seen.jsonl', 'a') as file:
      file.write(json.dumps(what) + '\n')


def watched(workdir):
  """Slows steps down, and records their inputs."""
  call, update = Programs.run, evaluate.frame_map.update

  def slow_call(self, state, batch, *rest):
    time.sleep(0.1)
    whole = jax.jit(lambda x: x, out_shardings=jax.tree.leaves(state)[0].sharding)(batch.index)
    record(workdir, {'step': int(state.step) + 1, 'examples': np.asarray(whole).tolist()})
    return call(self, state, batch, *rest)

  def slow_update(*arguments):
    record(workdir, {'evaluation': True})
    time.sleep(0.1)
    return update(*arguments)

  Programs.run, evaluate.frame_map.update = slow_call, slow_update


if __name__ == '__main__':
  settings = [argument for argument in sys.argv[1:] if argument.startswith('--')]
  data, workdir, *launch = (argument for argument in sys.argv[1:] if argument[:2] != '--')
  with exit_on_input_error():
    config = configuration(data, *settings)
    if launch:
      address, processes, process = launch[0], int(launch[1]), int(launch[2])
      config.hosts.update(
        launch='explicit', coordinator=address, processes=processes, process=process
      )
    distributed.start(config.hosts)
    Path(workdir).mkdir(parents=True, exist_ok=True)
    watched(Path(workdir))
    main.run(config, Path(workdir), 'train')
    distributed.stop()
