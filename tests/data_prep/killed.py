"""A preparation that kills itself at a given call, and what it leaves."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The process kills itself at the n-th call of a function, before or after it.
KILLED = """
import importlib, os, signal, sys, threading
from pathlib import Path
from evad_jax.data import record_writer
owner, name = {'rename': (Path, 'replace'), 'write': (record_writer.ShardWriter, 'write'),
               'delete': (Path, 'unlink')}[sys.argv[1]]
moment, left = sys.argv[2], int(sys.argv[3])
function, lock = getattr(owner, name), threading.Lock()

def deadly(*arguments, **more):
  global left
  with lock:
    left -= 1
    mine = left == 0
  if mine and moment == 'before':
    os.kill(os.getpid(), signal.SIGKILL)
  result = function(*arguments, **more)
  if mine and moment == 'after':
    os.kill(os.getpid(), signal.SIGKILL)
  return result

setattr(owner, name, deadly)
importlib.import_module(f'data_prep.{sys.argv[4]}').main(sys.argv[5:])
"""


def run(
  function: str, moment: str, count: int, arguments: list[str], command: str = 'custom'
) -> int:
  """Prepares with these arguments, to be killed; returns the status, negative after a signal."""
  words = [sys.executable, '-c', KILLED, function, moment, str(count), command, *arguments]
  process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
  assert process.returncode in (0, -signal.SIGKILL), process.stderr
  return process.returncode


def hashes(directory: Path) -> dict[str, str]:
  """SHA-256 of every file, including hidden ones."""
  return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}
