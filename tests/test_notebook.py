"""The notebook: its parts by default; with -m slow all of it, from top to bottom, on the demo."""

import ast
import time
from pathlib import Path

import pytest

nbformat = pytest.importorskip(
  'nbformat', reason='nbformat is not installed: python -m pip install -r requirements-test.txt'
)

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / 'notebooks' / 'evaluate.ipynb'
WEIGHTS = [
  'EVAD_B_KEEP_10',
  'EVAD_B_KEEP_07',
  'EVAD_B_KEEP_06',
  'EVAD_B_VIDEOMAE_V2',
  'EVAD_L_KEEP_07',
]


def read():
  return nbformat.read(PATH, as_version=4)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def parameters(notebook):
  """Names and values of the cell that is tagged so."""
  (cell,) = [cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', [])]
  statements = ast.parse(cell.source).body
  return cell, {s.targets[0].id: ast.literal_eval(s.value) for s in statements}


def test_every_cell_parses_and_was_saved_without_output():
  notebook = read()
  nbformat.validate(notebook)
  for cell in code_cells(notebook):
    ast.parse(cell.source)
    assert not cell.outputs and cell.execution_count is None


def test_the_parameters_are_there_and_used():
  notebook = read()
  cell, found = parameters(notebook)
  assert {name: found[name] for name in WEIGHTS} == dict.fromkeys(WEIGHTS, '')
  assert found['DATA'] == '' and found['EPOCHS'] == 0.5
  rest = [other.source for other in code_cells(notebook) if other is not cell]
  used = {node.id for source in rest for node in ast.walk(ast.parse(source)) if hasattr(node, 'id')}
  assert set(found) <= used


def test_its_flags_are_those_of_the_documents():
  """Both list each release with the flags of its conversion."""
  page = ROOT / 'docs' / 'published_weights.md'
  published = ' '.join(page.read_text().replace('\\\n', ' ').split())
  source = '\n'.join(cell.source for cell in code_cells(read()))
  values = {'PRUNED': "['--enhanced-weight', '1', '--roi-extension', '0.4', '0.2']"}
  assert f'PRUNED = {values["PRUNED"]}' in source
  releases = next(
    node.value
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Assign) and node.targets[0].id == 'RELEASES'
  )
  pruned = ast.literal_eval(values['PRUNED'])
  for release in releases.values:
    flags = []
    for part in release.elts[1].elts:
      flags += pruned if isinstance(part, ast.Starred) else [part.value]
    assert ' '.join(flags) in published


@pytest.fixture(scope='module')
def executed(tmp_path_factory):
  """The outputs of all cells on the demo, and how many minutes they took."""
  import nbclient

  notebook = read()
  cell, _ = parameters(notebook)
  cell.source += f'\nWORK = {str(tmp_path_factory.mktemp("notebook") / "work")!r}'
  start = time.monotonic()
  nbclient.NotebookClient(
    notebook, timeout=600, resources={'metadata': {'path': ROOT / 'notebooks'}}
  ).execute()
  minutes = (time.monotonic() - start) / 60
  return [output for cell in code_cells(notebook) for output in cell.outputs], minutes


@pytest.mark.slow
def test_it_runs_from_top_to_bottom_on_the_demo(executed):
  outputs, _ = executed
  text = ''.join(output.get('text', '') for output in outputs)
  assert 'No released weights at hand' in text
  assert 'frame-mAP@0.5' in text and 'person AP@0.5' in text
  for action in ('walk', 'jump', 'crouch', 'rise', 'wave', 'stand'):
    assert f'  {action} ' in text
  assert "figures of about a minute's training" in text
  pictures = [output for output in outputs if 'image/png' in output.get('data', {})]
  assert len(pictures) == 1


@pytest.mark.timing
def test_it_takes_five_minutes_at_most(executed):
  assert executed[1] <= 5
