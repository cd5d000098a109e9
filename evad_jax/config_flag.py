"""The flag --config of the command lines that take a configuration, with --config.any.key=value."""

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from evad_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration file, FILE.py[:VARIANT].')


def parse(argv: list[str]) -> ConfigDict:
  """Reads all flags. Raises InputError where one is unknown, missing, or its value unusable.

  argv: with the program's name first.
  """
  app.define_help_flags()
  for name in list(flags.FLAGS):
    flags.FLAGS[name].unparse()  # what an earlier call in this process was given
  try:
    rest = flags.FLAGS(argv)
    missing = _CONFIG.value is None or not _CONFIG.value.name  # fails if the file did not load
  except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
    # A configuration file is Python: whatever it raises belongs to the user, as one sentence.
    raise InputError(
      f'{_sentence(error)} (configs/common.py lists every key; --help explains the flags).'
    ) from error
  except ImportError as error:
    raise InputError(
      f'The configuration cannot be loaded ({error}); run the command in the checkout of evad_jax '
      'that its imports belong to.'
    ) from error
  if len(rest) > 1:
    raise InputError(f'{rest[1]!r} is not a flag; --help lists what is.')
  if missing:
    raise InputError('--config is missing; for a first run give --config=configs/demo.py.')
  return _CONFIG.value


def _sentence(error: Exception) -> str:
  """The message on one line; where it quotes a stack trace, what stands at the trace's end."""
  text = str(error.args[0]) if error.args else str(error)
  if 'Traceback (most recent call last)' in text:
    text = text.strip().splitlines()[-1].partition(': ')[2]
  return ' '.join(text.split())
