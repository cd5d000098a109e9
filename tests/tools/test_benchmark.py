"""The benchmark's figures: those that can be known beforehand, and how they are written."""

import json

import pytest
from PIL import Image

from evad_jax.cost.measured_cost import Measurement
from evad_jax.errors import InputError
from evad_jax.tools import benchmark

SMALL = ['--sizes', 'small', '--canvases', '32x64', '--rounds', '2']


@pytest.fixture(scope='module')
def forward(tmp_path_factory):
  """What is written for two keep rates."""
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
    assert 0 < figures['peak_share'] < 1
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


@pytest.mark.slow  # compiles long: python -m pytest -m slow tests/tools/test_benchmark.py
def test_a_step_of_training_costs_more(forward, tmp_path, capsys):
  path = tmp_path / 'step.json'
  benchmark.main([*SMALL, '--keep-rates', '0.7', '--train', '--json', str(path)])
  (step,), pruned = json.loads(path.read_text()), json.loads((forward / 'cost.json').read_text())[1]
  assert step['seconds'] > 2 * pruned['seconds']
  assert step['all_mb'] > 2 * pruned['all_mb']
  assert step['tokens'] == pruned['tokens']
  assert '32 23 17' in capsys.readouterr().out.splitlines()[-1]


def test_impossible_combinations_are_errors(tmp_path):
  with pytest.raises(InputError, match='canvas of 40x64 .* multiples of 32'):
    benchmark.main([*SMALL, '--canvases', '40x64'])
  with pytest.raises(InputError, match='keep rate of 0.1 at block 1 would drop'):
    benchmark.main([*SMALL, '--keep-rates', '0.1'])
