"""Runs the stages of a long report, each in its own process, to fail, hang or be killed alone.

A directory holds the results so far: report.jsonl has a line per finished stage, report.md the same
to read, stages/NAME.jsonl the rows of a stage as it measured them, and stages/NAME.log what it
printed. All but the last two are written atomically, so a killed report resumes with the missing
stages.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evad_jax.command_line import table_head, table_row
from evad_jax.errors import InputError
from evad_jax.files.atomic_files import flush_to_disk, writing

TAIL = 12  # last lines of output kept of a failed stage
LEAST = 5  # seconds; with less time left, no stage starts
DONE, SKIPPED, FAILED, OVER = 'done', 'skipped', 'failed', 'over its limit'


class Result(NamedTuple):
  """One finished stage."""

  stage: str
  status: str  # DONE, SKIPPED, FAILED or OVER
  seconds: float
  rows: list[dict[str, Any]]  # what it measured; of a failed stage, as far as it got
  notes: list[str]
  tail: list[str]  # last lines of its output if it failed


class Skipped(Exception):
  """Raised by a stage that cannot run here; str(error) is the reason."""


class Stage:
  """Where a stage's process writes its results, and how much time it has left."""

  def __init__(self, directory: Path, name: str, limit: float):
    """limit: seconds from now."""
    self.directory, self.name = directory, name
    self.broken = False  # something could not be measured: the stage continues, but fails
    self._end = time.monotonic() + limit
    path = rows_path(directory, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = open(path, 'w', encoding='utf-8')  # noqa: SIM115  open as long as the process

  def row(self, **figures: Any) -> None:
    """Writes one measurement to disk at once."""
    self._write({'row': figures})

  def note(self, text: str) -> None:
    """Writes one sentence for the reader."""
    self._write({'note': text})

  def skipped(self, reason: str) -> None:
    """Writes why there is nothing to measure here."""
    self._write({'skipped': reason})

  def left(self) -> float:
    """Seconds until the process is killed."""
    return self._end - time.monotonic()

  def _write(self, line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
    self._file.write(json.dumps(line) + '\n')
    flush_to_disk(self._file)


def rows_path(directory: Path, name: str) -> Path:
  """The file of a stage's rows."""
  return directory / 'stages' / f'{name}.jsonl'


def log_path(directory: Path, name: str) -> Path:
  """The file of a stage's output."""
  return directory / 'stages' / f'{name}.log'


def end_with_parent() -> None:
  """Kills this process and all it started when the other end of standard input closes.

  That happens however the parent ends. The stage must be the leader of its process group.
  """

  def wait() -> None:
    with contextlib.suppress(OSError):
      while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)

  threading.Thread(target=wait, daemon=True).start()


def run_stage(
  directory: Path, name: str, command: Sequence[str], limit: float, environment: dict[str, str]
) -> Result:
  """Runs one stage to its end, or until its limit in seconds."""
  rows_path(directory, name).parent.mkdir(parents=True, exist_ok=True)
  rows_path(directory, name).unlink(missing_ok=True)
  start = time.monotonic()
  with open(log_path(directory, name), 'wb') as log:
    process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=log,
      stderr=subprocess.STDOUT,
      env=environment,
      start_new_session=True,
    )
    try:
      process.wait(limit)
      late = False
    except subprocess.TimeoutExpired:
      late = True
    finally:
      # Processes that the stage started may outlive it.
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      process.stdin.close()
  seconds = round(time.monotonic() - start, 1)
  rows, notes, skipped = read_rows(rows_path(directory, name))
  if late or process.returncode:
    text = log_path(directory, name).read_text(encoding='utf-8', errors='replace')
    tail = [line for line in text.splitlines() if line.strip()][-TAIL:]
    if not late:
      notes = [*notes, f'Ended with status {process.returncode}.']
    return Result(name, OVER if late else FAILED, seconds, rows, notes, tail)
  return Result(name, SKIPPED if skipped else DONE, seconds, rows, notes + skipped, [])


def read_rows(path: Path) -> tuple[list[dict], list[str], list[str]]:
  """Rows, notes and reasons for skipping; ignores an incomplete last line."""
  found = {'row': [], 'note': [], 'skipped': []}
  if path.exists():
    for line in path.read_text(encoding='utf-8').splitlines(keepends=True):
      if line.endswith('\n'):
        for kind, content in json.loads(line).items():
          found[kind].append(content)
  return found['row'], found['note'], found['skipped']


def read_results(directory: Path) -> list[Result]:
  """The finished stages. Raises InputError if the file is not a report."""
  path = directory / 'report.jsonl'
  if not path.exists():
    return []
  try:
    return [Result(**json.loads(line)) for line in path.read_text(encoding='utf-8').splitlines()]
  except (ValueError, TypeError) as error:
    raise InputError(
      f'{path} is not a report of this tool ({error}); choose another --output.'
    ) from error


def write_results(directory: Path, title: str, results: Sequence[Result]) -> None:
  """Writes both files, each atomically."""
  lines = [json.dumps(result._asdict()) + '\n' for result in results]
  write_text(directory / 'report.jsonl', ''.join(lines))
  write_text(directory / 'report.md', markdown(title, results))


def write_text(path: Path, text: str) -> None:
  """Writes a file atomically."""
  with writing(path) as file:
    file.write(text)


def markdown(title: str, results: Sequence[Result]) -> str:
  """Formats a table of the stages, and tables of the rows of each."""
  stages = [
    {'stage': r.stage, 'status': r.status, 'seconds': r.seconds, 'rows': len(r.rows)}
    for r in results
  ]
  parts = [f'# {title}', *tables(stages)]
  for result in results:
    parts.append(f'## {result.stage}: {result.status}')
    parts += tables(result.rows)
    parts += result.notes
    if result.tail:
      parts.append('\n'.join(['```', *result.tail, '```']))
  return '\n\n'.join(parts) + '\n'


def tables(rows: Sequence[dict[str, Any]]) -> list[str]:
  """Formats a Markdown table for every run of rows with the same columns."""
  found, columns = [], None
  for row in rows:
    if list(row) != columns:
      columns = list(row)
      found.append([table_head(columns)])
    found[-1].append(table_row([_cell(value) for value in row.values()]))
  return ['\n'.join(lines) for lines in found]


def _cell(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:.4g}' if abs(value) < 1000 else f'{value:,.0f}'
  if isinstance(value, list | tuple):
    return ' '.join(map(str, value))
  return '-' if value is None else str(value).replace('|', '/').replace('\n', ' ')


def stage_command(module: str, name: str, limit: float, arguments: Sequence[str]) -> list[str]:
  """The command of one stage's process."""
  hidden = ['--stage', name, '--limit', f'{limit:.1f}']
  return [sys.executable, '-m', module, *hidden, *arguments]
