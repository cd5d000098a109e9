"""Every reader of external files, with malformed files: it returns, or raises one sentence.

It never raises another exception, nor takes 200 MiB more memory than before. A few inputs by
default; -m slow reads 2,000, and -m timing allows each a second of CPU time.
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

SECONDS, MEMORY = 1.0, 200 * 2**20  # of CPU time and bytes, for one input
FEW, MANY = 4, 2000


def peak_memory():
  """Peak memory of this process, in bytes, since `forget_peak`; 0 where it is not known."""
  with contextlib.suppress(OSError):
    for line in Path('/proc/self/status').read_text().splitlines():
      if line.startswith('VmHWM'):
        return int(line.split()[1]) * 1024
  return 0


def forget_peak():
  """Resets the peak to what the process holds now. Linux only."""
  with contextlib.suppress(OSError):
    Path('/proc/self/clear_refs').write_text('5')


class Worst:
  """The largest time and memory over all inputs of one reader."""

  def __init__(self, within):
    """within: the fixture, which limits the time of an input."""
    self.within = within
    self.inputs = self.refused = 0
    self.seconds, self.memory = 0.0, 0

  def read(self, call, content):
    forget_peak()
    before, start = peak_memory(), time.process_time()
    with self.within(SECONDS):
      try:
        with quiet():
          call(content)
      except InputError as error:
        self.refused += 1
        assert '\n' not in str(error) and 'Traceback' not in str(error)
    seconds, memory = time.process_time() - start, peak_memory() - before
    self.inputs += 1
    self.seconds, self.memory = max(self.seconds, seconds), max(self.memory, memory)
    assert memory < MEMORY, f'{memory / 2**20:.0f} MiB'


def fuzz(strategy, call, examples, within):
  worst = Worst(within)

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
  with quiet():  # compiles and imports before anything is measured
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


@pytest.mark.timing
@pytest.mark.parametrize('within', [True], indirect=True)
def test_an_input_that_takes_long_is_found(within):
  def compute(_):
    end = time.process_time() + 1.1 * SECONDS
    while time.process_time() < end:
      pass

  with pytest.raises(AssertionError, match=r'1\.1\d s of CPU time'):
    Worst(within).read(compute, None)


@pytest.mark.parametrize('within', [False], indirect=True)
def test_an_input_that_takes_memory_or_ends_otherwise_is_found(within):
  def take(_):
    np.ones(MEMORY * 6 // 5, np.uint8)

  def fail(_):
    raise KeyError('x')

  if peak_memory():
    with pytest.raises(AssertionError, match='240 MiB'):
      Worst(within).read(take, None)
  with pytest.raises(KeyError):
    Worst(within).read(fail, None)


@pytest.mark.parametrize('name', NAMES)
def test_a_few_wrong_files(place, name, within):
  strategy, call = readers(place)[name]
  assert fuzz(strategy, call, FEW, within).inputs >= FEW


@pytest.mark.parametrize(
  'within',
  [pytest.param(False, marks=pytest.mark.slow), pytest.param(True, marks=pytest.mark.timing)],
  indirect=True,
)
def test_many_wrong_files(place, within):
  made = readers(place)
  assert set(made) == set(NAMES)
  inputs = 0
  for name, (strategy, call) in made.items():
    start = time.perf_counter()
    worst = fuzz(strategy, call, -(-MANY // len(made)), within)
    seconds, inputs = time.perf_counter() - start, inputs + worst.inputs
    print(
      f'{name:24} {worst.inputs:5} inputs, {worst.refused:5} refused, at most '
      f'{worst.seconds:.2f} s and {worst.memory / 2**20:.0f} MiB; {seconds:.0f} s in all',
      flush=True,
    )
    assert 0 < worst.refused
  assert inputs >= MANY
