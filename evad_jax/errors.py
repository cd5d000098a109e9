"""The exception for bad input, and how a command line reports it.

A bad file, flag or configuration is for the user to fix: the message is one sentence that names the
input, the fault and what to do. The command line prints only that and exits with status 2.
Any other error is a bug of ours and keeps its stack trace.
"""

import contextlib
import sys
from collections.abc import Iterator

from evad_jax import printable

EXIT_BAD_INPUT = 2
LONGEST_SENTENCE = 20_000  # characters; it may list all tensors of a model


class InputError(ValueError):
  """An input from outside cannot be used; str(error) is one clear sentence.

  It can be printed and written whatever names it quotes, and contains no secrets of addresses. A
  sentence that quotes too much is cut in the middle.
  """

  def __str__(self) -> str:
    text = super().__str__()
    if len(text) > LONGEST_SENTENCE:
      half = LONGEST_SENTENCE // 2
      text = f'{text[:half]} ... {text[-half:]}'
    return printable.writable(printable.without_secrets(text))


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
  """Turns an InputError raised inside into one line on standard error and exit status 2.

  From then on both output streams take any name: characters that they cannot encode are escaped.
  """
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):  # a notebook's replacements lack it
      stream.reconfigure(errors='backslashreplace')
  try:
    yield
  except InputError as error:
    print(f'error: {error}', file=sys.stderr, flush=True)
    sys.exit(EXIT_BAD_INPUT)
