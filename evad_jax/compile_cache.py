"""Where compiled programs are kept between runs: what a program costs to compile is paid once."""

import os
from pathlib import Path

import jax

VARIABLE = 'JAX_COMPILATION_CACHE_DIR'


def default_directory() -> Path | None:
  """A directory of the user's caches; None where the user has no home."""
  try:
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  except RuntimeError:
    return None
  return Path(base) / 'evad_jax'


def use_default() -> None:
  """For the command lines: keeps programs in `default_directory`, where nothing else was chosen.

  A directory in JAX_COMPILATION_CACHE_DIR comes first; an empty one there turns the cache off.
  """
  if VARIABLE in os.environ or jax.config.jax_compilation_cache_dir:
    return
  directory = default_directory()
  if directory:
    jax.config.update('jax_compilation_cache_dir', str(directory))
