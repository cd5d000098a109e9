"""The metrics of the benchmark that can be computed by hand, and the files with them."""

import json

import jax
import pytest
from PIL import Image

from evad_jax.cost.measured_cost import Measurement
from evad_jax.errors import InputError
from evad_jax.tools import benchmark

SMALL = ['--sizes', 'small', '--canvases', '32x64', '--rounds', '2']


@pytest.fixture(scope='module', autouse=True)
def settings_of_jax():
  """Restores what the benchmark sets for its process."""
  names = ('jax_enable_compilation_cache', 'jax_default_matmul_precision')
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture(scope='module')
def forward(tmp_path_factory):
  """The directory with the results of two keep rates."""
  directory = tmp_path_factory.mktemp('cost')
  files = ['--json', str(directory / 'cost.json'), '--plot', str(directory / 'cost.png')]
  benchmark.main([*SMALL, '--keep-rates', '1.0', '0.7', *files])
  return directory


def test_figures_of_a_small_model(forward):
  whole, pruned = json.loads((forward / 'cost.json').read_text())
  # 8 frames of 2 x 4 patches in pairs: 4 slots of 8 tokens; ceil(0.7 * 32) = 23, ceil(16.1) = 17.
  assert (whole['tokens'], pruned['tokens']) == ([32], [32, 23, 17])
  for figures in (whole, pruned):
    assert set(figures) == set(Measurement._fields)
    assert figures['canvas'] == '32x64' and figures['batch'] == 1
    assert figures['counted'] == pytest.approx(1, abs=0.15)  # so small a model is hardly products
    assert figures['clips_per_second'] == pytest.approx(1 / figures['seconds'], rel=1e-2)
    assert figures['all_mb'] > figures['temporary_mb'] > 0
    assert figures['peak_share'] > 0
  assert pruned['gmac'] < whole['gmac']
  assert Image.open(forward / 'cost.png').format == 'PNG'


def test_panels_of_the_chart():
  numbers = dict.fromkeys(Measurement._fields, 0)
  fields = numbers | {'size': 'B', 'canvas': '32x64', 'dtype': 'float32', 'batch': 2}
  rows = [
    Measurement(**fields | {'keep_rate': rate, 'gmac': 9.0, 'clips_per_second': 50 / rate})
    for rate in (1.0, 0.5)
  ]
  products, milliseconds, memory = benchmark.panels(rows)
  name = 'B 32x64 float32 batch 2'
  assert products.lines == {name: [(1.0, 9.0), (0.5, 9.0)]}
  assert milliseconds.lines == {name: [(1.0, 20.0), (0.5, 10.0)]}
  assert memory.lines == {name: [(1.0, 0), (0.5, 0)]}


@pytest.fixture(scope='module')
def step(tmp_path_factory):
  """The result of a training step."""
  path = tmp_path_factory.mktemp('step') / 'step.json'
  benchmark.main([*SMALL, '--keep-rates', '0.7', '--train', '--json', str(path)])
  return json.loads(path.read_text())[0]


@pytest.mark.slow  # compiles for minutes: python -m pytest -m slow tests/tools/test_benchmark.py
def test_a_step_of_training_takes_more_memory(forward, step):
  pruned = json.loads((forward / 'cost.json').read_text())[1]
  assert step['all_mb'] > 2 * pruned['all_mb']
  assert step['tokens'] == pruned['tokens']


@pytest.mark.timing
def test_a_step_of_training_takes_longer_and_the_peak_is_not_reached(forward, step):
  whole, pruned = json.loads((forward / 'cost.json').read_text())
  assert step['seconds'] > 2 * pruned['seconds']
  assert max(x['peak_share'] for x in (whole, pruned, step)) < 1


def test_a_row_of_the_table():
  measured = Measurement(
    size='B',
    canvas='288x512',
    dtype='float32',
    batch=4,
    keep_rate=0.7,
    tokens=(32, 23, 17),
    gmac=2.0,
    counted=0.99,
    seconds=0.5,
    clips_per_second=8.0,
    temporary_mb=3.4,
    all_mb=56.0,
    compile_seconds=8.0,
    peak_share=0.25,
  )
  row = benchmark.line(measured)
  wanted = 'B 288x512 float32 4 0.7 32 23 17 2.00 0.990 500.0 8.00 3/56 MB 8.0 s 25 %'
  assert row.split() == wanted.split() and len(row) == len(benchmark.HEADER)


def test_impossible_combinations_are_errors(tmp_path):
  with pytest.raises(InputError, match='canvas of 40x64 .* multiples of 32'):
    benchmark.main([*SMALL, '--canvases', '40x64'])
  with pytest.raises(InputError, match='keep rate of 0.1 at block 1 would drop'):
    benchmark.main([*SMALL, '--keep-rates', '0.1'])
