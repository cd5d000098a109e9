"""The canvas of a clip, the order of the canvases, and that no clip is lost."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evad_jax.data.aspect_buckets import Schedule, canvases_of, choose_canvas
from evad_jax.data.pipeline import eval_batches, train_batches
from evad_jax.errors import InputError
from tests.data.toy_records import NUM_EXAMPLES, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
AVA = ((288, 384), (288, 512), (288, 544), (288, 704), (288, 768))
RULE = {'short_side': 288, 'max_long': 1333}


@pytest.mark.parametrize(
  ('height', 'width', 'canvas'),
  [
    (240, 320, 0),  # 4:3, 384 wide
    (288, 352, 0),  # narrower still
    (1080, 1920, 1),  # 16:9, 512
    (460, 850, 2),  # 1.85:1, 532
    (360, 636, 1),  # 508.8 is 509
    (360, 641, 2),  # 512.8 is 513: one too wide
    (272, 640, 3),  # 2.35:1, 678
    (200, 510, 4),  # 2.55:1, 734
  ],
)
def test_the_canvas_that_wastes_least(height, width, canvas):
  assert choose_canvas(height, width, AVA, **RULE) == canvas


def test_of_equally_good_canvases_the_first():
  assert choose_canvas(10, 20, ((64, 32), (32, 64), (32, 64)), short_side=None, max_long=99) == 1


def test_without_a_short_side_the_shape_decides():
  canvases, rule = ((96, 128), (96, 176), (128, 96)), {'short_side': None, 'max_long': 9999}
  assert [choose_canvas(h, w, canvases, **rule) for h, w in [(3, 4), (9, 16), (4, 3)]] == [0, 1, 2]


def test_all_examples_at_once_and_none_fits():
  sizes = np.array([[240, 320], [1080, 1920], [240, 320], [272, 640]])
  assert canvases_of(*sizes.T, AVA, **RULE).tolist() == [0, 1, 0, 3]
  with pytest.raises(InputError, match='360 x 300 .* picture of 346 x 288, larger than every'):
    canvases_of(np.array([240, 360]), np.array([320, 300]), AVA, **RULE)


@pytest.mark.parametrize('counts', [(7,), (8, 3), (100, 10, 1), (50, 30, 12, 8), (6, 4, 2)])
def test_every_canvas_gets_its_share_all_the_time(counts):
  schedule = Schedule(counts, seed=3)
  steps = 3 * sum(counts)
  turns = [schedule[step] for step in range(steps)]
  canvas = np.array([turn[0] for turn in turns])
  share = np.array(counts) / sum(counts)
  served = np.cumsum(canvas[:, None] == np.arange(len(counts)), axis=0)
  ahead = served - share * np.arange(1, steps + 1)[:, None]
  assert np.abs(ahead).max() <= len(counts) - 1 + 1e-9
  assert served[-1].tolist() == [3 * count for count in counts]
  for place in range(len(counts)):  # the batches of each canvas are in order
    numbers = [turn[1] for turn in turns if turn[0] == place]
    assert numbers == list(range(len(numbers)))


def test_the_seed_decides_the_turns():
  def turns(seed):
    schedule = Schedule((60, 40), seed)
    return [schedule[step] for step in range(100)]

  assert turns(1) == turns(1) != turns(2)


MIXED = dataclasses.replace(SETTINGS, canvases=((24, 48), (48, 24)), short_side=24)
WIDE, UPRIGHT = 8, 3  # examples of the two shapes


def first(count, index, **arguments):
  arguments = {'seed': 4, 'batch_size': 2, 'threads': 1, 'prefetch': 2} | arguments
  with train_batches(index, MIXED, **arguments) as batches:
    return list(itertools.islice(batches, count))


def test_every_batch_has_one_canvas_and_every_epoch_of_a_canvas_is_exact(index):
  batches = first(44, index)  # 8 epochs: 64 wide and 24 upright examples
  shapes = [batch.clips.shape[2:4] for batch in batches]
  assert set(shapes) == {(24, 48), (48, 24)}
  for shape, count, of_canvas in (((24, 48), WIDE, range(8)), ((48, 24), UPRIGHT, range(8, 11))):
    numbers = [b.index for b, found in zip(batches, shapes, strict=True) if found == shape]
    epochs = np.concatenate(numbers).reshape(8, count)
    assert (np.sort(epochs, axis=1) == list(of_canvas)).all()
    assert len(set(map(tuple, epochs.tolist()))) > 2
  assert all((batch.sizes == batch.clips.shape[2:4]).all() for batch in batches)  # no padding


def test_resuming_and_sharing_with_several_canvases(index):
  whole = first(20, index)
  for start in (3, 11):
    tail = first(20 - start, index, start_step=start)
    assert [b.index.tolist() for b in tail] == [b.index.tolist() for b in whole[start:]]
  halves = [first(20, index, process_index=i, process_count=2) for i in range(2)]
  for batch, left, right in zip(whole, *halves, strict=True):
    np.testing.assert_array_equal(batch.clips, np.concatenate([left.clips, right.clips]))
    np.testing.assert_array_equal(batch.index, np.concatenate([left.index, right.index]))


@pytest.mark.parametrize(('batch_size', 'processes'), [(4, 1), (4, 2), (2, 2), (16, 1)])
def test_evaluation_covers_every_example_once_and_all_hosts_agree(index, batch_size, processes):
  streams = []
  for i in range(processes):
    with eval_batches(
      index, MIXED, batch_size=batch_size, process_index=i, process_count=processes
    ) as batches:
      streams.append(list(batches))
  for step in zip(*streams, strict=True):
    assert len({batch.clips.shape for batch in step}) == 1
  real = [batch.index[batch.example_mask] for stream in streams for batch in stream]
  assert sorted(np.concatenate(real).tolist()) == list(range(NUM_EXAMPLES))


SCRIPT = """
import itertools, json, sys
from evad_jax.data.pipeline import train_batches
from evad_jax.data.record_index import RecordIndex
from tests.data.test_aspect_buckets import MIXED
if __name__ == '__main__':
  directory, place, count, start, steps, workers = sys.argv[1], *map(int, sys.argv[2:])
  index = RecordIndex.open(directory, 'train')
  with train_batches(index, MIXED, seed=4, batch_size=2, process_index=place, process_count=count,
                     start_step=start, workers=workers) as batches:
    print(json.dumps([batch.index.tolist() for batch in itertools.islice(batches, steps)]))
