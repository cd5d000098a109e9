"""A fixture for every test of a command line."""

import signal

import pytest


@pytest.fixture(autouse=True)
def signals():
  """Restores signal handlers: a command that is called in this process may set its own."""
  before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)
