"""Flags of the programs that take a configuration file; what is wrong with them in one sentence."""

from absl import app, flags
from ml_collections import config_flags

from evad_jax.errors import InputError

# Once for all programs: absl refuses a second flag of the same name in one process.
CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration file, FILE.py[:VARIANT].')


def parse(argv: list[str]) -> None:
  """Reads the flags. Raises InputError where one is unknown or unusable, or --config missing."""
  app.define_help_flags()
  try:
    rest = flags.FLAGS(argv)
    missing = CONFIG.value is None or not CONFIG.value.name  # fails if the file did not load
  except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
    # A configuration file is Python: whatever it raises belongs to the user, as one sentence.
    raise InputError(
      f'{_sentence(error)} (configs/common.py lists every key; --help explains the flags).'
    ) from error
  if len(rest) > 1:
    raise InputError(f'{rest[1]!r} is not a flag; --help lists what is.')
  if missing:
    raise InputError('--config is missing; for a first run give --config=configs/demo.py.')


def _sentence(error: Exception) -> str:
  """The message on one line; where it quotes a stack trace, what stands at the trace's end."""
  text = str(error.args[0]) if error.args else str(error)
  if 'Traceback (most recent call last)' in text:
    text = text.strip().splitlines()[-1].partition(': ')[2]
  return ' '.join(text.split())
