"""Damage to files, as disks and transfers do it."""

from pathlib import Path


def flip_bit(path: Path, at: int | None = None) -> None:
  """Flips a bit of the byte `at` (negative: from the end), by default of the byte in the middle."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2 if at is None else at] ^= 1
  path.write_bytes(content)
