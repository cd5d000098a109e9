"""Settings that shapes do not determine: keep rates, enhanced weight, RoI extension.

Several released models have the same names and shapes, so these settings come from flags, or from
the text of the configuration beside the tensors. Nothing is guessed: a setting in neither has to be
given.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from evad_jax.errors import InputError
from evad_jax.model import model_rules
from evad_jax.model.evad import EVAD
from evad_jax.published import architectures
from evad_jax.value_rules import check, mapping, one_of

# Limits of a text: characters, values including those of aliases, and levels of sections. Published
# texts have some 200 values.
LONGEST_TEXT, MOST_VALUES, DEEPEST = 60_000, 10_000, 20
OURS = 'evad_jax'  # section of the text that this project writes
FLAGS = {
  'keep_rate': '--keep-rate RATE',
  'enhanced_weight': '--enhanced-weight WEIGHT',
  'roi_extension': '--roi-extension EX EY',
}
# Setting -> pattern of the last part of its keys, in lower case.
_KEYS = {
  'keep_rate': r'((token|base)_)?keep_rates?',
  'enhanced_weight': r'(keyframe_)?enhanced?_weights?',
  'roi_extension': r'(roi|box)_(ext|extend|extension)(_scale|_ratio)?',
}
# Keep rate, enhanced weight and RoI extension of the published models.
PUBLISHED = ((1.0, 1.0, (0.0, 0.0)), (0.7, 1.0, (0.4, 0.2)), (0.6, 4.0, (0.4, 0.2)))


class Found(NamedTuple):
  """The value of a setting, and where it was found."""

  value: Any
  where: str


def own_text(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
  """What this project writes beside published tensors, to read them again without flags."""
  return {OURS: {'kind': kind, 'model': settings}}


def read_own(path: Path, cfg: str) -> tuple[str, dict[str, Any]]:
  """Kind and settings of a file that this project wrote; both empty for any other file.

  Raises InputError where one of them is unknown to this version, or invalid.
  """
  tree = _own_section(cfg)
  if tree is None:
    if OURS in _parse(cfg)[0]:
      raise InputError(f'{path}: the part {OURS} of its cfg text is not as evad_jax writes it.')
    return '', {}
  where = f'{path}: the part {OURS} of its cfg text: '
  rules = {'kind': one_of(*architectures.KINDS), 'model': mapping(lambda _: '')}
  missing = sorted(set(rules) - set(tree))
  if missing:
    raise InputError(f'{where}has no {missing[0]}; get the file again.')
  check(tree, rules, where)
  kind, settings = tree['kind'], tree['model']
  unknown = sorted(set(settings) - set(EVAD.__dataclass_fields__))
  if unknown:
    raise InputError(
      f'{path}: has the settings {", ".join(unknown)}, which this version does not know; use the '
      'version that wrote it.'
    )
  model_rules.check_model(settings, where)
  return kind, {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}


def _own_section(cfg: str) -> dict[str, Any] | None:
  """The section that this project wrote, as JSON; None for any other text."""
  if not cfg.startswith(f'{{"{OURS}"') or len(cfg) > LONGEST_TEXT:
    return None
  try:
    section = json.loads(cfg)[OURS]
  except (ValueError, RecursionError):
    return None
  return section if isinstance(section, dict) else None


def detector_settings(
  path: Path, cfg: str, flags: dict[str, Any], told: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
  """The settings that complete a detector, and lines that report the origin of each.

  flags: given values, by setting. told: settings known from shapes and size. A flag overrides the
  text. Raises InputError where a setting is in neither, or its value is invalid.
  """
  tree, trouble = _parse(cfg)
  lines = [f'note: {trouble}'] if trouble else []
  found: dict[str, Found] = {}
  for key in FLAGS:
    written = _search(tree, key)
    if key in flags:
      found[key] = Found(flags[key], 'given')
      lines += [f'{key}: the given value overrides {w.where} = {w.value}' for w in written]
    elif len({str(item.value) for item in written}) > 1:
      raise InputError(
        f'{path}: its cfg text has different values for the {key.replace("_", " ")}: '
        f'{", ".join(f"{w.where} = {w.value}" for w in written)}; give {FLAGS[key]}.'
      )
    elif written:
      found[key] = written[0]
  if 'keep_rate' in found and found['keep_rate'].value == 1:
    found.setdefault('enhanced_weight', Found(1.0, 'has no effect without pruning'))
  missing = [key for key in FLAGS if key not in found]
  if missing:
    raise InputError(
      f'{path}: its tensors do not determine '
      f'{", ".join(key.replace("_", " ") for key in missing)}, and {trouble or _said(tree)}; give '
      f'{" ".join(FLAGS[key] for key in missing)} as the release says (docs/published_weights.md).'
    )
  settings = {key: _checked(path, key, found[key], told) for key in FLAGS}
  if isinstance(settings['keep_rate'], tuple):
    settings |= _by_block(settings['keep_rate'], told)
  lines += [f'{key}: {settings[key]} ({found[key].where})' for key in FLAGS]
  if tuple(settings[key] for key in FLAGS) not in PUBLISHED:
    lines.append('note: no published detector has this combination of values')
  # Without pruning, both ways of restoring are the same.
  settings['token_restoring'] = 'scatter' if settings['keep_rate'] == 1 else 'released'
  settings['padding'] = 'released'
  return settings, lines


def _said(tree: dict) -> str:
  if not tree:
    return 'the file has no cfg text'
  keys = [path for path, _ in _leaves(tree)]
  like = [path for path in keys if re.search(r'keep|enhan|ext|prun', path.lower())]
  return f'none of the {len(keys)} keys of its cfg text names them' + (
    f' (similar: {", ".join(like[:8])})' if like else ''
  )


def _parse(cfg: str) -> tuple[dict, str]:
  """The text as a tree whose values are strings, and what is wrong with it, or ''."""
  if len(cfg) > LONGEST_TEXT:
    return {}, f'its cfg text has {len(cfg)} characters, more than {LONGEST_TEXT}'
  try:
    _check_extent(cfg)
    # Only strings: other loaders make objects of them, and fail on invalid dates.
    tree = yaml.load(cfg, yaml.BaseLoader) if cfg else {}
  except yaml.YAMLError as error:
    return {}, f'its cfg text is not plain YAML ({" ".join(str(error).split())[:120]})'
  return (tree, '') if isinstance(tree, dict) else ({}, 'its cfg text holds no keys')


def _check_extent(cfg: str) -> None:
  """Raises YAMLError for tags, and for a text that is too deep, or too large through aliases."""
  sizes: dict[str, int] = {}  # by anchor: its values, including those of aliases
  open_parts: list[list] = []  # [anchor, values so far]
  for event in yaml.parse(cfg, yaml.BaseLoader):
    if getattr(event, 'tag', None):
      raise yaml.YAMLError(f'it has the tag {event.tag}')
    if isinstance(event, yaml.CollectionStartEvent):
      open_parts.append([event.anchor, 1])
    elif isinstance(event, yaml.CollectionEndEvent | yaml.NodeEvent):
      if isinstance(event, yaml.CollectionEndEvent):
        name, size = open_parts.pop()
      elif isinstance(event, yaml.AliasEvent):
        if event.anchor not in sizes:
          raise yaml.YAMLError(f'*{event.anchor} refers to itself, or to nothing')
        name, size = None, sizes[event.anchor]
      else:
        name, size = event.anchor, 1
      if name is not None:
        sizes[name] = size
      if open_parts:
        open_parts[-1][1] += size
    if len(open_parts) > DEEPEST or max((part[1] for part in open_parts), default=0) > MOST_VALUES:
      raise yaml.YAMLError(f'it has more than {MOST_VALUES} values, or {DEEPEST} levels')


def _leaves(tree: dict, above: str = '') -> Iterator[tuple[str, Any]]:
  """(KEY.OF.SECTIONS, value) of every value that is not a section."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _leaves(value, f'{above}{key}.')
    else:
      yield f'{above}{key}', value


