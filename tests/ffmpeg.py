"""FFmpeg's command line, the oracle for pictures and times; tests without it are skipped.

It comes with the package imageio-ffmpeg.
"""

import hashlib
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

SHOWN = re.compile(r'\[Parsed_showinfo.*? pts_time: *(-?[\d.]+)')


def command() -> str:
  """The path of the program."""
  return pytest.importorskip('imageio_ffmpeg').get_ffmpeg_exe()


def run(*arguments: object) -> subprocess.CompletedProcess:
  """Runs it with arguments of its command line; its outputs are bytes."""
  return subprocess.run(
    [command(), '-nostdin', '-hide_banner', '-y', *map(str, arguments)],
    capture_output=True,
    check=True,
  )


def pictures(
  path: Path,
  size: tuple[int, int],  # height and width, upright
  *output: str,  # options, a rate for example
  before: tuple[str, ...] = (),  # options of the input
) -> np.ndarray:
  """(N, H, W, 3) uint8, the pictures that it shows of a video."""
  form = ('-f', 'rawvideo', '-pix_fmt', 'rgb24', '-')
  done = run('-v', 'error', *before, '-i', path, *output, *form)
  return np.frombuffer(done.stdout, np.uint8).reshape(-1, *size, 3)


def digests(path: Path, *output: str) -> list[str]:
  """SHA-256 of the RGB pixels of every picture that it shows; `digest` gives ours."""
  form = ('-f', 'framehash', '-hash', 'sha256', '-c:v', 'rawvideo', '-pix_fmt', 'rgb24', '-')
  lines = run('-v', 'error', '-i', path, *output, *form).stdout.decode().splitlines()
  return [line.split(',')[-1].strip() for line in lines if not line.startswith('#')]


def digest(picture: np.ndarray) -> str:
  """SHA-256 of the pixels of a picture, (H, W, 3) uint8 RGB."""
  return hashlib.sha256(np.ascontiguousarray(picture)).hexdigest()


def seconds(path: Path) -> list[float]:
  """When it shows every picture, after the first."""
  done = run('-i', path, '-vf', 'showinfo', '-fps_mode', 'passthrough', '-f', 'null', '-')
  times = [float(time) for time in SHOWN.findall(done.stderr.decode(errors='replace'))]
  return [time - times[0] for time in times]
