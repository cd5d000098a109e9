"""What a preparation will write: splits of videos, cut into shards, and how they are encoded."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from data_prep.common.clip_records import Settings, Source
from data_prep.common.sources import bytes_per_frame, planned_counts, planned_frames
from evad_jax.data.record_index import shard_name
from evad_jax.formats.problems import Problems

LAYOUT = 3  # raised whenever the same plan yields different bytes


class Plan(NamedTuple):
  """Everything that a preparation will write."""

  name: str  # of the data set
  classes: tuple[str, ...]
  splits: dict[str, list[Source]]
  settings: Settings
  shard_frames: int  # stored frames at which a shard is full
  manifest: dict  # manifest entries that only this data set has


class Shard(NamedTuple):
  """A unit of work: consecutive videos of a split."""

  path: Path
  split: str
  sources: list[Source]


def cut_into_shards(plan: Plan, directory: Path) -> list[Shard]:
  """Cuts every split into shards of at most `shard_frames` planned frames, or of one video."""
  shards = []
  for split, sources in plan.splits.items():
    stretches, filled = [[]], 0
    for source in sources:
      frames = planned_frames(source, plan.settings)
      if stretches[-1] and filled + frames > plan.shard_frames:
        stretches.append([])
        filled = 0
      stretches[-1].append(source)
      filled += frames
    for number, stretch in enumerate(stretches):
      name = shard_name(plan.name, split, number, len(stretches))
      shards.append(Shard(directory / name, split, stretch))
  return shards


def print_plan(plan: Plan, problems: Problems) -> None:
  """Prints what a preparation would write, for --dry-run."""
  total = 0.0
  for split, sources in plan.splits.items():
    counts = planned_counts(sources, plan.settings)
    size = counts['frames'] * bytes_per_frame(sources, plan.settings, problems)
    told = ', '.join(f'{count} {what}' for what, count in counts.items())
    print(f'{split}: {told}, about {round(size)} bytes ({size / 1e6:.1f} MB)')
    total += size
  print(f'all: about {round(total)} bytes ({total / 1e9:.2f} GB)')


def fingerprint(plan: Plan) -> dict[str, dict]:
  """What distinguishes one plan from another; stored in the manifest as it is."""
  annotations, files = hashlib.sha256(repr(plan.classes).encode()), hashlib.sha256()
  annotations.update(json.dumps(plan.manifest, sort_keys=True).encode())
  for split, sources in plan.splits.items():
    for source in sources:
      about = (split, source.name, source.num_frames, source.size, source.every_frame)
      annotations.update(repr(about).encode())
      tubes = [array for tube in source.tubes for array in (tube.frames, tube.boxes)]
      annotations.update(repr([tube.label for tube in source.tubes]).encode())
      for array in (source.keyframes, *source.boxes, *tubes):
        annotations.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
      files.update(repr((split, source.name, source.frames.identity())).encode())
  libraries = {name: '.'.join(map(str, v)) for name, v in av.library_versions.items()}
  encoders = {'cv2': cv2.__version__, 'simplejpeg': importlib.metadata.version('simplejpeg')}
  return {
    'settings': plan.settings._asdict() | {'shard_frames': plan.shard_frames, 'layout': LAYOUT},
    'decoder_versions': {'av': av.__version__} | libraries,
    'encoder_versions': encoders,
    'fingerprint': {'annotations': annotations.hexdigest(), 'source files': files.hexdigest()},
  }


def digest(fingerprint: dict[str, dict]) -> str:
  """A fingerprint as 64 hexadecimal digits."""
  return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
