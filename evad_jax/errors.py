"""The one exception for bad input, and how a command line answers it.

A bad file, flag or configuration is the user's to mend: the message is one sentence that names the
thing, says what was wrong and what to do, and the command line prints it alone and exits with
status 2. Anything else is a defect of ours and keeps its stack trace.
"""

import contextlib
import sys
from collections.abc import Iterator

from evad_jax import printable

EXIT_BAD_INPUT = 2
LONGEST_SENTENCE = 20_000  # letters; all tensors of a model may be in it


class InputError(ValueError):
  """Something that was given from outside cannot be used; str(error) is one clear sentence.

  It can be printed and written whatever names it quotes, and has no secrets of addresses. Of what
  it quotes from a file without end the middle is left out.
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

  From then on both outputs take any name: letters that they do not have are escaped.
  """
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):  # not what a notebook puts in their place
      stream.reconfigure(errors='backslashreplace')
  try:
    yield
  except InputError as error:
    print(f'error: {error}', file=sys.stderr, flush=True)
    sys.exit(EXIT_BAD_INPUT)
