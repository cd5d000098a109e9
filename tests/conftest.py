"""Compiles each program once per test run: every process of the run shares one fresh cache."""

import os
import shutil
import tempfile

_DIRECTORY = 'JAX_COMPILATION_CACHE_DIR'


def pytest_configure(config):
  # Before JAX is imported; worker processes of the run, and programs that tests start, inherit it.
  if hasattr(config, 'workerinput'):
    return
  directory = tempfile.mkdtemp(prefix='evad-jax-tests-')
  os.environ[_DIRECTORY] = directory
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.3'
  config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
