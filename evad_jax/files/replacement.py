"""Files that are written together, and replace earlier ones only when they are complete.

If none of them exists, they grow under their own names, so that a killed program leaves what it had
found. If one exists, all have temporary names until `finish`.
"""

from collections.abc import Sequence
from pathlib import Path

from evad_jax.errors import InputError
from evad_jax.files.atomic_files import temporary

UNFINISHED = 'unfinished-'  # prefix of a file's name that may not replace a complete one


class Replacement:
  """The files of one run of a command."""

  def __init__(self, files: Sequence[Path], overwrite: bool):
    """files: all that will be written.

    Raises InputError if one exists, unless `overwrite` allows it to be replaced, and if one is a
    directory.
    """
    self.files = list(files)
    there = [path for path in files if path.exists()]
    folders = [path for path in there if path.is_dir()]
    if folders:
      raise InputError(f'{folders[0]} is a directory; give another --output.')
    if there and not overwrite:
      raise InputError(
        f'{there[0]} already exists; give another --output, or --overwrite to replace it.'
      )
    self.replaces = bool(there)

  def place(self, path: Path) -> Path:
    """The name under which to write a file, or files whose names begin with this one."""
    return temporary(path) if self.replaces else path

  def finish(self) -> list[Path]:
    """Gives the files their names; returns those that exist."""
    if self.replaces:
      for path in self.files:
        if temporary(path).exists():
          temporary(path).replace(path)
    return [path for path in self.files if path.exists()]

  def leave(self) -> list[Path]:
    """After a failure: keeps what was written, and the earlier files; returns the former."""
    if not self.replaces:
      return [path for path in self.files if path.exists()]
    left = []
    for path in self.files:
      if temporary(path).exists():
        left.append(temporary(path).replace(path.with_name(UNFINISHED + path.name)))
    return left

  def discard(self) -> None:
    """Deletes what was written under temporary names."""
    if self.replaces:
      for path in self.files:
        temporary(path).unlink(missing_ok=True)
