"""Checkpoints with Orbax: step, state, data position, and settings of model, clips and classes.

A checkpoint appears under its step only once it is complete; a run killed while saving resumes from
the one before. Soon after, it is sealed with the checksums of its files. A checkpoint damaged since
is reported by name and set aside, and the one before it is restored. The last N and the best by the
evaluation metric are kept. The state of a converted checkpoint is parameters alone, under step 0;
its settings name its source.
"""

import concurrent.futures
import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from evad_jax import printable
from evad_jax.checkpoints import checksums, orbax_messages, saved_settings
from evad_jax.checkpoints.parameter_checks import check_fits
from evad_jax.distributed import processes
from evad_jax.errors import InputError
from evad_jax.files import atomic_files, storage
from evad_jax.value_rules import number

Tree = Any
BEST_METRIC = 'frame_mAP@0.5'
# Limits on parameters: bytes that any file may ask for, and beyond that how many times their size
# may exceed that of the files.
_SMALL, _PACKED = 1 << 26, 50
# What Orbax, and TensorStore below it, raise for files that differ from what they wrote.
_UNREADABLE = (
  *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError),
  *(RecursionError, OverflowError, AssertionError, NotImplementedError),
)
SET_ASIDE = 'damaged-'  # prefix of the name of a damaged checkpoint


orbax_messages.leave_out()


class DamagedError(InputError):
  """A checkpoint with files that are missing or differ from what was written."""


def _figure(metrics: dict | None) -> float:
  value = (metrics or {}).get(BEST_METRIC)
  return -1.0 if number()(value) else float(value)  # of an evaluation without the metric, too


def locate(path: str | Path) -> tuple[Path, int | None]:
  """The checkpoint directory that a path names, and the step where it names one.

  path: a checkpoint directory, one step in it, or the working directory of a run. Raises InputError
  for an address such as gs://bucket/run.
  """
  storage.refuse_address(path, 'A directory of checkpoints')
  path = Path(path)
  if path.name.isdecimal() and (path / 'state').is_dir():
    return path.parent, int(path.name)
  inside = path / 'checkpoints'
  return (inside if inside.is_dir() else path), None


def newest_settings(directory: Path) -> dict | None:
  """The settings of the newest checkpoint with readable settings, or None; opens no checkpoint."""
  for step in reversed(_whole_steps(directory)):
    with contextlib.suppress(InputError):
      return saved_settings.read(directory / str(step))
  return None


class _Manager(ocp.CheckpointManager):
  """Orbax's manager, except for signals and for metrics that cannot be read."""

  def metrics(self, step: int) -> dict | None:
    """Metrics of the evaluation; None where their file is damaged, so that the rest can be used.

    The checksums report the damaged file once that checkpoint is used.
    """
    try:
      found = super().metrics(step)
    except (ValueError, RecursionError):
      return None
    return found if isinstance(found, dict) else None

  def reached_preemption(self, step: int) -> bool:
    """False: the run itself decides when it stops."""
    return False


