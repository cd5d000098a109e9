"""Recognises a file of published tensors: its kind, its size, and its parameters in our tree.

Matching is strict: a tensor that is missing, left over, of another shape or used twice is an error,
and one error lists them all. Tensors that a kind of source may leave over or lack are listed here.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evad_jax.errors import InputError
from evad_jax.model import model_rules, sizes, start_values
from evad_jax.model.evad import EVAD
from evad_jax.model.masked_autoencoder import MaskedAutoencoder
from evad_jax.published import weight_names
from evad_jax.published.weight_files import Source

_ENCODER = r'(patch_embed|blocks|norm)\..*'
_PIXELS = r'det_head\.decoder\.(norm|head)\.(weight|bias)'  # the prediction of pixels
_DECODER = (
  r'det_head\.(mask_token|encoder_to_decoder\.weight|decoder\.blocks\.\d+\.(norm|attn|mlp).*)'
  rf'|{_PIXELS}'
)


class Kind(NamedTuple):
  """A kind of source."""

  title: str
  holds: str  # pattern of the EVAD names of its tensors
  may_leave_over: str = ''  # pattern of names in the file
  may_lack: str = ''  # pattern of EVAD names: all of them or none


KINDS = {
  'detector': Kind(
    'EVAD detector',
    holds='.*',
    may_leave_over=r'criterion\.empty_weight',  # a buffer of the loss
  ),
  'pretraining': Kind(
    'VideoMAE or VideoMAE v2 encoder with its pre-training decoder',
    holds=f'{_ENCODER}|{_DECODER}',
    may_lack=_PIXELS,  # a detector does without
  ),
  'encoder': Kind(
    'VideoMAE or VideoMAE v2 encoder',
    holds=_ENCODER,
    # The unwanted decoder of a pre-training file.
    may_leave_over=r'decoder\..*|encoder_to_decoder\.weight|mask_token',
  ),
  'classifier': Kind(
    'VideoMAE or VideoMAE v2 encoder, fine-tuned to classify',
    holds=_ENCODER,
    may_leave_over=r'((encoder|backbone)\.)?(fc_norm|head)\.(weight|bias)',
    may_lack=r'norm\.(weight|bias)',  # it normalises the mean of all tokens: another norm
  ),
}

# Settings that shapes do not determine, of the published sizes by (width, depth).
_SHAPELESS = ('num_heads', 'prune_blocks', 'feature_blocks', 'detector_heads', 'decoder_heads')
_SHAPELESS += ('drop_path', 'decoder_drop_path')
SIZES = {
  (size['width'], size['depth']): (name, {key: size[key] for key in _SHAPELESS})
  for name, size in (('ViT-B', sizes.VIT_B), ('ViT-L', sizes.VIT_L))
}
# Settings that must be given for any other size.
_UNTOLD = {
  'detector': ('num_heads', 'prune_blocks', 'feature_blocks', 'detector_heads', 'decoder_heads'),
  'pretraining': ('num_heads', 'decoder_heads'),
  'encoder': ('num_heads',),
  'classifier': ('num_heads',),
}
ENCODER_SETTINGS = ('width', 'depth', 'num_heads', 'patch', 'tubelet', 'pretrain_size')
DECODER_SETTINGS = ('decoder_width', 'decoder_depth', 'decoder_heads')

# Setting -> names of tensors, and the axis whose length it is.
_LENGTHS = {
  'width': (r'patch_embed\.proj\.\w+|blocks\.\d+\.norm\d\.\w+', 0),
  'tubelet': (r'patch_embed\.proj\.weight', 2),
  'patch': (r'patch_embed\.proj\.weight', 3),
  'detector_width': (r'fpn_\w+\.bias', 0),
  'num_proposals': (r'init_proposal_\w+\.weight', 0),
  'dynamic_width': (r'det_head\.s0_headseries\.\d+\.inst_interact\.norm1\.\w+', 0),
  'feed_forward': (r'det_head\.s0_headseries\.\d+\.linear1\.\w+', 0),
  'decoder_width': (r'det_head\.(encoder_to_decoder|decoder\.blocks\.\d+\.norm\d)\.\w+', 0),
  'action_hidden': (r'det_head\.decoder\.blocks\.\d+\.act_module\.\d\.\w+', 0),
  'num_actions': (r'det_head\.decoder\.blocks\.\d+\.action_logits\.\w+', 0),
}
# Setting -> names of the parts that it counts.
_COUNTS = {
  'depth': r'blocks\.(\d+)\..*',
  'num_stages': r'det_head\.s0_headseries\.(\d+)\..*',
  'decoder_depth': r'det_head\.decoder\.blocks\.(\d+)\..*',
}


class Published(NamedTuple):
  """A source that is recognised and converted."""

  kind: str  # of KINDS
  size: str  # 'ViT-B', 'ViT-L', or width and depth as text
  prefix: str  # of the encoder's names in the file: '', 'encoder.' or 'backbone.'
  settings: dict[str, Any]  # keyword arguments of EVAD, as far as shapes and size determine them
  params: dict  # our tree, or the part of it that the source has
  left_over: list[str]  # names in the file that are not used

  def title(self) -> str:
    """A description in one line."""
    line = f'{KINDS[self.kind].title}, {self.size}'
    if self.kind == 'pretraining':
      width, depth = self.settings['decoder_width'], self.settings['decoder_depth']
      line += f' (decoder of width {width}, {depth} blocks)'
    if self.kind == 'detector':
      line += f', {self.settings["num_actions"]} actions'
    return line


def understand(source: Source, kind: str, changes: dict[str, Any]) -> Published:
  """Checks all tensors of a source of this kind, and converts them.

  changes: settings of the model that replace or complete those from shapes and size.

  Raises InputError where settings are missing, and one for all tensors that are missing, left over,
  of another shape or used twice.
  """
  named, left_over = _under_our_names(source, kind)
  shapes = {name: source.tensors[given[0]].shape for name, given in named.items()}
  told = _told_by_shapes(source.path, shapes)
  size, untold = SIZES.get(
    (told['width'], told['depth']), (f'width {told["width"]}, depth {told["depth"]}', {})
  )
  settings = told | {'pretrain_size': 224} | untold | changes
  model_rules.check_model(settings, f'{source.path}: ')
  missing = [key for key in _UNTOLD[kind] if key not in settings]
  if missing:
    raise InputError(
      f'{source.path}: {KINDS[kind].title} of no published size ({size}): give '
      f'{" ".join(f"--setting {key}=VALUE" for key in missing)}.'
    )
  _check(source.path, kind, named, shapes, expected_shapes(kind, settings))
  params = weight_names.to_parameters(
    {name: source.tensors[given[0]] for name, given in named.items()}
  )
  if kind != 'detector':
    keys = ENCODER_SETTINGS + DECODER_SETTINGS * (kind == 'pretraining')
    settings = {key: settings[key] for key in keys}
  return Published(kind, size, _prefix(source, named), settings, params, left_over)


def recognise(source: Source, encoder_only: bool = False) -> str:
  """The kind of a source, by the names of its tensors; InputError for an unknown kind.

  encoder_only: ignores the decoder of pre-training.
  """
  names = [re.sub(r'^(encoder|backbone)\.', '', name) for name in source.tensors]

  def has(pattern: str) -> bool:
    return any(re.match(pattern, name) for name in names)

  if has(r'det_head\.'):
    return 'detector'
  if not has(r'blocks\.\d+\.'):
    raise InputError(
      f'{source.path}: neither an EVAD detector nor a VideoMAE encoder; its {len(names)} tensors '
      f'start with {", ".join(list(source.tensors)[:3])}.'
    )
  if has(r'decoder\.blocks\.'):
    return 'encoder' if encoder_only else 'pretraining'
  return 'classifier' if has(r'(fc_norm|head)\.') else 'encoder'


def _prefix(source: Source, named: dict[str, list[str]]) -> str:
  """The prefix of the encoder's names in the file, the same for all."""
  found = {given[0].removesuffix(n) for n, given in named.items() if re.fullmatch(_ENCODER, n)}
  if len(found) != 1:
    raise InputError(
      f'{source.path}: its encoder has names with different prefixes, {sorted(found)}; '
      'give a file of one model.'
    )
  return found.pop()


