"""Non-finite loss or gradient: the update is skipped, and the inputs of the step are kept.

Inside jit, `unless_non_finite` leaves the state unchanged. Outside, `Watch` checks every step, one
step late (setup.chained_step) unless the step is printed or saved. With config.train.non_finite
'skip' it counts the update and goes on. With 'stop', the default, it ends the run with the step,
the terms and the clips, and writes a dump from which `python -m evad_jax.tools.replay_step`
computes the step again.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data import unreadable
from evad_jax.data.record_index import RecordIndex
from evad_jax.distributed import processes, sharding
from evad_jax.errors import InputError
from evad_jax.files import array_files, atomic_files, storage
from evad_jax.structures import Batch, Targets


def offenders(metrics: Any) -> list[str]:
  """The non-finite metrics of a step, in words; metrics: StepMetrics of host values."""
  named = {
    'person': 'person loss of stage',
    'box_l1': 'L1 of the boxes of stage',
    'box_giou': 'GIoU of the boxes of stage',
    'action': 'action loss of decoder block',
  }
  found = []
  for name, term in metrics.terms._asdict().items():
    bad = np.flatnonzero(~np.isfinite(np.asarray(term)))
    found += [f'{named[name]} {i} ({np.asarray(term)[i]})' for i in bad]
  if not math.isfinite(float(metrics.consistency)):
    found.append(f'distance to the unpruned pass ({metrics.consistency})')
  if not found and not math.isfinite(float(metrics.grad_norm)):
    found.append(f'norm of the gradient ({metrics.grad_norm}), with all losses finite')
  return found


class Watch:
  """Checks the metrics of every step of a run."""

  def __init__(self, config: ConfigDict, index: RecordIndex, workdir: Path, skipped: int = 0):
    """skipped: updates of the run skipped so far."""
    self._config, self._index, self._workdir = config, index, workdir
    self.skipped = skipped
    self._deferred: tuple[int, Batch, Any] | None = None  # the step not checked yet

  def defer(self, step: int, batch: Batch, metrics: Any) -> None:
    """Leaves a step to the next `catch_up`; arguments as for `look`."""
    self._deferred = step, batch, metrics

  def catch_up(self, state: Any) -> None:
    """Checks the deferred step; state: after it, or after the step that follows it.

    Where it matters the two are equal: after a non-finite step nothing changes, unless such steps
    are skipped, and then no state is kept.
    """
    if self._deferred:
      (step, batch, metrics), self._deferred = self._deferred, None
      self.look(step, state, batch, metrics)

  def look(self, step: int, state: Any, batch: Batch, metrics: Any) -> None:
    """Waits for the step; does nothing where its loss and gradient are finite.

    step: counted from 1. state: after the step or the next; neither changes it where the step is
    non-finite. batch: the global one. Raises InputError where the policy is 'stop'.
    """
    if np.isfinite(jax.device_get([metrics.loss, metrics.grad_norm])).all():
      return
    reasons = '; '.join(offenders(jax.device_get(metrics)))
    clips = self._names(batch)
    if self._config.train.non_finite == 'skip':
      self.skipped += 1
      processes.tell(
        f'step {step}: non-finite loss or gradient; skipped update {self.skipped} of this run: '
        f'{reasons}; clips: {", ".join(clips)}'
      )
      return
    # An earlier run may have left a dump of the same step.
    directory = storage.free(self._workdir / f'non_finite_step_{step}')
    processes.wait_for_all('dump')  # before any process creates it
    try:
      with storage.told(directory):
        write_dump(directory, self._config, step, state, batch)
      kept = f'are in {directory} (python -m evad_jax.tools.replay_step {directory})'
    except InputError as error:
      kept = f'could not be kept ({error})'
    raise InputError(
      f'Step {step} is not finite: {reasons}; clips: {", ".join(clips)}. Its inputs {kept}. Lower '
      'config.optimizer.rate or set config.optimizer.clip_norm, or set '
      'config.train.non_finite=skip, and start again: it continues from the last checkpoint.'
    )

  def _names(self, batch: Batch) -> list[str]:
    """Video and timestamp of every clip of the global batch."""
    numbers = multihost_utils.process_allgather(batch.index, tiled=True)
    return [unreadable.name(self._index, i) for i in numbers.tolist() if i >= 0]


def write_dump(directory: Path, config: ConfigDict, step: int, state: Any, batch: Batch) -> None:
  """Writes the inputs of a step: configuration, state before it, this process's clips.

  Where several processes read the same part of every batch, the first of them writes it.
  """
  directory.mkdir(parents=True, exist_ok=True)
  mesh = batch.index.sharding.mesh
  part, parts = sharding.part_of_process(mesh)
  others = range(jax.process_index())
  if all(sharding.part_of_process(mesh, other)[0] != part for other in others):
    arrays = {name: _local(x) for name, x in batch._asdict().items() if name != 'targets'}
    arrays |= {f'targets/{name}': _local(x) for name, x in batch.targets._asdict().items()}
    atomic_files.write_arrays(directory / f'batch_{part}_of_{parts}.npz', arrays)
  if processes.is_first():
    atomic_files.write_json(directory / 'config.json', json.loads(config.to_json_best_effort()))
  with Checkpoints(directory / 'checkpoints') as checkpoints:
    state = state._replace(step=0 * state.step + (step - 1))
    checkpoints.save(step - 1, state, {}, {'next_example': step - 1}, None)


def _local(x: jax.Array) -> np.ndarray:
  """This process's consecutive part of an array that is sharded over its first axis."""
  parts = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
  return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def read_batch(directory: Path) -> Batch:
  """The global batch of a dump, as NumPy arrays."""
  names = sorted(path.name for path in directory.glob('batch_*_of_*.npz'))
  wanted = [f'batch_{part}_of_{len(names)}.npz' for part in range(len(names))]
  if not names or names != sorted(wanted):
    raise InputError(
      f'{directory}: holds no complete batch, but {names}; give a directory non_finite_step_N of '
      'a run.'
    )
  again = 'the dump is damaged: start the run again for another'
  parts = [array_files.read(directory / name, _BATCH, {}, again) for name in wanted]
  shapes = [{name: array.shape[1:] for name, array in part.items()} for part in parts]
  lengths = {len(array) for array in parts[0].values()}
  if len(lengths) > 1 or any(shape != shapes[0] for shape in shapes):
    raise InputError(f'{directory}: its parts of a batch do not match; {again}.')
  arrays = {name: np.concatenate([part[name] for part in parts]) for name in _BATCH}
  targets = Targets(**{name: arrays.pop(f'targets/{name}') for name in Targets._fields})
  return Batch(**arrays, targets=targets)


_BATCH = {
  'clips': ('u', 5),
  'sizes': ('i', 2),
  'frame_boxes': ('f', 3),
  'example_mask': ('b', 1),
  'index': ('i', 1),
  'targets/boxes': ('f', 3),
  'targets/labels': ('f', 3),
  'targets/box_mask': ('b', 2),
}
