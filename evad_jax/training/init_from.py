"""Initialises training from a checkpoint: an encoder, a detector, another run.

As strict as the conversion: every parameter is loaded, or stays freshly initialised for a reason
given here; every array of the checkpoint is used, or left over for one. The report lists both.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from evad_jax.checkpoints import manager, model_settings, parameter_checks
from evad_jax.distributed.parameter_rules import by_path
from evad_jax.errors import InputError
from evad_jax.files import atomic_files

# Parameters that may stay freshly initialised, by the kind of checkpoint.
_DETECTOR_PARTS = r'fpn/.*|person_detector/.*'
MAY_STAY_FRESH = {
  'encoder': rf'{_DETECTOR_PARTS}|context_refinement/.*',
  'classifier': rf'{_DETECTOR_PARTS}|context_refinement/.*|encoder/norm/.*',
  'pretraining': rf'{_DETECTOR_PARTS}|context_refinement/action_head_.*',
  'detector': '',
}
# The pre-training decoder may have more or fewer blocks than the decoder that it initialises.
_DECODER_BLOCK = r'context_refinement/(block_\d+)/.*'
# What predicts pixels, which a detector does not.
_PIXEL_HEAD = r'context_refinement/(norm|head)/.*'
_MASK_TOKEN = 'context_refinement/mask_token'
# Other classes need a fresh last layer.
_LAST_LAYER = r'context_refinement/action_head_\d+/action_logits/.*'
# Settings that change what the parameters mean: of the encoder, the decoder and the detector.
_MUST_AGREE = ('num_heads', 'patch', 'tubelet')
_DECODER_MUST_AGREE = ('decoder_heads',)
_DETECTOR_MUST_AGREE = ('detector_heads', 'feature_blocks')


class Report(NamedTuple):
  """What became of every parameter and of every array of the checkpoint, by path in our tree."""

  source: str  # for people
  loaded: list[str]
  fresh: list[str]
  left_over: list[str]
  notes: list[str]
  numbers: int  # values loaded, over all arrays

  def text(self) -> str:
    """The report for people; complete parts of the model appear by name alone."""
    every, saved = [*self.loaded, *self.fresh], [*self.loaded, *self.left_over]
    lines = [
      f'Starting from {self.source}',
      f'  loaded {len(self.loaded)} arrays, {self.numbers:,} numbers: '
      f'{summary(self.loaded, every)}',
      f'  fresh {len(self.fresh)}: {summary(self.fresh, every)}',
      f'  left over {len(self.left_over)}: {summary(self.left_over, saved)}',
    ]
    return '\n'.join([*lines, *(f'  note: {note}' for note in self.notes)])

  def write(self, path: Path) -> None:
    """Writes every path as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(path, self._asdict())


def load(
  config: ConfigDict, fresh: Any, classes: list[str], *, fresh_mask_token: bool = False
) -> tuple[Any, Report]:
  """Returns the initial parameters: those of config.init_from where it has them, else `fresh`.

  fresh: initial values of all parameters, of a detector or of a model for pre-training. classes: of
  the training data. fresh_mask_token: leaves over the mask token of pre-training, as the published
  code does.

  Raises InputError where the checkpoint is missing, was made with settings that change the meaning
  of its parameters, or has or lacks arrays that its kind does not allow; it lists all of them.
  """
  directory, step = manager.locate(config.init_from)
  with manager.Checkpoints(directory, read_only=True) as checkpoints:
    step = checkpoints.choose(0) if step is None else step
    settings = checkpoints.settings(step)
    saved = by_path(checkpoints.read_params(step))
    parameter_checks.check_finite(saved, directory / str(step))
  where = directory / str(step)
  kind = settings.get('source', {}).get('kind', 'detector')
  title = settings.get('source', {}).get('title', f'a run of evad_jax, step {step}')
  notes = _compare_settings(config, settings, kind, where)
  start = by_path(fresh)
  new_classes = settings.get('classes') and list(settings['classes']) != list(classes)
  loaded, stays, left = _sort(saved, start, kind, bool(new_classes), where)
  if fresh_mask_token and kind == 'pretraining':
    loaded.remove(_MASK_TOKEN)
    stays, left = sorted([*stays, _MASK_TOKEN]), sorted([*left, _MASK_TOKEN])
  if kind == 'pretraining':
    notes += _blocks_told(saved, start)
  if any(re.fullmatch(_LAST_LAYER, path) for path in left):
    notes.append('the last layers of the action heads are fresh: the classes differ')
  values = start | {path: _like(saved[path], start[path]) for path in loaded}
  numbers = sum(math.prod(saved[path].shape) for path in loaded)
  report = Report(f'{where} ({title})', loaded, stays, left, notes, numbers)
  return jax.tree.unflatten(jax.tree.structure(fresh), values.values()), report


