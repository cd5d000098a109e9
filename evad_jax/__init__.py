"""Efficient video action detection: EVAD (ICCV 2023, arXiv 2304.08451) in JAX and Flax.

`Detector` and `EVAD` are imported on first use, so commands that need no accelerator library do not
wait for one.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from evad_jax.inference.detector import Detector
  from evad_jax.model.evad import EVAD

__version__ = '0.1.0.dev0'  # defined only here: pyproject.toml reads it
__all__ = ['EVAD', 'Detector', '__version__']

_MODULES = {'Detector': 'evad_jax.inference.detector', 'EVAD': 'evad_jax.model.evad'}


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
