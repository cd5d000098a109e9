"""A full AVA validation set is scored by one core in seconds; slow, because it is made here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
  not hasattr(os, 'sched_setaffinity'), reason='needs Linux to pin a core.'
)
REPOSITORY = Path(__file__).resolve().parents[2]
NUM_KEYFRAMES, NUM_TRUTH, NUM_DETECTIONS, NUM_PEOPLE = 57_000, 230_000, 590_000, 100_000
SECONDS, BYTES = 6.0, 2**30


def lines(people, boxes, actions, last):
  """Rows of people (N,), each on a keyframe of its own or on a shared one."""
  keyframe = people * NUM_KEYFRAMES // NUM_PEOPLE
  video, second = keyframe // 897, 902 + keyframe % 897
  columns = (video.tolist(), second.tolist(), boxes.tolist(), actions.tolist(), last)
  for v, s, (x1, y1, x2, y2), action, end in zip(*columns, strict=True):
    yield f'video_{v:05d},{s:04d},{x1:.4f},{y1:.4f},{x2:.4f},{y2:.4f},{action},{end}\n'


def write_files(directory):
  rng = np.random.default_rng(0)
  low = rng.random((NUM_PEOPLE, 2)) * 0.5
  boxes = np.concatenate([low, low + 0.15 + 0.3 * rng.random((NUM_PEOPLE, 2))], axis=1)
  true = np.sort(np.concatenate([np.arange(NUM_PEOPLE), rng.integers(NUM_PEOPLE, size=130_000)]))
  found = np.sort(rng.integers(NUM_PEOPLE, size=NUM_DETECTIONS))
  near = boxes[found] + rng.normal(0, 0.02, (NUM_DETECTIONS, 4))
  actions = rng.integers(1, 81, (2, NUM_DETECTIONS))
  # Half of the detections have an action of the person; the others a random one.
  known = dict(zip(true.tolist(), actions[0, :NUM_TRUTH].tolist(), strict=True))
  guess = [known[p] if p % 2 else a for p, a in zip(found.tolist(), actions[1], strict=True)]
  scores = [f'{score:.6f}' for score in rng.random(NUM_DETECTIONS)]
  with open(directory / 'truth.csv', 'w') as file:
    file.writelines(lines(true, boxes[true], actions[0, :NUM_TRUTH], true.tolist()))
  with open(directory / 'detections.csv', 'w') as file:
    file.writelines(lines(found, near, np.array(guess), scores))
  names = ''.join(f'item {{ name: "action {i}" id: {i} }}\n' for i in range(1, 61))
  (directory / 'labels.pbtxt').write_text(names)


@pytest.fixture(scope='module', params=[(), ('--max-per-frame', '50')], ids=['all', '50'])
def scored(request, tmp_path_factory):
  """The resource usage of a scorer on one core, and the counts of its result."""
  directory = tmp_path_factory.mktemp('size')
  write_files(directory)
  names = {'labels': 'labels.pbtxt', 'groundtruth': 'truth.csv', 'detections': 'detections.csv'}
  files = [f'--{flag}={directory / name}' for flag, name in (names | {'json': 'out.json'}).items()]
  one_core = {min(os.sched_getaffinity(0))}
  process = subprocess.Popen(
    [sys.executable, '-m', 'evad_jax.tools.score', '--protocol=ava', *files, *request.param],
    cwd=REPOSITORY,
    stdout=subprocess.DEVNULL,
    preexec_fn=lambda: os.sched_setaffinity(0, one_core),
  )
  _, status, usage = os.wait4(process.pid, 0)  # of this process alone
  process.returncode = os.waitstatus_to_exitcode(status)
  assert process.returncode == 0
  return usage, json.loads((directory / 'out.json').read_text())['counts']


@pytest.mark.slow
def test_every_row_counts_and_a_gigabyte_is_enough(scored):
  usage, counts = scored
  assert counts['frames'] == NUM_KEYFRAMES
  assert counts['detections'] + counts['detections_of_unlisted_classes'] == NUM_DETECTIONS
  assert 1024 * usage.ru_maxrss < BYTES


@pytest.mark.timing
def test_a_core_scores_it_in_seconds(scored):
  usage, _ = scored
  assert usage.ru_utime + usage.ru_stime < SECONDS
