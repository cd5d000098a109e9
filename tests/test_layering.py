"""Imports only go down: the floors of the house, and every import that goes up or in a circle."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Highest first. A module may import its own room and rooms below, nothing beside or above; rooms of
# one line do not import each other.
FLOORS = (
  ('data_prep', 'evad_jax.tools'),
  ('evad_jax.cost',),
  ('evad_jax.main',),
  ('evad_jax.training',),
  ('evad_jax.evaluation',),
  ('evad_jax.visualization',),
  ('evad_jax.inference',),
  ('evad_jax.checkpoints',),
  ('evad_jax.published',),
  ('evad_jax.settings',),
  ('configs',),
  ('evad_jax.model',),
  ('evad_jax.synthetic',),
  ('evad_jax.video',),
  ('evad_jax.data',),
  ('evad_jax.metrics',),
  ('evad_jax.formats',),
  ('evad_jax.tubes',),
  ('evad_jax.distributed',),
  ('evad_jax.files',),
  # The ground, in the order in which it is built.
  ('evad_jax.structures', 'evad_jax.box_pairs', 'evad_jax.command_line'),
  ('evad_jax.boxes', 'evad_jax.value_rules', 'evad_jax.checkout'),
  ('evad_jax.errors',),
  ('evad_jax.printable', 'evad_jax.limits'),
)


def modules(root=ROOT):
  """Name -> source of every module that is shipped."""
  found = {}
  for package in ('evad_jax', 'configs', 'data_prep'):
    for path in (root / package).rglob('*.py'):
      name = '.'.join(path.relative_to(root).with_suffix('').parts)
      found[name.removesuffix('.__init__')] = path.read_text(encoding='utf-8')
  return found


def imports(source, known):
  """Modules of `known` that a source imports, in functions too."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        found.add(name if name in known else node.module)
  return found & set(known)


def floor(name):
  """Number and room of a module; the ground's modules are rooms of their own."""
  for number, rooms in enumerate(FLOORS):
    for room in rooms:
      if name == room or name.startswith(room + '.'):
        return number, room
  return None


def upward(sources):
  """Every import that does not go down, as 'a -> b'."""
  found = []
  for name, source in sources.items():
    if name == 'evad_jax':
      continue  # the names that the package exports, imported lazily
    start, room = floor(name)
    for other in imports(source, sources) - {'evad_jax'}:
      end, other_room = floor(other)
      if other_room != room and end <= start:
        found.append(f'{name} -> {other}')
  return sorted(found)


def circles(sources):
  """Modules that reach themselves through others."""
  arrows = {name: imports(source, sources) for name, source in sources.items()}
  done, found = set(), []

  def walk(name, path):
    if name in path:
      found.append(' -> '.join(path[path.index(name) :] + [name]))
    elif name not in done:
      for other in sorted(arrows[name]):
        walk(other, [*path, name])
      done.add(name)

  for name in sorted(arrows):
    walk(name, [])
  return found


def test_every_module_has_a_floor():
  assert [name for name in modules() if floor(name) is None and name != 'evad_jax'] == []


def test_no_import_runs_up():
  assert upward(modules()) == []


def test_no_test_module_imports_another():
  paths = sorted((ROOT / 'tests').rglob('*.py'))
  sources = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts): path.read_text() for path in paths
  }
  tests = {name for name in sources if name.rpartition('.')[2].startswith('test_')}
  assert len(tests) > 100
  found = {name: sorted(imports(source, tests) - {name}) for name, source in sources.items()}
  assert {name: others for name, others in found.items() if others} == {}


def test_no_circles():
  assert circles(modules()) == []


@pytest.mark.parametrize(
  'source, wanted',
  [
    ('from evad_jax.training import losses', ['evad_jax.model.vit -> evad_jax.training.losses']),
    ('def f():\n  import evad_jax.main', ['evad_jax.model.vit -> evad_jax.main']),
    ('from evad_jax.model.fpn import FPN\nfrom evad_jax import boxes', []),
  ],
)
def test_an_arrow_up_is_seen(source, wanted):
  known = {'evad_jax.training.losses': '', 'evad_jax.main': '', 'evad_jax.model.fpn': ''}
  known |= {'evad_jax.boxes': '', 'evad_jax.model.vit': source}
  assert upward(known) == wanted


def test_the_table_of_rooms_is_in_the_order_of_the_floors():
  text = (ROOT / 'docs' / 'architecture.md').read_text()
  rows = re.findall(r'^\| \[(\w+)\]\(\.\./evad_jax/', text, re.MULTILINE)
  rooms = [room.removeprefix('evad_jax.') for floor in FLOORS for room in floor]
  assert rows == [room for room in rooms if (ROOT / 'evad_jax' / room / '__init__.py').exists()]
