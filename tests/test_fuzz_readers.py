"""Every reader of files from outside, with files made wrong: a result, or one sentence, soon.

Never another exception, more than a second of computing, or 200 MiB more memory than before. A few
inputs by default; -m slow reads 2,000.
"""

import contextlib
import gc
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from evad_jax.errors import InputError
from tests.fuzzed_readers import Place, open_checkpoint, open_weights, quiet, readers, score_files

SECONDS, MEMORY = 1.0, 200 * 2**20  # for one input
FEW, MANY = 4, 2000


def peak_memory():
  """Bytes of this process at its largest since the last call of `forget_peak`; 0: not known."""
  with contextlib.suppress(OSError):
    for line in Path('/proc/self/status').read_text().splitlines():
      if line.startswith('VmHWM'):
        return int(line.split()[1]) * 1024
  return 0


def forget_peak():
  """From here on, what is the largest so far is what is there now. Linux alone."""
  with contextlib.suppress(OSError):
    Path('/proc/self/clear_refs').write_text('5')


class Worst:
  """Of all inputs of one reader."""

  def __init__(self):
    self.inputs = self.refused = 0
    self.seconds, self.memory = 0.0, 0

  def read(self, call, content):
    forget_peak()
    before, start = peak_memory(), time.process_time()
    try:
      with quiet():
        call(content)
    except InputError as error:
      self.refused += 1
      assert '\n' not in str(error) and 'Traceback' not in str(error)
    seconds, memory = time.process_time() - start, peak_memory() - before
    self.inputs += 1
    self.seconds, self.memory = max(self.seconds, seconds), max(self.memory, memory)
    assert seconds < SECONDS, f'{seconds:.1f} s'
    assert memory < MEMORY, f'{memory / 2**20:.0f} MiB'


def fuzz(strategy, call, examples, good=None):
  worst = Worst()

  @settings(
    max_examples=examples,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
  )
  @given(strategy)
  def each(content):
    worst.read(call, content)

  each()
  return worst


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  place = Place(tmp_path_factory.mktemp('fuzz') / 'files')
  with quiet():  # what is compiled or imported once is no matter of an input
    open_weights(place.root / 'x.safetensors')
    open_checkpoint(place.root / 'checkpoint')
    for protocol in ('ava', 'frame', 'video'):
      score_files(place, protocol)
  gc.collect()
  return place


NAMES = (
  *('pickles to score', 'pickles to prepare', 'JSON of own data', 'JSON to score', 'JSON of ACT'),
  *('JSON of ACT to prepare', 'csv of AVA', 'csv of exclusions', 'csv of detections'),
  'csv to score, AVA',
  *('csv to score, frames', 'csv to score, videos', 'label maps', 'lists of videos', 'manifests'),
  *('indices', 'tubes', 'records', 'safetensors, header', 'safetensors, text'),
  *('settings of checkpoints', 'seals of checkpoints', 'figures of checkpoints'),
  *('state of checkpoints', 'configurations'),
)  # fmt: skip


def test_what_is_measured(tmp_path):
  """An input that takes long, one that takes much, and one that ends in another exception."""

  def compute(_):
    end = time.process_time() + 1.1 * SECONDS
    while time.process_time() < end:
      pass

  def take(_):
    np.ones(MEMORY * 6 // 5, np.uint8)

  def fail(_):
    raise KeyError('x')

  with pytest.raises(AssertionError, match='1.1 s'):
    Worst().read(compute, None)
  if peak_memory():
    with pytest.raises(AssertionError, match='240 MiB'):
      Worst().read(take, None)
  with pytest.raises(KeyError):
    Worst().read(fail, None)


@pytest.mark.parametrize('name', NAMES)
def test_a_few_wrong_files(place, name):
  strategy, call = readers(place)[name]
  assert fuzz(strategy, call, FEW).inputs >= FEW


@pytest.mark.slow
def test_many_wrong_files(place):
  made = readers(place)
  assert set(made) == set(NAMES)
  inputs = 0
  for name, (strategy, call) in made.items():
    start = time.perf_counter()
    worst = fuzz(strategy, call, -(-MANY // len(made)))
    seconds, inputs = time.perf_counter() - start, inputs + worst.inputs
    print(
      f'{name:24} {worst.inputs:5} inputs, {worst.refused:5} refused, at most '
      f'{worst.seconds:.2f} s and {worst.memory / 2**20:.0f} MiB; {seconds:.0f} s in all',
      flush=True,
    )
    assert 0 < worst.refused
  assert inputs >= MANY
