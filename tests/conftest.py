"""Compiles each program once per test run, on the CPU, and holds the fixture for limits on time.

All processes of the run share one fresh cache of programs, and none reserves an accelerator's
memory. With `-m accelerator` the platform is the machine's own, and memory is allocated on demand.
Arrays of two dtypes or ranks do not mix unless the code says how.
"""

import contextlib
import os
import shutil
import tempfile
import time
import tracemalloc  # noqa: F401  Warnings import it, and must not do so inside Orbax's lazy imports
from importlib import metadata

import pytest

_DIRECTORY = 'JAX_COMPILATION_CACHE_DIR'
_EXPLICIT = {'JAX_NUMPY_DTYPE_PROMOTION': 'strict', 'JAX_NUMPY_RANK_PROMOTION': 'raise'}


def selects(markers, name):
  """Whether `-m` asks for this marker."""
  words = markers.replace('(', ' ').replace(')', ' ').split()
  found = [i for i, word in enumerate(words) if word == name]
  return any(i == 0 or words[i - 1] != 'not' for i in found)


def platform(markers):
  """Environment variables for a run of the tests that `-m` selects; those that are set win."""
  if selects(markers, 'accelerator'):
    return _EXPLICIT | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  if any(selects(markers, name) for name in ('slow', 'compiled', 'timing')):
    return _EXPLICIT | {'JAX_PLATFORMS': 'cpu'}
  # The default run compiles more than it computes: LLVM's optimizations would take half of its
  # time, and the newer of the two code generators of jaxlib before 0.12 half of the rest.
  flags = ['--xla_backend_optimization_level=0']
  major, minor = map(int, metadata.version('jaxlib').split('.')[:2])
  if (major, minor) < (0, 12):
    flags.append('--xla_cpu_use_fusion_emitters=false')  # unknown flags end the process
  return _EXPLICIT | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ' '.join(flags)}


# The longest files start first, so that no process waits for one at the end.
_LONGEST = (
  'test_main.py',
  'test_resume.py',
  'test_interruptions.py',
  'test_golden.py',
  'test_non_finite.py',
)


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture(
  params=[False, pytest.param(True, marks=pytest.mark.timing)], ids=['untimed', 'timed']
)
def within(request):
  """`with within(1):` allows the block a second of CPU time, under the marker `timing` alone.

  By default the same test runs without the limit, which depends on the machine.
  """

  @contextlib.contextmanager
  def limited(seconds):
    start = time.process_time()
    yield
    taken = time.process_time() - start
    assert not request.param or taken < seconds, f'{taken:.2f} s of CPU time'

  return limited


def pytest_configure(config):
  # Before JAX is imported; worker processes of the run and programs that tests start inherit it.
  if hasattr(config, 'workerinput'):
    return
  for name, value in platform(config.getoption('markexpr')).items():
    os.environ.setdefault(name, value)
  directory = tempfile.mkdtemp(prefix='evad-jax-tests-')
  os.environ[_DIRECTORY] = directory
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.3'
  config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


@pytest.fixture(scope='session', autouse=True)
def _changed_libraries():
  # Imports JAX, which has to wait for the variables above.
  from tests import flax_types, programs_once

  flax_types.promote()
  programs_once.share()
