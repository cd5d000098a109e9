"""Logs the metrics of a run: metrics.jsonl and TensorBoard."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from evad_jax.files import atomic_files

EVALUATION = 'eval/'  # prefix of the names of evaluation metrics


class RunLog(contextlib.AbstractContextManager):
  """Logs the metrics of a run.

  A resumed run drops the lines after the restored step: it writes the same lines again.
  """

  def __init__(
    self, workdir: Path, start_step: int, active: bool = True, *, evaluates_again: bool = False
  ):
    """start_step: the step that the run resumes from, 0 for a new run.

    active: False writes nothing, for all processes of a run but one. evaluates_again: the run
    begins with the evaluation after that step, and writes its metrics again if they are there.
    """
    self._active = active
    if not active:
      return
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / 'metrics.jsonl'
    _keep_until(self._path, start_step, evaluates_again)
    self._file = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115  see close
    self._board = SummaryWriter(str(workdir / 'tensorboard'), purge_step=start_step + 1)

  def write(self, step: int, figures: dict[str, Any]) -> None:
    """Writes one line to metrics.jsonl, flushed, and every number to TensorBoard."""
    if not self._active:
      return
    self._file.write(json.dumps({'step': step, **figures}) + '\n')
    self._file.flush()
    for name, value in figures.items():
      if isinstance(value, int | float):
        self._board.add_scalar(name, value, step)

  def close(self) -> None:
    """Closes both files."""
    if self._active:
      self._file.close()
      self._board.close()

  def __exit__(self, *exception: Any) -> None:
    self.close()


def _keep_until(path: Path, step: int, evaluates_again: bool) -> None:
  """Drops lines of later steps and of an evaluation to come, and damaged lines.

  Above all an incomplete last line.
  """
  if not path.exists():
    return
  kept, damaged = [], 0
  for line in path.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True):
    content = _content_of(line)
    if content is None:
      damaged += line.endswith('\n')
      continue
    evaluation = any(name.startswith(EVALUATION) for name in content)
    if content['step'] < step + (not (evaluates_again and evaluation)):
      kept.append(line)
  if damaged:
    print(f'{path}: dropped {damaged} damaged lines', flush=True)
  with atomic_files.writing(path) as file:
    file.writelines(kept)


def _content_of(line: str) -> dict[str, Any] | None:
  """The content of a complete line; None for any other."""
  try:
    content = json.loads(line) if line.endswith('\n') else None
  except ValueError:
    return None
  whole = isinstance(content, dict) and isinstance(content.get('step'), int)
  return content if whole else None


class Stopwatch:
  """Measures the wall time of an interval of training, and the share spent waiting for data."""

  def __init__(self):
    """Starts."""
    self.restart()

  def restart(self) -> None:
    """Begins a new interval."""
    self._start, self._waited, self._excluded = time.perf_counter(), 0.0, 0.0

  def wait_for(self, iterator: Any, busy: Callable[[], bool] = lambda: False) -> Any:
    """next(iterator); counts as waiting unless other work (`busy`) took longer."""
    start = time.perf_counter()
    item = next(iterator)
    if not busy():
      self._waited += time.perf_counter() - start
    return item

  def exclude(self, seconds: float) -> None:
    """Excludes time from the interval that is not throughput, such as compilation."""
    self._excluded += seconds

  def seconds(self) -> float:
    """Time since the interval began, without what was excluded."""
    return time.perf_counter() - self._start - self._excluded

  def waiting_share(self) -> float:
    """The share of the interval spent waiting for data, in [0, 1]."""
    return self._waited / max(self.seconds(), 1e-9)


def duration(seconds: float) -> str:
  """3725 -> '1h02m', 125 -> '2m05s'."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}h{minutes:02}m' if hours else f'{minutes}m{seconds:02}s'
