"""What Orbax and TensorStore print besides the error that they raise, which is told by itself."""

import logging
import sys
from collections.abc import Callable
from typing import Any


def leave_out() -> None:
  """Leaves it out from here on, in the whole process."""
  logging.getLogger('absl').addFilter(_worth_telling)
  sys.unraisablehook = _told_otherwise
  # Of many arrays, all that were still to be asked when one could not be read.
  logging.getLogger('asyncio').addFilter(
    lambda record: not record.getMessage().startswith('Task exception was never retrieved')
  )


def _worth_telling(record: logging.LogRecord) -> bool:
  """Of Orbax's records neither the traces of a failed save nor that reading does not write.

  It logs a trace in each of its threads; the error itself is raised, and told in one sentence.
  """
  if 'orbax' not in record.pathname:
    return True
  reading = 'read_only' in record.getMessage() or 'read only' in record.getMessage()
  return record.levelno < logging.ERROR and not reading


def _told_otherwise(thrown: Any, hook: Callable = sys.unraisablehook) -> None:
  """Leaves out what TensorStore's threads say when one of many arrays could not be read.

  The others answer a loop that is closed by then; the error of the one is raised, and told.
  """
  if not (thrown.exc_type is RuntimeError and str(thrown.exc_value) == 'Event loop is closed'):
    hook(thrown)