def to_videomae_name(name: str, prefix: str) -> str:
  """The name of a tensor in a VideoMAE file, from its EVAD name."""
  if name.startswith('det_head.'):
    return name.removeprefix('det_head.')
  return prefix + name


def _evad_name(name: str, kind: str) -> str:
  """The reverse for a kind of source; unrecognised names pass through."""
  if kind == 'detector':
    return name
  bare = re.sub(r'^(encoder|backbone)\.', '', name)
  if re.fullmatch(_ENCODER, bare):
    return bare
  return f'det_head.{name}' if re.fullmatch(_DECODER, f'det_head.{name}') else name


def _under_our_names(source: Source, kind: str) -> tuple[dict[str, list[str]], list[str]]:
  """EVAD names with the names in the file that map to them, and the names left over."""
  named, left_over = defaultdict(list), []
  for name in source.tensors:
    ours = _evad_name(name, kind)
    if re.fullmatch(KINDS[kind].may_leave_over, name):
      left_over.append(name)
    else:
      named[ours].append(name)
  return dict(named), left_over


def _told_by_shapes(path: Path, shapes: dict[str, tuple]) -> dict[str, int]:
  """Settings by majority of the tensors, so that one wrong tensor does not mislead."""
  told = {key: EVAD.__dataclass_fields__[key].default for key in (*_LENGTHS, *_COUNTS)}
  for key, (pattern, axis) in _LENGTHS.items():
    lengths = Counter(
      shape[axis]
      for name, shape in shapes.items()
      if re.fullmatch(pattern, name) and len(shape) > axis
    )
    told[key] = lengths.most_common(1)[0][0] if lengths else told[key]
  for key, pattern in _COUNTS.items():
    parts = Counter(m[1] for name in shapes if (m := re.fullmatch(pattern, name)))
    whole = [number for number, count in parts.items() if 2 * count >= max(parts.values())]
    last = max(whole, key=lambda number: (len(number), number), default=None)
    if last is not None and (len(last) > 4 or int(last) >= 2 * len(whole)):
      raise InputError(
        f'{path}: has a part number {last[:20]} ({pattern}), but only {len(whole)} of them; give a '
        'file of a complete model.'
      )
    told[key] = int(last) + 1 if whole else told[key]
  return told


