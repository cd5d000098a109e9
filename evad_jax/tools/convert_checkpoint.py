"""Converts published weights to a checkpoint of this project, and back.

  python -m evad_jax.tools.convert_checkpoint SOURCE.pth converted/vit_b \\
    --keep-rate 0.7 --enhanced-weight 1 --roi-extension 0.4 0.2
  python -m evad_jax.tools.convert_checkpoint VIDEOMAE.pth converted/videomae_b
  python -m evad_jax.tools.convert_checkpoint runs/ava/checkpoints ava.pth --to torch

SOURCE is an EVAD detector, or a VideoMAE or VideoMAE v2 encoder, as .pth or .safetensors. The
result is a directory of checkpoints: --config.checkpoint evaluates a detector, --config.init_from
starts training from any of them. The tensors do not show keep rate, enhanced weight and RoI
extension: they are read from the configuration text in the file, or have to be given.

Names and shapes are checked both ways; if anything does not fit, all of it is listed and nothing is
written. The model's output for a generated clip is stored with the parameters, so that
evad_jax.tools.verify can compare.
"""

import argparse
import ast
import contextlib
from pathlib import Path
from typing import Any

from evad_jax import command_line
from evad_jax.checkpoints import manager, model_settings, parameter_checks
from evad_jax.distributed.parameter_rules import by_path
from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD
from evad_jax.published import (
  architectures,
  known_answers,
  weight_files,
  weight_names,
  weight_settings,
)

# The clips of the published recipe, for the published sizes.
PUBLISHED_CLIP = {'clip_frames': 16, 'frame_stride': 4, 'short_side': 288, 'max_long': 1333}
RESTORING = (
  'note: this model restores kept tokens to their own positions (token_restoring=scatter); the '
  'published code does not, so its metrics will differ there'
)


def to_evad_jax(
  source_path: Path, out: Path, changes: dict[str, Any], encoder_only: bool = False
) -> dict:
  """Converts a published file to a checkpoint under `out`; returns its settings.

  changes: settings of the model from the flags. Raises InputError where anything does not fit,
  before anything is written.
  """
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise InputError(f'{out}: is there already; remove it, or choose another directory.')
  source = weight_files.read(source_path)
  print(f'{source_path}: {len(source.tensors)} tensors, sha256 {source.sha256}', flush=True)
  own_kind, own = weight_settings.read_own(source_path, source.cfg)
  kind = own_kind or architectures.recognise(source, encoder_only)
  alien = [key for key in weight_settings.FLAGS if key in changes and kind != 'detector']
  if alien:
    raise InputError(f'{source_path}: is an encoder, which has no {", ".join(alien)}.')
  found = architectures.understand(source, kind, own | changes)
  print(f'{found.title()}; left over {len(found.left_over)}: {_names(found.left_over)}', flush=True)
  lines = []
  if own:
    lines = ['settings: as evad_jax wrote them into the file']
  elif kind == 'detector':
    more, lines = weight_settings.detector_settings(
      source_path, source.cfg, changes, found.settings
    )
    more |= {key: changes[key] for key in ('token_restoring', 'padding') if key in changes}
    found = found._replace(settings=found.settings | more)
  for line in lines:
    print(f'  {line}', flush=True)
  return _save(source, found, out, published=not own)


def _save(
  source: weight_files.Source, found: architectures.Published, out: Path, published: bool
) -> dict:
  """Writes the checkpoint with its known answers; prints the hash of its parameters."""
  print('Computing the known answers, to a generated clip', flush=True)
  answers = known_answers.answers(found.kind, found.settings, found.params)
  settings = {
    'model': found.settings,
    'clip': PUBLISHED_CLIP if found.kind == 'detector' and 'ViT' in found.size else {},
    'classes': [],  # the file does not name them
    'source': {
      'kind': found.kind,
      'title': found.title(),
      'file': source.path.name,
      'sha256': source.sha256,
      'container': source.container,
      'prefix': found.prefix,
      'published': published,  # False: written by this project
      'left_over': found.left_over,
    },
    'parameters_sha256': known_answers.parameters_hash(found.params),
    'known_answers': answers,
  }
  with manager.Checkpoints(out) as checkpoints:
    checkpoints.save(0, {'params': found.params}, settings, {}, None)
  arrays = by_path(found.params)
  print(
    f'{out}: {len(arrays)} arrays, {sum(a.size for a in arrays.values()):,} values, '
    f'sha256 of the parameters {settings["parameters_sha256"]}'
  )
  return settings


