"""A port of this machine for processes that have to find each other."""

import socket


def free_port() -> int:
  """A TCP port that no process listens on."""
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]