def _sort(
  saved: dict[str, Any], start: dict[str, Any], kind: str, new_classes: bool, where: Path
) -> tuple[list[str], list[str], list[str]]:
  """Paths that are loaded, that stay fresh, and that are left over."""
  blocks, ours = _decoder_blocks(saved), _decoder_blocks(start)

  def excused(path: str, absent_from: set[str]) -> bool:
    if kind != 'pretraining':
      return False
    block = re.fullmatch(_DECODER_BLOCK, path)
    return block[1] not in absent_from if block else bool(re.fullmatch(_PIXEL_HEAD, path))

  def last_layer(path: str) -> bool:
    return kind == 'detector' and bool(re.fullmatch(_LAST_LAYER, path))

  problems, loaded, fresh, left = [], [], [], []
  for path in sorted(saved.keys() | start.keys()):
    if path not in saved:
      fresh.append(path)
      if not (re.fullmatch(MAY_STAY_FRESH[kind], path) or excused(path, blocks)):
        problems.append(f'{path} is not in it')
    elif path not in start:
      left.append(path)
      if not excused(path, ours):
        problems.append(f'{path} is not in the model')
    elif last_layer(path) and (new_classes or saved[path].shape[-1] != start[path].shape[-1]):
      fresh.append(path)
      left.append(path)
    elif saved[path].shape != start[path].shape:
      problems.append(
        f'{path} is {tuple(saved[path].shape)} in it and {tuple(start[path].shape)} in the model'
      )
    else:
      loaded.append(path)
  if problems:
    raise InputError(
      f'config.init_from={where}: does not fit config.model: {"; ".join(problems)}; set '
      'config.model to the size of the checkpoint.'
    )
  return loaded, fresh, left


def _decoder_blocks(arrays: dict[str, Any]) -> set[str]:
  """Names of the decoder's blocks, from the paths of their arrays."""
  return {m[1] for path in arrays if (m := re.fullmatch(_DECODER_BLOCK, path))}


def _blocks_told(saved: dict[str, Any], start: dict[str, Any]) -> list[str]:
  """A note where the checkpoint's decoder is not as deep as the one that it initialises."""
  theirs, ours = len(_decoder_blocks(saved)), len(_decoder_blocks(start))
  if theirs == ours:
    return []
  rest = 'the others are fresh' if theirs < ours else 'the rest is left over'
  return [f'the decoder blocks of the checkpoint are {theirs}, those of the model {ours}: {rest}']


def _compare_settings(
  config: ConfigDict, settings: dict[str, Any], kind: str, where: Path
) -> list[str]:
  """Notes on changed behaviour settings; InputError for settings that must agree and do not."""
  ours, theirs = config.model.to_dict(), settings['model']
  if kind == 'detector':
    theirs = model_settings.saved_settings(settings, where)
  keys = _MUST_AGREE + _DECODER_MUST_AGREE * (kind in ('pretraining', 'detector'))
  keys += _DETECTOR_MUST_AGREE * (kind == 'detector')
  wrong = model_settings.differing(ours, theirs, keys)
  if wrong:
    pairs = ', '.join(f'{key} was {theirs[key]} and is {ours[key]}' for key in wrong)
    raise InputError(
      f'config.init_from={where}: its parameters have another meaning under config.model: {pairs}; '
      'set these keys as they were.'
    )
  behaviour = ('pretrain_size', *model_settings.BEHAVIOUR * (kind == 'detector'))
  return [
    f'{key} was {theirs[key]} and is {ours[key]} in this run'
    for key in model_settings.differing(ours, theirs, behaviour)
  ]


def _like(value: np.ndarray, start: jax.Array) -> jax.Array:
  return jax.device_put(value.astype(start.dtype))


def summary(paths: list[str], every: list[str]) -> str:
  """Paths in words: a part by its name where all of it is meant, with the number of its arrays."""
  return ', '.join(_parts(paths, every, 1)) or 'none'


def _parts(paths: list[str], every: list[str], depth: int) -> list[str]:
  found = []
  for part in dict.fromkeys('/'.join(path.split('/')[:depth]) for path in paths):
    inside = [path for path in paths if _under(path, part)]
    if len(inside) == sum(_under(path, part) for path in every):
      found.append(part if inside == [part] else f'{part} ({len(inside)})')
    else:
      found += _parts(inside, every, depth + 1)
  return found


def _under(path: str, part: str) -> bool:
  return path == part or path.startswith(f'{part}/')
