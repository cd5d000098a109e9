"""Shared by the command lines: parsers, flag types, --config, compilation cache, tables."""

import argparse
import difflib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from evad_jax.errors import EXIT_BAD_INPUT, InputError, exit_on_input_error

CACHE_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'


class Parser(argparse.ArgumentParser):
  """Shows a module's docstring with --help; ends with one sentence and status 2 on a bad flag."""

  def __init__(self, module: str, docstring: str):
    """module: its name, as after python -m."""
    super().__init__(
      prog=f'python -m {module}',
      description=docstring,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,  # a typo must not pass as an abbreviation
    )

  def error(self, message: str) -> NoReturn:
    """Prints the message and ends the process."""
    self.exit(EXIT_BAD_INPUT, f'error: {InputError(message)} (--help explains every flag).\n')

  def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None):
    """Parses as argparse does, and suggests a similar flag for an unknown one."""
    found, rest = self.parse_known_args(args, namespace)
    self._refuse(rest)
    return found

  def parse_with_config(self, argv: Sequence[str] | None):
    """Returns the flags, and the ConfigDict of --config=FILE.py and --config.any.key=value."""
    self.add_argument(
      '--config',
      metavar='FILE.py[:VARIANT]',
      help='configuration; for a first run, configs/demo.py. --config.any.key=value changes one '
      'key; configs/common.py explains every key',
    )
    args, rest = self.parse_known_args(argv)
    if args.config is None:
      self.error('--config is missing; for a first run give --config=configs/demo.py')
    file = args.config.partition(':')[0]
    if not os.path.isfile(file):
      self.error(f'--config={args.config}: there is no file {file}; configs/demo.py is one')
    # Imported here, so that the other commands start at once.
    from absl import flags
    from ml_collections import config_flags

    words = [f'--config={args.config}', *rest]
    values = flags.FlagValues()
    values.set_gnu_getopt()  # continues after an argument that is not a flag
    holder = config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=words)
    flags.FLAGS.mark_as_parsed()  # absl's own flags, which grain's worker processes read
    try:
      unknown = values(['', *words], known_only=True)[1:]
      config = holder.value
      config.name  # noqa: B018 - fails where the file could not be loaded
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
      # A configuration file is Python: whatever it raises is reported to the user in one sentence.
      self.error(f'{_sentence(error)}; configs/common.py explains every key')
    except ImportError as error:
      self.error(
        f'the configuration cannot be loaded ({error}); run the command in the checkout that '
        'its imports belong to'
      )
    self._refuse(unknown)
    return args, config

  def _refuse(self, arguments: Sequence[str]) -> None:
    """Ends the process if an argument was not recognised."""
    if arguments:
      name = arguments[0].partition('=')[0]
      near = difflib.get_close_matches(name, self._option_string_actions, 1, 0.7)
      self.error(f'{name!r} is not a flag' + ''.join(f'; did you mean {flag}?' for flag in near))


def _sentence(error: Exception) -> str:
  """The message on one line; if it quotes a stack trace, only the error at the trace's end."""
  if isinstance(error, OSError) and error.__cause__:
    error = error.__cause__  # why the file could not be loaded
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]  # ConfigDict wraps one in another
  text = f'there is no key {error.args[0]}' if isinstance(error, KeyError) else str(error)
  if 'Traceback (most recent call last)' in text:
    text = text.strip().splitlines()[-1].partition(': ')[2]
  return ' '.join('; '.join(text.splitlines()).split()).rstrip('.?')


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None):
  """Runs a command and exits with its status; on bad input, with one sentence and status 2."""
  with exit_on_input_error():
    sys.exit(main(argv))


def above_zero(kind: Callable[[str], Any], most: float = math.inf) -> Callable[[str], Any]:
  """Flag type: a number of this kind above 0, and at most `most`."""

  def convert(text: str) -> Any:
    value = kind(text)
    if not 0 < value < math.inf:
      raise argparse.ArgumentTypeError(f'{text} is not above 0')
    if value > most:
      raise argparse.ArgumentTypeError(f'{text} is above {most}')
    return value

  convert.__name__ = kind.__name__  # argparse names it in its message
  return convert


positive = above_zero(int)


def size(text: str) -> tuple[int, int]:
  """Flag type: '288x512' -> (288, 512), height and width."""
  height, _, width = text.partition('x')
  if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
    raise argparse.ArgumentTypeError(f'{text!r} is not HEIGHTxWIDTH, for example 288x512')
  return int(height), int(width)


def default_cache() -> Path | None:
  """A directory in the user's cache; None if the user has no home directory."""
  try:
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  except RuntimeError:
    return None
  return Path(base) / 'evad_jax'


def keep_programs() -> None:
  """Caches compiled programs in `default_cache`, unless another cache is configured.

  A directory in JAX_COMPILATION_CACHE_DIR takes precedence; an empty value turns the cache off.
  """
  import jax  # here, so that --help and wrong flags answer at once

  if CACHE_VARIABLE in os.environ or jax.config.jax_compilation_cache_dir:
    return
  directory = default_cache()
  if directory:
    jax.config.update('jax_compilation_cache_dir', str(directory))


def table_row(cells: Sequence[Any]) -> str:
  """A row of a Markdown table."""
  return f'| {" | ".join(map(str, cells))} |'


def table_head(names: Sequence[str]) -> str:
  """The first two rows of a Markdown table."""
  return f'{table_row(names)}\n|{"---|" * len(names)}'


def aligned(rows: Sequence[Sequence[Any]]) -> list[str]:
  """Lines with columns as wide as their widest cell; the first left-aligned, others right."""
  texts = [[str(cell) for cell in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
  return [
    '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
    for row in texts
  ]
