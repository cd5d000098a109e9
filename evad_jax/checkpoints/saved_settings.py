"""Reads and validates the settings in a checkpoint: model, clips, classes, source.

The checkpoint may come from anyone, so everything is checked before use.
"""

from pathlib import Path
from typing import Any

from evad_jax import limits
from evad_jax.errors import InputError
from evad_jax.files import text_files
from evad_jax.model import model_rules
from evad_jax.published import architectures
from evad_jax.value_rules import (
  check,
  either,
  mapping,
  number,
  one_of,
  rows,
  text,
  truth,
  whole,
)

_LARGEST = 2**53
_names = rows(text, 0, limits.LARGEST_CLASS)
_nothing = one_of(None)
# Some checkpoints have None for 0.
_CLIP = model_rules.CLIP | {'short_side': either(model_rules.CLIP['short_side'], _nothing)}
_RULES = {
  'classes': _names,
  'class_ids': either(rows(whole(0, limits.LARGEST_CLASS), 0, limits.LARGEST_CLASS), _nothing),
  'source': mapping(lambda _: ''),
  'data': mapping(lambda _: ''),
  'parameters_sha256': text,
  'known_answers': mapping(mapping(either(number(), rows(number())))),
}
_SOURCE = {
  'kind': one_of(*architectures.KINDS),
  'title': text,
  'file': text,
  'sha256': text,
  'container': text,
  'prefix': text,
  'published': truth,
  'left_over': rows(text),
}
_POSITION = {
  'seed': whole(0, _LARGEST),
  'next_example': whole(0, _LARGEST),
  'skipped': whole(0, _LARGEST),
  'evaluation_due': truth,
}
_NOUN = 'another checkpoint'


def read(directory: Path) -> dict[str, Any]:
  """The settings in the directory of one step.

  Raises InputError where they cannot be read, or are not what training and conversion write.
  """
  path = directory / 'settings' / 'metadata'
  settings, where = text_files.read_json(path, _NOUN), f'{path}: '
  check(settings, _RULES, where)
  if 'model' not in settings:
    raise InputError(f'{where}has no model settings; give {_NOUN}.')
  model_rules.check_model(settings['model'], f'{where}model.')
  check(settings.get('clip', {}), _CLIP, f'{where}clip.')
  source = settings.get('source')
  if source is not None:
    check(source, _SOURCE, f'{where}source.')
    _require(source, ('kind', 'title'), f'{where}source')
    if source['kind'] != 'detector':
      _require(settings['model'], architectures.ENCODER_SETTINGS, f'{where}model')
    if source['kind'] == 'pretraining':
      _require(settings['model'], architectures.DECODER_SETTINGS, f'{where}model')
  ids, classes = settings.get('class_ids'), settings.get('classes')
  if ids is not None and len(ids) != len(classes or ()):
    raise InputError(f'{where}there are {len(ids)} class_ids for {len(classes or ())} classes.')
  return settings


def _require(section: dict, keys: tuple[str, ...], what: str) -> None:
  missing = [key for key in keys if key not in section]
  if missing:
    raise InputError(f'{what} has no {missing[0]}; give {_NOUN}.')


def read_position(directory: Path) -> dict[str, Any]:
  """The data position saved with one step; errors as in `read`."""
  path = directory / 'position' / 'metadata'
  position = text_files.read_json(path, _NOUN)
  check(position, _POSITION, f'{path}: ')
  return position
