"""The installed package: its exports, its wheel, its commands from another directory."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import evad_jax
from evad_jax import checkout
from evad_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
TOOLS = sorted(
  f'evad_jax.tools.{path.stem}'
  for path in (ROOT / 'evad_jax' / 'tools').glob('*.py')
  if path.stem != '__init__'
)


def test_importing_the_package_imports_nothing_else():
  code = (
    'import sys, evad_jax; dir(evad_jax); evad_jax.__version__; '
    "print([name for name in sys.modules if name.partition('.')[0] in "
    "('jax', 'flax', 'numpy', 'ml_collections') or name.startswith('evad_jax.')])"
  )
  found = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert (found.stdout, found.stderr) == ('[]\n', '')


def test_what_is_exported_is_what_the_modules_hold():
  from evad_jax.inference.detector import Detector
  from evad_jax.model.evad import EVAD

  assert evad_jax.Detector is Detector and evad_jax.EVAD is EVAD
  assert {'Detector', 'EVAD', '__version__'} <= set(dir(evad_jax))
  assert re.fullmatch(r'\d+\.\d+\.\d+(\.dev\d+)?', evad_jax.__version__)


def test_a_name_that_is_not_there():
  with pytest.raises(AttributeError, match=r"^module 'evad_jax' has no attribute 'Detectr'$"):
    evad_jax.Detectr  # noqa: B018
  assert not hasattr(evad_jax, 'jax')


def test_every_file_of_requirements_is_read_by_the_package():
  metadata = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']['dynamic']
  extras = {name: spec['file'] for name, spec in metadata['optional-dependencies'].items()}
  assert extras == {name: [f'requirements-{name}.txt'] for name in extras}
  read = [metadata['dependencies']['file'], *extras.values()]
  assert sorted(sum(read, [])) == sorted(path.name for path in ROOT.glob('requirements*.txt'))


def test_modules_of_the_checkout():
  from configs import common

  assert checkout.module('configs.common') is common
  expected = r'^This needs configs/missing.py, which is not installed: run it in a checkout of evad'
  with pytest.raises(InputError, match=expected):
    checkout.module('configs.missing')


def test_modules_of_that_name_in_another_project(tmp_path, monkeypatch):
  (tmp_path / 'settings_elsewhere').mkdir()
  (tmp_path / 'settings_elsewhere' / 'common.py').write_text('')
  (tmp_path / 'settings_elsewhere' / 'broken.py').write_text('import not_installed_either\n')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(InputError, match='^This needs settings_elsewhere/common.py, which is not'):
    checkout.module('settings_elsewhere.common')
  with pytest.raises(ModuleNotFoundError, match='not_installed_either'):
    checkout.module('settings_elsewhere.broken')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Built from a copy, so that nothing is left here; pip takes setuptools from the index."""
  copy = tmp_path_factory.mktemp('checkout')
  for path in ROOT.iterdir():
    if path.is_file():
      shutil.copy(path, copy)
  for name in ('evad_jax', 'configs', 'data_prep', 'tests'):
    shutil.copytree(ROOT / name, copy / name)
  command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '-w', copy / 'wheels', copy]
  subprocess.run(command, check=True, capture_output=True)
  (found,) = (copy / 'wheels').iterdir()
  return found


@pytest.fixture(scope='module')
def elsewhere(wheel, tmp_path_factory):
  """Runs modules in an environment with the wheel, and with this one's other packages."""
  place = tmp_path_factory.mktemp('elsewhere')
  environment, work = place / 'environment', place / 'work'
  work.mkdir()
  subprocess.run([sys.executable, '-m', 'venv', '--without-pip', environment], check=True)
  python = environment / 'bin' / 'python'
  pip = [sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index']
  subprocess.run([*pip, wheel], check=True, capture_output=True)
  (site,) = environment.glob('lib/python*/site-packages')
  # A path in a .pth file comes after the environment's own.
  (site / 'here.pth').write_text(sysconfig.get_path('purelib') + '\n')
  variables = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}

  def run(*arguments, statuses=(0,)):
    command = [python, *map(str, arguments)]
    done = subprocess.run(command, cwd=work, env=variables, capture_output=True, text=True)
    assert done.returncode in statuses, done.stderr
    return done

  run.work = work
  return run


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone_and_all_of_it(wheel):
  """Including data files that modules need."""
  names = [name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name]
  files = [path for path in (ROOT / 'evad_jax').rglob('*') if path.is_file()]
  here = [str(path.relative_to(ROOT)) for path in files if '__pycache__' not in path.parts]
  assert sorted(names) == sorted(here)


@pytest.mark.slow
def test_the_installed_package_is_imported_from_another_directory(elsewhere):
  code = (
    'import importlib.metadata, evad_jax; from evad_jax import Detector, EVAD; '
    "print(evad_jax.__file__, importlib.metadata.version('evad_jax'), Detector.__name__, EVAD)"
  )
  file, version, *names = elsewhere('-c', code).stdout.split()
  assert Path(file).is_relative_to(elsewhere.work.parent / 'environment')
  assert version == evad_jax.__version__
  assert names == ['Detector', '<class', "'evad_jax.model.evad.EVAD'>"]


@pytest.mark.slow
def test_every_command_helps_from_another_directory(elsewhere):
  modules = ['evad_jax.main', *TOOLS]
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    # Flags of absl end with status 1 after their help.
    jobs = [pool.submit(elsewhere, '-m', module, '--help', statuses=(0,)) for module in modules]
    answers = [job.result() for job in jobs]
  for module, answer in zip(modules, answers, strict=True):
    assert f'python -m {module}' in answer.stdout and '--' in answer.stdout, module
    assert 'Traceback' not in answer.stderr, module


@pytest.mark.slow
def test_what_needs_the_checkout_says_so_in_a_sentence(elsewhere):
  common = 'error: This needs configs/common.py, which is not installed: run it in a checkout of'
  for arguments in (
    ['evad_jax.tools.benchmark'],
    ['evad_jax.tools.compile_for', 'h100'],
    ['evad_jax.tools.accelerator_report', '--output', 'report'],
  ):
    told = elsewhere('-m', *arguments, statuses=(2,)).stderr.splitlines()
    assert len(told) == 1 and told[0].startswith(common), told
  assert not list(elsewhere.work.iterdir())
  config = f'--config={ROOT}/configs/demo.py'
  told = elsewhere('-m', 'evad_jax.main', config, statuses=(2,)).stderr.splitlines()
  assert len(told) == 1 and 'configs' in told[0] and 'checkout' in told[0]
