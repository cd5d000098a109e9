"""Fixtures for the tests of command lines."""

import signal

import pytest


@pytest.fixture(autouse=True)
def signals():
  """Restores signal handlers: a command that is called in this process may set its own."""
  before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
  """The working directory of a run of the micro model; nothing may write to it."""
  from tests import micro_checkpoint

  return micro_checkpoint.write(tmp_path_factory.mktemp('micro') / 'run' / 'checkpoints').parent
