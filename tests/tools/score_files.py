"""Annotations and detections of three clips, and the scorer on such files."""

import json
import pickle

import numpy as np

from evad_jax.errors import exit_on_input_error
from evad_jax.tools import score


def tube(first, last, box):
  return np.array([[frame, *box] for frame in range(first, last + 1)], np.float32)


# Three clips; each split tests one of the first two and the third.
ACT = {
  'labels': ['catch', 'run'],
  'gttubes': {
    'catch/a': {0: [tube(1, 20, (0, 0, 10, 10))]},
    'run/b': {1: [tube(1, 20, (0, 0, 10, 10))]},
    'run/c': {1: [tube(3, 22, (20, 20, 40, 40))]},
  },
  'nframes': {'catch/a': 20, 'run/b': 20, 'run/c': 30},
  'train_videos': [['run/b'], ['catch/a']],
  'test_videos': [['catch/a', 'run/c'], ['run/b', 'run/c']],
  'resolution': {name: (240, 320) for name in ('catch/a', 'run/b', 'run/c')},
}


def rows(video, frames, box, label, score):
  return ''.join(f'{video},{f},{box},{label},{score}\n' for f in frames)


def write(tmp_path, files):
  for name, content in files.items():
    if isinstance(content, str):
      (tmp_path / name).write_text(content)
    else:
      (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))


def run(tmp_path, protocol, *flags, truth='truth.csv', detections=('detections.csv',)):
  """Runs the command in this process and returns what it wrote as JSON."""
  with exit_on_input_error():
    score.main(
      ['--protocol', protocol, '--groundtruth', str(tmp_path / truth), '--detections']
      + [str(tmp_path / name) for name in detections]
      + ['--json', str(tmp_path / 'out.json'), *flags]
    )
  return json.loads((tmp_path / 'out.json').read_text())
