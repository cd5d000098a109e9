"""README.md, docs/ and benchmarks/: their commands, options, keys, links and numbers are real."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

from configs import common

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'benchmarks' / 'README.md', *sorted(ROOT.glob('docs/*.md'))]
OURS = ('evad_jax.', 'data_prep.', 'tests.')
SLURM = ('gpus-per-task', 'signal')  # options of srun


def pages(test):
  return pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))(test)


def code_of(text: str) -> list[str]:
  """Lines of code blocks, and code within lines, one command each."""
  blocks = re.findall(r'^```\w*\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
  rest = re.sub(r'^```\w*\n.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
  lines = [line for block in blocks for line in block.replace('\\\n', ' ').splitlines()]
  return lines + [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', rest)]


def commands_of(text: str) -> list[tuple[str, list[str]]]:
  """(module, arguments) of every `python -m` command."""
  found = []
  for line in code_of(text):
    for module, rest in re.findall(r'python[\d.]* -m ([\w.]+)([^&|>;\']*)', line):
      found.append((module, shlex.split(rest.replace('[', ' ').replace(']', ' '))))
  return found


def source_of(module: str) -> Path | None:
  path = ROOT / (module.replace('.', '/') + '.py')
  return path if path.exists() else None


def options_of(module: str) -> str:
  """The source of a command and of its imports, which may define options for it."""
  source = source_of(module).read_text()
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.ImportFrom) and node.module:
      names |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
  others = [path for path in map(source_of, sorted(names)) if path]
  return '\n'.join([source, *(path.read_text() for path in others)])


def defines(name: str, source: str) -> bool:
  """Whether a parser defines an option: by its name, or by a field that becomes its name."""
  field = name.replace('-', '_')
  return bool(re.search(rf"'(--)?({name}|{field})'", source))


def has_key(name: str) -> bool:
  """Whether a configuration has this key or section; `train.epochs`."""
  node = common.get_config()
  for part in name.split('.'):
    if not hasattr(node, 'keys') or part not in node:
      return False
    node = node[part]
  return True


def anchors(page: Path) -> set[str]:
  """The anchors of the headings, as forges generate them."""
  headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_the_pages_hold_what_is_checked():
  """The patterns below find commands, options, keys and links; without any they check nothing."""
  texts = [page.read_text() for page in PAGES]
  code = [span for text in texts for span in code_of(text)]
  commands = [module for text in texts for module, _ in commands_of(text)]
  assert len([module for module in commands if module.startswith(OURS)]) > 20
  assert len([span for span in code if span.startswith('--')]) > 5
  assert len([span for span in code if 'config.' in span]) > 10
  assert len([link for text in texts for link in re.findall(r'\]\(([^)]+)\)', text)]) > 20


@pages
def test_commands_and_their_options(page):
  for module, arguments in commands_of(page.read_text()):
    if module == 'pytest':
      assert all((ROOT / path).exists() for path in arguments if path.endswith('.py')), arguments
    if not module.startswith(OURS):
      continue
    assert source_of(module), f'there is no {module}'
    known = options_of(module)
    for option in (item for item in arguments if item.startswith('--')):
      name, _, value = option[2:].partition('=')
      if name == 'config':
        assert (ROOT / value.partition(':')[0]).exists(), option
      elif name.startswith('config.'):
        assert has_key(name.removeprefix('config.')), f'{module}: {option}'
      elif name != 'help':
        assert defines(name, known), f'{module} does not know {option}'


@pages
def test_options_by_themselves(page):
  """An option such as `--strict` belongs to one of our commands."""
  paths = [
    *ROOT.glob('evad_jax/**/*.py'),
    *ROOT.glob('data_prep/**/*.py'),
    *ROOT.glob('tests/*.py'),
  ]
  known = '\n'.join(path.read_text() for path in paths)
  for span in code_of(page.read_text()):
    for name in re.findall(r'--([a-z][a-z-]*)', span if span.startswith('--') else ''):
      assert name in SLURM or defines(name, known), f'no command knows --{name}'


@pages
def test_configuration_keys(page):
  names = re.findall(r'\bconfig\.([a-z]\w*(?:\.[a-z]\w*)*)', '\n'.join(code_of(page.read_text())))
  assert [name for name in names if not has_key(name)] == []


@pages
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)]+)\)', page.read_text()):
    if '://' in target:
      continue
    path, _, anchor = target.partition('#')
    there = (page.parent / path).resolve() if path else page
    assert there.exists(), target
    assert not anchor or anchor in anchors(there), target


@pages
def test_files_that_are_named(page):
  """Paths such as `room/file.py`, from the root or from the package."""
  for span in code_of(page.read_text()):
    if re.fullmatch(r'[\w/]+/\w+\.py', span) and 'NAME' not in span:
      assert (ROOT / span).exists() or (ROOT / 'evad_jax' / span).exists(), span


def test_every_room_is_described_with_a_place_to_start():
  text = (ROOT / 'docs' / 'architecture.md').read_text()
  rows = dict(
    re.findall(r'^\| \[(\w+)\]\(\.\./evad_jax/\w+\) \| .+ \| `(\w+\.py)`', text, re.MULTILINE)
  )
  rooms = {path.parent.name for path in (ROOT / 'evad_jax').glob('*/__init__.py')}
  assert rooms - set(rows) == {'tools'}
  assert [room for room in rows if not (ROOT / 'evad_jax' / room / rows[room]).exists()] == []


def test_the_table_of_compiled_programs_is_that_of_the_file():
  text = (ROOT / 'benchmarks' / 'README.md').read_text()
  rows = json.loads((ROOT / 'benchmarks' / 'compiled.json').read_text())
  assert rows
  for row in rows:
    job, figures = row['job'], row['figures']
    program = 'training step' if job['program'] == 'step' else 'prediction'
    program += ', fsdp' * job['fsdp'] + f', model={job["mesh"]}' * (job['mesh'] > 1)
    program += ', `remat`' * job['remat']
    cells = [
      job['target'],
      f'ViT-{job["size"]}',
      program,
      job['canvas'],
      job['dtype'],
      job['batch'],
      job['keep_rate'],
      f'{figures["tflop"]:.1f}',
      f'{figures["gb"]:,.1f}',
      f'{figures["launches"]:,}',
      f'{figures["temporary_gb"]:.1f}',
      f'{sum(figures["sent_mb"].values()):,.0f}',
      f'{figures["ms"]:.1f}',
      row['commit'][:7],
    ]
    assert f'| {" | ".join(map(str, cells))} |\n' in text


def test_the_readme_is_short_and_its_pictures_small():
  assert len((ROOT / 'README.md').read_text().splitlines()) <= 220
  pictures = list((ROOT / 'docs' / 'pictures').iterdir())
  assert pictures and all(path.stat().st_size < 300_000 for path in pictures)
