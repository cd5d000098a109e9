"""Decides whether a directory is free for a plan, or holds part of it, all of it, or other data.

During a preparation, PROGRESS holds its plan's fingerprint, and every complete shard has its part
of the index beside it; the manifest replaces them at the end.
"""

from pathlib import Path

from data_prep.common.plan import Plan, differences
from evad_jax.data import data_set_directory, shard_writer
from evad_jax.data.record_index import MANIFEST, RecordIndex, read_manifest
from evad_jax.errors import InputError
from evad_jax.files import text_files
from evad_jax.files.atomic_files import write_json


def is_complete(directory: Path, plan: Plan, fingerprint: dict) -> bool:
  """Whether the directory holds the prepared plan with all its shards.

  Raises:
    InputError: it holds another plan of this data set, or a shard is missing.
  """
  if not (directory / MANIFEST).is_file():
    return False
  command = f'python -m data_prep.{plan.name} --overwrite'
  different = differences(read_manifest(directory, command), fingerprint)
  if different:
    raise InputError(
      f'{directory}: holds a prepared data set of another plan ({different}); pass --overwrite to '
      'replace it, or choose another output directory'
    )
  for split in plan.splits:
    RecordIndex.open(directory, split, command)
  return True


def claim(directory: Path, plan: Plan, fingerprint: dict, overwrite: bool) -> Path:
  """Claims the directory for this plan and keeps what it has of it; returns where to write.

  That is a directory inside if a complete data set is to be replaced.

  Raises:
    InputError: it holds something else, which must not be deleted.
  """
  place = data_set_directory.place_to_write(directory)
  path = place / data_set_directory.PROGRESS
  started = _started(path, overwrite) if path.is_file() else None
  if started == fingerprint:
    shard_writer.delete_unfinished(place, parts=False)
    return place
  if started is not None and not overwrite and shard_writer.has_parts(place):
    raise InputError(
      f'{directory}: holds a part of another plan ({differences(started, fingerprint)}); use its '
      'arguments to resume it, pass --overwrite to replace it, or choose another '
      'output directory'
    )
  data_set_directory.claim(place, plan.name, overwrite or started is not None)
  write_json(path, fingerprint)
  return place


def _started(path: Path, overwrite: bool) -> dict:
  """The fingerprint of the plan begun there; empty if it is damaged and may be replaced."""
  try:
    started = text_files.read_json(path, 'another output directory, or pass --overwrite')
  except InputError:
    if not overwrite:
      raise
    started = None
  return started if isinstance(started, dict) else {}
