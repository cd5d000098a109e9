"""Stages of a long report, each a process of its own that may fail, hang or be killed alone.

A directory holds what is known so far: report.jsonl has a line for every stage that has ended,
report.md the same to read, stages/NAME.jsonl the rows of a stage as it found them, and
stages/NAME.log what it printed. All but the last two appear only when they are whole, so a report
that was killed goes on with the stages that are missing.
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

TAIL = 12  # lines of its output that are kept of a stage that failed
LEAST = 5  # seconds; with fewer no stage is begun
DONE, SKIPPED, FAILED, OVER = 'done', 'skipped', 'failed', 'over its limit'


class Result(NamedTuple):
  """One stage that has ended."""

  stage: str
  status: str  # DONE, SKIPPED, FAILED or OVER
  seconds: float
  rows: list[dict[str, Any]]  # what it measured; of a failed one too, as far as it came
  notes: list[str]
  tail: list[str]  # last lines of its output where it failed


class Skipped(Exception):
  """Raised by a stage that cannot be run here, for a good reason: str(error)."""


class Stage:
  """What a stage's process writes to, and how long it still has."""

  def __init__(self, directory: Path, name: str, limit: float):
    """limit: seconds from now."""
    self.directory, self.name = directory, name
    self.broken = False  # something could not be measured: the stage goes on, and has failed
    self._end = time.monotonic() + limit
    path = rows_path(directory, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = open(path, 'w', encoding='utf-8')  # noqa: SIM115  open as long as the process

  def row(self, **figures: Any) -> None:
    """One measurement, on disk at once."""
    self._write({'row': figures})

  def note(self, text: str) -> None:
    """One sentence for the reader."""
    self._write({'note': text})

  def skipped(self, reason: str) -> None:
    """Why there is nothing to measure here."""
    self._write({'skipped': reason})

  def left(self) -> float:
    """Seconds until the process is ended."""
    return self._end - time.monotonic()

  def _write(self, line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
    self._file.write(json.dumps(line) + '\n')
    flush_to_disk(self._file)


def rows_path(directory: Path, name: str) -> Path:
  """Where a stage writes what it finds."""
  return directory / 'stages' / f'{name}.jsonl'


def log_path(directory: Path, name: str) -> Path:
  """Where a stage's output goes."""
  return directory / 'stages' / f'{name}.log'


def end_with_parent() -> None:
  """Ends this process and all it started when the other end of standard input is closed.

  That happens however the parent ends. The stage has to be the leader of its process group.
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
  """Runs one stage to its end or to its limit in seconds."""
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
      # What the stage started may outlive it.
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
  """Rows, notes and reasons for skipping; a last line that was cut is left out."""
  found = {'row': [], 'note': [], 'skipped': []}
  if path.exists():
    for line in path.read_text(encoding='utf-8').splitlines(keepends=True):
      if line.endswith('\n'):
        for kind, content in json.loads(line).items():
          found[kind].append(content)
  return found['row'], found['note'], found['skipped']


def read_results(directory: Path) -> list[Result]:
  """The stages that have ended. Raises InputError where the file is not one of ours."""
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
  """Both files, each as a whole."""
  lines = [json.dumps(result._asdict()) + '\n' for result in results]
  write_text(directory / 'report.jsonl', ''.join(lines))
  write_text(directory / 'report.md', markdown(title, results))


def write_text(path: Path, text: str) -> None:
  """Writes a file, which appears under its name only when it is whole."""
  with writing(path) as file:
    file.write(text)


def markdown(title: str, results: Sequence[Result]) -> str:
  """A table of the stages, and one of the rows of each."""
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
  """A Markdown table for every run of rows with the same columns."""
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