"""


def run(processes, directory, script, start, steps, workers):
  """Batches of example numbers, one list for each process; all of them run at the same time."""
  started = [
    subprocess.Popen(
      [sys.executable, script] + [str(x) for x in (directory, i, processes, start, steps, workers)],
      stdout=subprocess.PIPE,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    for i in range(processes)
  ]
  outputs = [process.communicate(timeout=600)[0] for process in started]
  assert [process.returncode for process in started] == [0] * processes
  return [json.loads(output) for output in outputs]


def test_two_processes_then_one_from_the_middle(index, tmp_path):
  """Disjoint halves whose union is the epoch; another number of hosts and workers continues."""
  script = tmp_path / 'script.py'
  script.write_text(SCRIPT)
  left, right = run(2, index.directory, script, start=0, steps=17, workers=1)
  (rest,) = run(1, index.directory, script, start=17, steps=27, workers=0)
  wide = [(a[0], b[0]) for a, b in zip(left, right, strict=True) if a[0] in range(8)]
  for start in (0, 4, 8):  # four batches of two are an epoch of the eight wide examples
    one, other = (set(half) for half in zip(*wide[start : start + 4], strict=True))
    assert not one & other and one | other == set(range(8))
  batches = [a + b for a, b in zip(left, right, strict=True)] + rest  # 44: 8 epochs of 11
  for members in (range(8), range(8, 11)):
    numbers = [n for batch in batches for n in batch if n in members]
    epochs = np.array(numbers).reshape(8, len(members))
    assert (np.sort(epochs, axis=1) == list(members)).all()
