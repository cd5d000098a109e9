"""The table of keep rates: its rows, its files, and what is refused."""

import json

import pytest

from evad_jax import command_line
from evad_jax.errors import InputError
from evad_jax.tools import compare_keep_rates
from evad_jax.tools.compare_keep_rates import Row
from evad_jax.visualization import charts

ROWS = [
  Row('step 4 of a', 1.0, 2592, 424.672, 0.81234, 0.99, 0.41),
  Row('step 4 of a', 0.7, 890, 243.04, 0.8, 0.98, 0.73),
]


def test_a_line_for_every_row():
  lines = compare_keep_rates.table(ROWS).splitlines()
  assert lines[2] == '| step 4 of a | 1 | 2592 | 424.7 | 0.812 | 0.990 | 0.4 |'
  assert len(lines) == 4 and len({line.count('|') for line in lines}) == 1


def test_figures_and_picture(tmp_path):
  compare_keep_rates.write(tmp_path / 'rates.json', tmp_path / 'rates.png', ROWS)
  assert [Row(**row) for row in json.loads((tmp_path / 'rates.json').read_text())] == ROWS
  panels = [
    ('frame-mAP@0.5, %', [(1.0, 81.234), (0.7, 80.0)]),
    ('clips per second', [(1.0, 0.41), (0.7, 0.73)]),
    ('10^9 multiply-adds per clip', [(1.0, 424.672), (0.7, 243.04)]),
  ]
  wanted = charts.cost_chart(
    'one set of parameters at every keep rate',
    [charts.Panel(title, {'step 4 of a': points}) for title, points in panels],
  )
  charts.write(tmp_path / 'wanted.png', wanted)
  assert (tmp_path / 'rates.png').read_bytes() == (tmp_path / 'wanted.png').read_bytes()
  with pytest.raises(InputError, match='cannot be written'):
    compare_keep_rates.write(tmp_path / 'no' / 'rates.json', None, ROWS)


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['runs/a'], '--config is missing'),
    (['runs/a', '--config=configs/demo.py', '--config.modle.width=3'], 'modle'),  # codespell:ignore
    (['runs/a', '--keep-rate', '0.7', '--config=configs/demo.py'], 'keep-rate'),
    (['/nowhere', '--config=configs/demo.py'], '/nowhere'),
    ([], 'CHECKPOINT'),
  ],
)
def test_bad_flags_are_one_sentence(arguments, words, capsys):
  with pytest.raises(SystemExit) as caught:
    command_line.run(compare_keep_rates.main, arguments)
  told = capsys.readouterr().err.strip().splitlines()
  assert caught.value.code == 2 and words in told[-1]