def to_published(source: Path, out: Path, form: str) -> None:
  """Writes a checkpoint's parameters under their published names, as 'torch' or 'safetensors'.

  Raises InputError where there is no such checkpoint, or its parameters do not fit its model.
  """
  directory, step = manager.locate(source)
  with manager.Checkpoints(directory, read_only=True) as checkpoints:
    step = checkpoints.choose(0) if step is None else step
    settings, params = checkpoints.settings(step), checkpoints.read_params(step)
    parameter_checks.check_finite(params, directory / str(step))
  origin = settings.get('source', {})
  kind, model = origin.get('kind', 'detector'), dict(settings['model'])
  if kind == 'detector':
    model = model_settings.saved_settings(settings, directory / str(step))
  # The dtype is ours, and belongs to the computation, not to the weights.
  model = {k: tuple(v) if isinstance(v, list) else v for k, v in model.items() if k != 'dtype'}
  tensors = architectures.tensors_of(directory / str(step), kind, model, params)
  container = origin.get('container') or 'model_state'
  if kind == 'detector':
    tensors |= weight_names.NOT_PARAMETERS
    if model['token_restoring'] == 'scatter' and model['keep_rate'] != 1:
      print(RESTORING)
  else:
    container = origin.get('container') or 'model'
    prefix = origin.get('prefix', '')
    tensors = {architectures.to_videomae_name(n, prefix): t for n, t in tensors.items()}
  weight_files.write(out, form, tensors, container, weight_settings.own_text(kind, model))
  print(
    f'{directory / str(step)}: {origin.get("title", "a run of evad_jax")}, sha256 of the '
    f'parameters {known_answers.parameters_hash(params)}'
  )
  print(f'{out}: {len(tensors)} tensors, float32, sha256 {weight_files.file_hash(out)}')


def _names(names: list[str]) -> str:
  return ', '.join(names) or 'none'


def setting(text: str) -> tuple[str, Any]:
  """'num_heads=3' -> ('num_heads', 3); the value is a Python literal or a word."""
  key, equals, value = text.partition('=')
  if not equals or key not in EVAD.__dataclass_fields__ or key in ('parent', 'name', 'dtype'):
    raise argparse.ArgumentTypeError(
      f'{text!r} is not KEY=VALUE with a key of config.model; configs/common.py lists them'
    )
  with contextlib.suppress(SyntaxError, ValueError):  # otherwise a word
    value = ast.literal_eval(value)
  default = EVAD.__dataclass_fields__[key].default
  if not _same_kind(value, default) and not (key == 'keep_rate' and _same_kind(value, (0.7,))):
    raise argparse.ArgumentTypeError(
      f'{text!r} is not of the kind of the published value, {key}={default!r}'
    )
  return key, value


def _same_kind(value: Any, default: Any) -> bool:
  """Whether both are numbers, words, booleans, or sequences of these; an integer is a number."""
  if isinstance(default, tuple):
    return isinstance(value, list | tuple) and all(_same_kind(v, default[0]) for v in value)
  if isinstance(default, float):
    return type(value) in (int, float)
  return type(value) is type(default)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = command_line.Parser('evad_jax.tools.convert_checkpoint', __doc__)
  add = parser.add_argument
  add('source', type=Path, help='.pth or .safetensors, or a directory of checkpoints with --to')
  add('out', type=Path, help='directory to make, or file to write')
  add(
    '--to',
    choices=('evad_jax', 'torch', 'safetensors'),
    default='evad_jax',
    help='format to write (default evad_jax, a directory of checkpoints)',
  )
  add('--keep-rate', type=float, help='keep rate of pruning blocks; published: 1.0, 0.7 or 0.6')
  add('--enhanced-weight', type=float, help='of the keyframe in the importance; published: 1 or 4')
  add(
    '--roi-extension',
    type=float,
    nargs=2,
    metavar=('EX', 'EY'),
    help='published: 0.4 0.2, or 0 0',
  )
  add('--encoder-only', action='store_true', help='discard a pre-training decoder')
  add(
    '--setting',
    type=setting,
    action='append',
    default=[],
    metavar='KEY=VALUE',
    help='model setting that shapes do not determine; repeat for several',
  )
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  command_line.keep_programs()
  flags = {
    'keep_rate': args.keep_rate,
    'enhanced_weight': args.enhanced_weight,
    'roi_extension': tuple(args.roi_extension) if args.roi_extension else None,
  }
  changes = dict(args.setting) | {key: v for key, v in flags.items() if v is not None}
  if args.to != 'evad_jax':
    if changes or args.encoder_only:
      raise InputError(
        f'--to {args.to} takes the settings of the checkpoint; leave these flags out.'
      )
    if args.source.is_file():
      raise InputError(f'{args.source}: --to {args.to} takes a directory of checkpoints.')
    to_published(args.source, args.out, args.to)
  else:
    if args.source.is_dir():
      raise InputError(
        f'{args.source}: is a directory; give a .pth or .safetensors file, or --to torch.'
      )
    to_evad_jax(args.source, args.out, changes, args.encoder_only)


if __name__ == '__main__':
  command_line.run(main)
