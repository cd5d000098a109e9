"""The one exception for bad input, and how a command line answers it.

A bad file, flag or configuration is the user's to mend: the message is one sentence that names the
thing, says what was wrong and what to do, and the command line prints it alone and exits with
status 2. Anything else is a defect of ours and keeps its stack trace.
"""

import contextlib
import sys
from collections.abc import Iterator

EXIT_BAD_INPUT = 2


class InputError(ValueError):
  """Something that was given from outside cannot be used; str(error) is one clear sentence."""


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
  """Turns an InputError raised inside into one line on standard error and exit status 2."""
  try:
    yield
  except InputError as error:
    print(f'error: {error}', file=sys.stderr, flush=True)
    sys.exit(EXIT_BAD_INPUT)