def expected_shapes(kind: str, settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
  """EVAD names and published shapes of all tensors that a source of this kind holds."""
  if kind == 'detector':
    model = EVAD(**settings | {'keep_rate': 1.0})
  else:
    keys = ENCODER_SETTINGS + DECODER_SETTINGS * (kind == 'pretraining')
    model = MaskedAutoencoder(**dict(decoder_depth=1) | {key: settings[key] for key in keys})
  params = start_values.abstract_params(model)
  # Only shapes matter: arrays without memory.
  hollow = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), params)
  tensors = weight_names.to_published(hollow, settings['patch'])
  return {n: t.shape for n, t in tensors.items() if re.fullmatch(KINDS[kind].holds, n)}


def tensors_of(path: Any, kind: str, settings: dict[str, Any], params: Any) -> dict:
  """Parameters of a model with these settings as published tensors, by EVAD name.

  Raises InputError listing everything that does not match the model.
  """
  try:
    tensors = weight_names.to_published(params, settings['patch'])
  except (ValueError, TypeError, IndexError, AttributeError) as error:  # other names, other axes
    raise InputError(f'{path}: does not hold parameters of {KINDS[kind].title}: {error}') from error
  for key, pattern in _COUNTS.items():  # first: shapes of many parts take long
    numbers = {m[1] for name in tensors if (m := re.fullmatch(pattern, name))}
    if key in settings and settings[key] > 2 * len(numbers) > 0:
      raise InputError(f'{path}: {key} is {settings[key]}, but it has {len(numbers)} such parts.')
  named = {name: [name] for name in tensors}
  shapes = {name: tensor.shape for name, tensor in tensors.items()}
  _check(path, kind, named, shapes, expected_shapes(kind, settings))
  return tensors


def _check(
  path: Any,
  kind: str,
  named: dict[str, list[str]],
  shapes: dict[str, tuple],
  expected: dict[str, tuple],
) -> None:
  """Raises InputError listing everything that does not match."""
  spared = {n for n in expected if re.fullmatch(KINDS[kind].may_lack, n)}
  if spared & named.keys():  # all or none
    spared = set()
  missing = [n for n in expected if n not in named and n not in spared]
  strangers = [name for n, given in named.items() if n not in expected for name in given]
  twice = [f'{n} by {" and ".join(given)}' for n, given in named.items() if len(given) > 1]
  wrong = [
    f'{named[n][0]} is {tuple(shapes[n])} instead of {tuple(expected[n])}'
    for n in expected
    if n in shapes and tuple(shapes[n]) != tuple(expected[n])
  ]
  problems = [
    f'{len(found)} {what}: {", ".join(found)}'
    for what, found in (
      ('missing', missing),
      ('left over', strangers),
      ('of another shape', wrong),
      ('used twice', twice),
    )
    if found
  ]
  if problems:
    raise InputError(
      f'{path}: does not hold the tensors of: {KINDS[kind].title}; {"; ".join(problems)}.'
    )
