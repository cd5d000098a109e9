"""A golden case: one .npz of reference numbers with the model, weights and clips that made it.

CASE.npz holds inputs and float32 stages; CASE_float64.npz the same stages in float64, and
CASE_train.npz losses, gradients and optimizer steps in both types. The latter two hold no inputs:
the plain file is read beside them.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD
from evad_jax.published.weight_names import to_parameters
from tests import golden_rule

DEPTHS = {4: 'tiny', 12: 'B', 24: 'L'}
MODELS = {
  'tiny': dict(
    width=96,
    depth=4,
    num_heads=3,
    feature_blocks=(0, 1, 2, 3),
    num_stages=2,
    decoder_width=48,
    decoder_depth=2,
    decoder_heads=3,
  ),
  'B': {},
  'L': dict(
    width=1024,
    depth=24,
    num_heads=16,
    feature_blocks=(5, 11, 17, 23),
    decoder_width=512,
    decoder_depth=12,
    decoder_heads=8,
  ),
}
PRUNE_BLOCKS = {'tiny': (1, 2), 'B': (3, 6, 9), 'L': (6, 12, 18)}
FRAMES = {'tiny': 8, 'B': 16, 'L': 16}
ACTION_WEIGHT = {'tiny': 12.0, 'B': 12.0, 'L': 6.0}
CANVAS_MULTIPLE = 32  # pixels


class Case(NamedTuple):
  """Everything that a comparison needs."""

  kind: str  # 'stages' or 'train'
  size: str  # 'tiny', 'B' or 'L'
  x64: bool  # computed and judged in float64
  golden: dict[str, np.ndarray]  # to compare with, by key
  settings: dict  # keyword arguments of EVAD, without dtype and token_restoring
  params: dict  # float32
  clips: np.ndarray  # (B, T, H, W, 3) float32, normalised, zero padded
  sizes: np.ndarray  # (B, 2) int32, height and width of the pictures
  original_sizes: np.ndarray  # (B, 2) height and width of the frames they came from
  action_weight: float


def load_case(
  path: Path,
  *,
  size: str | None = None,
  keep_rate: float | None = None,
  enhanced_weight: float | None = None,
  roi_extension: tuple[float, float] | None = None,
  padding: str = 'released',
  x64: bool = False,
) -> Case:
  """Reads a golden file; what it lacks comes from the arguments, then from the defaults.

  Raises InputError where a file is missing or does not determine the configuration.
  """
  base, suffixes = re.fullmatch(r'(.+?)((?:_train|_float64)*)', path.stem).groups()
  train, x64 = '_train' in suffixes, x64 or '_float64' in suffixes
  plain = _read(path.with_name(f'{base}.npz'))
  if train:
    golden = _read(path.with_name(f'{base}_train.npz'))
  else:
    golden = _read(path.with_name(f'{base}_float64.npz')) if x64 else plain
  size = size or _size_of(plain)
  shapes = golden_rule.published_shapes(size)
  sizes, clips = _inputs(plain, FRAMES[size])
  return Case(
    kind='train' if train else 'stages',
    size=size,
    x64=x64,
    golden=golden,
    settings=_settings(plain, size, shapes, keep_rate, enhanced_weight, roi_extension)
    | {'padding': padding},
    params=to_parameters({n: golden_rule.make_weight(n, s) for n, s in shapes.items()}),
    clips=clips,
    sizes=sizes,
    original_sizes=np.broadcast_to(plain['meta/ori_hw'].reshape(-1, 2), sizes.shape),
    action_weight=ACTION_WEIGHT[size],
  )


def build_model(case: Case, token_restoring: str) -> EVAD:
  """The model of the case, in float64 where the case is; needs jax_enable_x64 then."""
  dtype = np.float64 if case.x64 else np.float32
  return EVAD(**case.settings, token_restoring=token_restoring, dtype=dtype)


def _read(path: Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    raise InputError(f'The golden file {path} does not exist; give the path of a CASE.npz.')
  try:
    with np.load(path, allow_pickle=False) as file:
      return dict(file)
  except (ValueError, OSError, TypeError) as error:
    raise InputError(f'{path} is not a golden .npz file ({error}); give another.') from error


def _size_of(plain: dict) -> str:
  blocks = {int(m[1]) for key in plain if (m := re.match(r'block(\d+)/', key))}
  depth = max(blocks, default=-1) + 1
  if depth not in DEPTHS:
    raise InputError(
      f'The golden file has stages of {depth} encoder blocks, which fits none of {DEPTHS}; '
      'say which model it is with --size.'
    )
  return DEPTHS[depth]


def _inputs(plain: dict, frames: int) -> tuple[np.ndarray, np.ndarray]:
  """Sizes (B, 2) and the padded clips (B, T, H, W, 3)."""
  if 'meta/images_whwh' in plain:
    sizes = plain['meta/images_whwh'].reshape(-1, 4)[:, [1, 0]]
  elif 'meta/hw' in plain:
    sizes = plain['meta/hw'].reshape(-1, 2)
  else:
    raise InputError('The golden file has neither meta/images_whwh nor meta/hw; add one.')
  sizes = sizes.astype(np.int32)
  if 'meta/clip_seeds' in plain:
    seeds = plain['meta/clip_seeds'].reshape(-1)
  elif 'meta/images_whwh' in plain:
    seeds = 10 * int(plain['meta/seed']) + np.arange(len(sizes))
  else:
    seeds = plain['meta/seed'].reshape(-1)
  pictures = [
    plain[f'input/{i}']
    if f'input/{i}' in plain
    else golden_rule.make_clip(int(seeds[i]), frames, *size)
    for i, size in enumerate(sizes)
  ]
  canvas = -(-sizes.max(axis=0) // CANVAS_MULTIPLE) * CANVAS_MULTIPLE
  if 'padded_input' in plain:
    canvas = plain['padded_input'].shape[-2:]
  clips = np.zeros((len(sizes), pictures[0].shape[1], *canvas, 3), np.float32)
  for clip, picture in zip(clips, pictures, strict=True):
    clip[:, : picture.shape[2], : picture.shape[3]] = picture.transpose(1, 2, 3, 0)
  return sizes, clips


def _settings(
  plain: dict,
  size: str,
  shapes: dict,
  keep_rate: float | None,
  enhanced_weight: float | None,
  roi_extension: tuple[float, float] | None,
) -> dict:
  """Keyword arguments of EVAD: arguments first, then the file's meta, then the published ones."""
  rates, blocks = _keep_rates(plain, size, keep_rate)
  if enhanced_weight is None:
    enhanced_weight = float(plain.get('meta/enhanced_weight', 1))
  if roi_extension is None:
    roi_extension = (0.4, 0.2) if rates or size == 'tiny' else (0.0, 0.0)
  return dict(
    **MODELS[size],
    num_proposals=shapes['init_proposal_boxes.weight'][0],
    num_actions=shapes['det_head.decoder.blocks.0.action_logits.weight'][0],
    prune_blocks=blocks,
    keep_rate=rates,
    enhanced_weight=enhanced_weight,
    pretrain_size=int(plain.get('meta/pretrain_img_size', 224)),
    roi_extension=roi_extension,
    drop_path=0.0,
    decoder_drop_path=0.0,
  )


def _keep_rates(
  plain: dict, size: str, keep_rate: float | None
) -> tuple[tuple[float, ...], tuple[int, ...]]:
  """Keep rates below 1 and the blocks that they belong to."""
  by_block = plain.get('meta/keep_rates')
  if keep_rate is None and by_block is not None and by_block.size > 1:
    blocks = tuple(int(i) for i in np.flatnonzero(by_block < 1))
    return tuple(float(by_block[i]) for i in blocks), blocks
  if keep_rate is None:
    keep_rate = 0.7 if 'topk0/scores' in plain else 1.0
    if by_block is not None:
      keep_rate = float(by_block.reshape(()))
  blocks = PRUNE_BLOCKS[size] if keep_rate < 1 else ()
  return (keep_rate,) * len(blocks), blocks
