"""From configuration to objects: the only module where configuration keys become arguments."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from evad_jax.data.clips import ClipSettings
from evad_jax.data.pretraining import PretrainingClips
from evad_jax.data.records import RecordIndex
from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD
from evad_jax.model.model_rules import DTYPES
from evad_jax.settings import automatic, config_rules

UNLABELLED = 'unlabelled'  # the data set of data_prep/unlabelled.py


@contextlib.contextmanager
def _section(name: str) -> Iterator[None]:
  """Raises InputError naming the section that has a key its object does not know."""
  try:
    yield
  except TypeError as error:
    raise InputError(f'config.{name}: {error}; configs/common.py lists every key.') from error


def make_model(config: ConfigDict) -> EVAD:
  """The detector of config.model; 'auto' is resolved for the device, for any batch."""
  config_rules.check_section(config.model.to_dict(), 'model')
  config_rules.check_section(config.clip.to_dict(), 'clip')
  arguments = automatic.without_auto(config.model.to_dict())
  dtype = arguments.pop('dtype')
  if config.clip.max_boxes > config.model.num_proposals:
    raise InputError(
      f'config.clip.max_boxes={config.clip.max_boxes} is more than '
      f'config.model.num_proposals={config.model.num_proposals}: every person of a clip needs a '
      'proposal of its own; raise the one or lower the other.'
    )
  with _section('model'):
    # Lists, as settings read from JSON have them, become tuples: programs are found by the model.
    fixed = {key: tuple(x) if isinstance(x, list) else x for key, x in arguments.items()}
    return EVAD(dtype=DTYPES[dtype], **fixed)


def canvases(config: ConfigDict) -> tuple[tuple[int, int], ...]:
  """The canvases of config.clip, checked against the token grid and the feature pyramid."""
  config_rules.check_section(config.clip.to_dict(), 'clip')
  found, multiple = config.clip.canvases, 2 * config.model.patch
  for canvas in found:
    if any(side % multiple for side in canvas):
      raise InputError(
        f'config.clip.canvases has {canvas}, but a canvas is (height, width) in pixels, each a '
        f'multiple of 2 * config.model.patch = {multiple}.'
      )
  return tuple(tuple(canvas) for canvas in found)


def clip_settings(config: ConfigDict, *, keyframe_only: bool = False) -> ClipSettings:
  """How clips are cut, resized and padded."""
  arguments = config.clip.to_dict()
  arguments['canvases'] = canvases(config)
  arguments['short_side'] = arguments['short_side'] or None
  with _section('clip'):
    return ClipSettings(keyframe_only=keyframe_only, **arguments)


def pretraining_clips(config: ConfigDict) -> PretrainingClips:
  """How clips for pre-training are cut, cropped and resized."""
  config_rules.check_section(config.pretrain_data.to_dict(), 'pretrain_data')
  found = canvases(config)
  if len(found) != 1 or found[0][0] != found[0][1]:
    raise InputError(
      f'config.clip.canvases has {", ".join(map(str, found))}, but pre-training crops all clips to '
      'one square canvas, such as (224, 224).'
    )
  clip = config.clip
  with _section('pretrain_data'):
    return PretrainingClips(
      clip.clip_frames,
      clip.frame_stride,
      found[0][0],
      flip_probability=clip.flip_probability,
      **config.pretrain_data.to_dict(),
    )


def open_clips(config: ConfigDict, split: str) -> RecordIndex:
  """The index of a prepared split, whatever its classes."""
  return RecordIndex.open(config.data.directory, split, prepare_command=config.data.prepare_command)


def open_split(config: ConfigDict, split: str) -> RecordIndex:
  """The index of a prepared split, checked against the model's number of actions."""
  index = open_clips(config, split)
  if index.name == UNLABELLED:
    raise InputError(
      f'{config.data.directory}: its videos have no labels: only pre-training can use it.'
    )
  if len(index.classes) != config.model.num_actions:
    raise InputError(
      f'{config.data.directory} has {len(index.classes)} classes, but config.model.num_actions is '
      f'{config.model.num_actions}; set it to {len(index.classes)}, or name another directory.'
    )
  return index


def pipeline_settings(config: ConfigDict) -> dict[str, Any]:
  """Keyword arguments of the input pipeline: workers, prefetching, and unreadable clips."""
  return {key: config.data[key] for key in ('workers', 'threads', 'prefetch', 'unreadable')}
