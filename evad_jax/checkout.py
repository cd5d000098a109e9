"""Imports modules of the checkout that are not installed with the package: configs, data_prep."""

import importlib
from pathlib import Path
from types import ModuleType

from evad_jax.errors import InputError


def module(name: str) -> ModuleType:
  """Imports `configs.common` and the like. Raises InputError outside a checkout."""
  try:
    found = importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name not in (
      name,
      name.partition('.')[0],
    ):  # the module itself fails to import something
      raise
    raise InputError(_sentence(name)) from error
  root = Path(found.__file__).parents[name.count('.')]
  if not (root / 'evad_jax').is_dir():  # other projects have folders with these names, too
    raise InputError(_sentence(name))
  return found


def _sentence(name: str) -> str:
  path = f'{name.replace(".", "/")}.py'
  return f'This needs {path}, which is not installed: run it in a checkout of evad_jax.'