class Checkpoints(contextlib.AbstractContextManager):
  """The checkpoints of one directory; close it to wait for the last save."""

  def __init__(self, directory: str | Path, keep_last: int = 2, read_only: bool = False):
    """keep_last: number of newest checkpoints to keep beside the best one."""
    storage.refuse_address(directory, 'A directory of checkpoints')
    self.directory = Path(directory).absolute()
    if printable.writable(str(self.directory)) != str(self.directory):
      raise InputError(
        f'{self.directory}: the name has bytes that are not UTF-8, which the checkpoint library '
        'cannot open; rename the directory, or give another one.'
      )
    if read_only and not self.directory.is_dir():
      raise InputError(
        f'{directory}: there is no such checkpoint directory; train first, or give the '
        '"checkpoints" directory of a run.'
      )
    policies = [
      checkpoint_managers.LatestN(keep_last),
      checkpoint_managers.BestN(get_metric_fn=_figure, n=1, keep_checkpoints_without_metrics=False),
    ]
    options = ocp.CheckpointManagerOptions(
      create=not read_only,
      read_only=read_only,
      cleanup_tmp_directories=not read_only,  # incomplete saves of a killed run
      best_fn=_figure,  # without it Orbax writes no metrics, and a later run forgets the best
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
    )
    handlers = {
      'state': ocp.StandardCheckpointHandler(),
      'settings': ocp.JsonCheckpointHandler(),
      'position': ocp.JsonCheckpointHandler(),
    }
    self._read_only = read_only
    # Checksums read all files of a checkpoint: in a thread beside the steps, not between them.
    self._sealer = concurrent.futures.ThreadPoolExecutor(1)
    self._sealing: tuple[int, concurrent.futures.Future] | None = None
    self._sealed: int | None = None  # the newest step, once it is sealed
    with storage.told(self.directory):
      if not read_only:
        self.directory.mkdir(parents=True, exist_ok=True)
      self._manager = _Manager(self.directory, options=options, item_handlers=handlers)

  def latest_step(self) -> int | None:
    """The step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def all_steps(self) -> list[int]:
    """The steps of the complete checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def best_step(self) -> int | None:
    """The step of the complete checkpoint with the best evaluation; None where none has one."""
    metrics = {step: self._manager.metrics(step) for step in self.all_steps()}
    evaluated = [step for step in metrics if metrics[step]]
    return max(evaluated, key=lambda step: (_figure(metrics[step]), step), default=None)

  def choose(self, step: int) -> int:
    """The step itself, the newest for 0, the best for -1; InputError for a missing checkpoint."""
    have = self.all_steps()
    if not have:
      raise InputError(f'{self.directory}: there is no complete checkpoint; train first.')
    chosen = {0: self.latest_step(), -1: self.best_step()}.get(step, step)
    if chosen not in have:
      raise InputError(
        f'{self.directory}: there is no checkpoint of step {step} (config.eval.step, or --step); '
        f'give one of {have}, 0 for the newest, or -1 for the best that was evaluated.'
      )
    return chosen

  def save(
    self, step: int, state: Tree, settings: dict, position: dict, metrics: dict | None
  ) -> None:
    """Starts to save in the background; the caller may donate or change `state` at once.

    Raises InputError where this save or the one before it cannot be written.
    """
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      settings=ocp.args.JsonSave(settings),
      position=ocp.args.JsonSave(position),
    )
    with self._written():
      self._manager.wait_until_finished()
      self._seal(wait=True)
      # Orbax warns about None.
      self._manager.save(step, args=items, metrics=metrics or {}, force=True)
      self._sealed = None

  def check(self) -> None:
    """Starts to seal a completed save; raises InputError where a save failed. Never waits."""
    if not self._manager.is_saving_in_progress():
      with self._written():
        self._manager.wait_until_finished()
        self._seal(wait=False)

  def wait(self) -> None:
    """Waits until the last checkpoint is complete and sealed, or raises InputError."""
    with self._written():
      self._manager.wait_until_finished()
      self._seal(wait=True)

  def set_metrics(self, step: int, metrics: dict) -> None:
    """Adds the metrics of an evaluation to a checkpoint that was saved before it."""
    with self._written():
      directory = self.directory / str(step)
      self._seal(wait=True)
      if processes.is_first():
        # In this order a crash leaves a checkpoint without a seal, never one with a wrong seal.
        (directory / checksums.NAME).unlink(missing_ok=True)
        atomic_files.write_json(directory / 'metrics' / 'metrics', metrics)
        checksums.seal(directory)
      processes.wait_for_all('metrics')
      self._manager.reload()

  def _seal(self, wait: bool) -> None:
    """Seals the newest checkpoint unless it is sealed; wait=False seals in the background."""
    if self._read_only or not processes.is_first():
      return
    if self._sealing is None:
      step = self._manager.latest_step()
      if step is None or step == self._sealed:
        return
      self._sealing = step, self._sealer.submit(_seal_once, self.directory / str(step))
    step, sealing = self._sealing
    if wait or sealing.done():
      self._sealing = None
      sealing.result()
      self._sealed = step

  @contextlib.contextmanager
  def _written(self) -> Iterator[None]:
    """Raises InputError for anything that prevents a checkpoint from being written."""
    try:
      yield
    except Exception as error:
      why = storage.why_unwritable(error)
      if why is None:
        raise
      last = _whole_steps(self.directory)
      kept = f'the last complete checkpoint is of step {last[-1]}' if last else 'there is none yet'
      raise InputError(
        f'{self.directory}: a checkpoint cannot be written: {why}; {kept}. Fix that, and start '
        'the same command again.'
      ) from error

  def position(self, step: int) -> dict:
    """The data position saved with a checkpoint."""
    with self._read(step):
      return saved_settings.read_position(self.directory / str(step))

  def settings(self, step: int) -> dict:
    """The settings of model, clips and classes saved with a checkpoint, validated."""
    with self._read(step):
      return saved_settings.read(self.directory / str(step))

  def was_evaluated(self, step: int) -> bool:
    """Whether a checkpoint has the metrics of an evaluation."""
    return bool(self._manager.metrics(step))

  @contextlib.contextmanager
  def _read(self, step: int) -> Iterator[None]:
    """Raises DamagedError for anything wrong with the files of a checkpoint.

    Where its checksums match, it was written that way: an InputError, and nothing is set aside. A
    MemoryError passes through.
    """
    directory = self.directory / str(step)
    sealed = checksums.is_sealed(directory)
    try:
      yield
    except DamagedError:
      raise
    except Exception as error:
      whole = sealed and checksums.damage(directory) is None
      if isinstance(error, InputError):
        if whole:
          raise
        raise DamagedError(str(error)) from error
      if not isinstance(error, _UNREADABLE) or isinstance(error, MemoryError):
        raise
      why = storage.reason(error) or ' '.join(str(error).split())[:200] or type(error).__name__
      what = 'the checkpoint cannot be read' + ', though its files are intact' * whole
      raise (InputError if whole else DamagedError)(
        f'{directory}: {what}: {why}; take another one, of {_whole_steps(self.directory)}.'
      ) from error

  def read_params(self, step: int, like: Tree | None = None) -> Tree:
    """Reads the parameters to use, and no other state: the moving average where there is one.

    With `like` they have its shardings, and InputError names the first that does not match;
    without it all are read, as NumPy arrays.
    """
    self._check_files(step)
    with self._read(step):
      return self._read_params(step, like)

  def _read_params(self, step: int, like: Tree | None) -> Tree:
    saved = self._manager.item_metadata(step)['state'].tree
    key = 'params' if saved.get('ema_params') is None else 'ema_params'
    if like is None:
      self._check_size(step, saved[key])
      like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), saved[key])
      args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    else:
      check_fits(like, saved[key], self.directory / str(step))
      args = ocp.checkpoint_utils.construct_restore_args(like)
    items = ocp.args.PyTreeRestore({key: like}, restore_args={key: args}, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      return reader.restore(self.directory / str(step) / 'state', args=items)[key]

  def restore(self, step: int, like: Tree) -> Tree:
    """Restores the state of a checkpoint with the shapes and shardings of `like`.

    Raises InputError naming the first array that is missing, left over or of another shape, and
    DamagedError where a file differs from what was written.
    """
    self._check_files(step)
    with self._read(step):
      saved = self._manager.item_metadata(step)['state']
      check_fits(like, saved, self.directory / str(step))
      items = ocp.args.Composite(state=ocp.args.StandardRestore(like))
      return self._manager.restore(step, args=items)['state']

  def set_aside(self, step: int) -> None:
    """Renames a damaged checkpoint, so that the run can save the same step again."""
    if processes.is_first():
      place = storage.free(self.directory / f'{SET_ASIDE}{step}')
      (self.directory / str(step)).rename(place)
    self._sealed = None
    processes.wait_for_all('set_aside')
    self._manager.reload()

  def _check_files(self, step: int) -> None:
    """Raises DamagedError in every process if one of them finds a changed file."""
    directory = self.directory / str(step)
    found = checksums.damage(directory, *processes.share())
    if processes.any_of(found is not None):
      raise DamagedError(
        f'{directory}: the checkpoint is damaged: {found or "another process found a changed file"}'
        f'; take another one, of {_whole_steps(self.directory)}.'
      )

  def _check_size(self, step: int, saved: Tree) -> None:
    """Raises InputError for arrays that would be far larger than their files."""
    directory = self.directory / str(step)
    size = sum(path.stat().st_size for path in directory.rglob('*') if path.is_file())
    asked = sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(saved))
    if asked > _SMALL and asked > _PACKED * size:
      raise InputError(
        f'{directory}: its parameters would be {asked:,} bytes, but its files have {size:,}; take '
        f'another checkpoint, of {_whole_steps(self.directory)}.'
      )

  def close(self) -> None:
    """Waits until the last checkpoint is complete, or raises InputError."""
    try:
      if not self._read_only:
        self.wait()
    finally:
      self._sealer.shutdown()
      with contextlib.suppress(OSError, ValueError):  # `wait` raises them
        self._manager.close()

  def __exit__(self, kind: Any, *exception: Any) -> None:
    """Closes; an error already on its way takes precedence."""
    with contextlib.suppress(InputError) if kind else contextlib.nullcontext():
      self.close()


def _seal_once(directory: Path) -> None:
  if not checksums.is_sealed(directory):
    checksums.seal(directory)


def _whole_steps(directory: Path) -> list[int]:
  """The steps with a complete checkpoint, ascending; some may be damaged."""
  return sorted(int(path.name) for path in directory.glob('*') if path.name.isdecimal())
