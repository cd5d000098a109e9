"""Suppresses what Orbax and TensorStore print besides the error that they raise."""

import logging
import sys
from collections.abc import Callable
from typing import Any


def leave_out() -> None:
  """Suppresses these messages from here on, in the entire process."""
  logging.getLogger('absl').addFilter(_worth_telling)
  sys.unraisablehook = _told_otherwise
  # One message for each array that was still to be read when another one failed.
  logging.getLogger('asyncio').addFilter(
    lambda record: not record.getMessage().startswith('Task exception was never retrieved')
  )


def _worth_telling(record: logging.LogRecord) -> bool:
  """False for Orbax's stack traces of a failed save, and for its notes that it is read only.

  It logs a trace in each of its threads; the error itself is raised, and reported in one sentence.
  """
  if 'orbax' not in record.pathname:
    return True
  reading = 'read_only' in record.getMessage() or 'read only' in record.getMessage()
  return record.levelno < logging.ERROR and not reading


def _told_otherwise(thrown: Any, hook: Callable = sys.unraisablehook) -> None:
  """Suppresses the errors of TensorStore's threads after one of many arrays could not be read.

  The other reads return to an event loop that is closed by then; the first error is raised.
  """
  if not (thrown.exc_type is RuntimeError and str(thrown.exc_value) == 'Event loop is closed'):
    hook(thrown)
