"""What two processes do together, without a model: tests of distributed/ start it twice.

python -m tests.two_processes COORDINATOR NUMBER DIRECTORY
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.distributed import processes, sharding
from evad_jax.distributed.preemption import Preemption


def state_of(mesh):
  """One array that is sharded over both processes, and one that is replicated."""
  split = NamedSharding(mesh, PartitionSpec('data'))
  values = {'split': np.arange(6.0, dtype=np.float32).reshape(2, 3), 'whole': np.float32(7)}
  return sharding.put(values, {'split': split, 'whole': sharding.replicated(mesh)})


def stop_together(checkpoints, state):
  """Sends a SIGTERM to process 1 alone, before its third question; returns when each stops.

  The signal follows a save of a step whose number is far from that of the question.
  """
  with Preemption() as preemption:
    for question in range(1, 20):
      if question == 3:
        checkpoints.save(500, {'params': state}, {}, {'next_example': 2}, None)
        checkpoints.wait()
        if jax.process_index() == 1:
          os.kill(os.getpid(), signal.SIGTERM)
      if preemption.requested():
        return question, preemption.requested()
      processes.wait_for_all('step')
  return None, False


def main(coordinator, number, directory):
  settings = ConfigDict(
    {'launch': 'explicit', 'coordinator': coordinator, 'processes': 2, 'process': number}
  )
  processes.start(settings)
  processes.tell('process 0 speaks')
  mesh = sharding.make_mesh()
  batch = sharding.put_batch(np.full(2, number), mesh)
  state = state_of(mesh)
  with Checkpoints(directory / 'checkpoints') as checkpoints:
    checkpoints.save(5, {'params': state}, {}, {'next_example': 1}, None)
    stopped = stop_together(checkpoints, state)
  found = {
    'part': sharding.part_of_process(mesh),
    'batch': np.asarray(jax.jit(lambda x: x, out_shardings=sharding.replicated(mesh))(batch)),
    'any': [processes.any_of(flag) for flag in (False, number == 1)],
    'gathered': processes.gather(['of 0'] if number == 0 else ['of 1', 'also of 1']),
    'same': [processes.same_everywhere([4, step]) for step in (5, number)],
    'of one': processes.gather([number] * number),
  }
  found['stopped'] = stopped
  found['batch'] = found['batch'].tolist()
  (directory / f'{number}.json').write_text(json.dumps(found))
  processes.stop()


if __name__ == '__main__':
  main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