def _search(tree: dict, setting: str) -> list[Found]:
  """All values that the text has under a name of the setting."""
  return [
    Found(_value(value), f'cfg {where}')
    for where, value in _leaves(tree)
    if re.fullmatch(_KEYS[setting], where.rpartition('.')[2].lower())
  ]


def _value(written: str | list) -> Any:
  """A number if the text is one; a tuple of such for a list."""
  if isinstance(written, list):
    return tuple(_value(item) for item in written)
  for kind in (int, float):
    with contextlib.suppress(ValueError, TypeError):
      return kind(written)
  return written


def _checked(path: Path, key: str, item: Found, told: dict[str, Any]) -> Any:
  """The value in the form that EVAD takes, checked to be in range."""
  try:
    if key == 'keep_rate' and isinstance(item.value, tuple):
      value = tuple(float(rate) for rate in item.value)
      fits = len(value) in (told['depth'], len(told['prune_blocks']))
      fits = fits and all(0 < rate <= 1 for rate in value)
    elif key == 'roi_extension':
      value = tuple(float(side) for side in item.value)
      fits = len(value) == 2 and all(0 <= side <= 10 for side in value)
    else:
      value = float(item.value)
      fits = 0 < value <= (1 if key == 'keep_rate' else 1000)
  except (TypeError, ValueError, OverflowError):
    fits = False
  if not fits:
    raise InputError(
      f'{path}: {key} = {str(item.value)[:200]} ({item.where}) is not valid; give {FLAGS[key]}.'
    )
  return value


def _by_block(rates: tuple[float, ...], told: dict[str, Any]) -> dict[str, Any]:
  """One rate for every block of the encoder -> the blocks that prune, and their rates."""
  if len(rates) == told['depth']:
    blocks = tuple(i for i, rate in enumerate(rates) if rate < 1)
    rates = tuple(rates[i] for i in blocks)
  else:
    blocks = told['prune_blocks']
  if len(set(rates)) <= 1:
    return {'keep_rate': rates[0] if rates else 1.0, 'prune_blocks': blocks}
  return {'keep_rate': rates, 'prune_blocks': blocks}
