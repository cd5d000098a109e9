"""The data set that most tests of the input pipeline read."""

import pytest

from tests.data.toy_records import make_record, write_toy


@pytest.fixture(scope='session')
def index(tmp_path_factory):
  """The toy data set, intact; nothing may write to it."""
  return write_toy(tmp_path_factory.mktemp('toy'), [make_record(video) for video in range(4)])
