"""Valid values for the settings of a model and of its clips, wherever they come from.

Sizes have limits beyond any model of this kind: untrusted settings could ask for all memory.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from evad_jax import limits
from evad_jax.errors import InputError
from evad_jax.model.attention import FORMS
from evad_jax.model.context_refinement import TOKEN_RESTORINGS
from evad_jax.model.evad import PADDINGS
from evad_jax.model.sparse_rcnn import PROPOSAL_INITS
from evad_jax.value_rules import Rule, check, either, number, one_of, rows, truth, whole

AUTO = 'auto'
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16, 'float64': jnp.float64}

_width, _blocks = whole(1, 2**13), whole(1, 64)
_rate, _drop = number(0, 1, above=True), number(0, 1, below=True)
MODEL: dict[str, Rule] = {
  'num_actions': whole(1, limits.LARGEST_CLASS),
  'width': _width,
  'depth': _blocks,
  'num_heads': _width,
  'patch': whole(1, 256),
  'tubelet': whole(1, 64),
  'pretrain_size': whole(1, 2**12),
  'prune_blocks': rows(whole(0, 63), 0, 64),
  'keep_rate': either(_rate, rows(_rate)),
  'enhanced_weight': number(0, 1000, above=True),
  'feature_blocks': rows(whole(0, 63), 0, 64),
  'drop_path': _drop,
  'detector_width': _width,
  'detector_heads': _width,
  'num_proposals': whole(1, 10**4),
  'num_stages': _blocks,
  'dynamic_width': _width,
  'feed_forward': whole(1, 2**16),
  'proposal_init': one_of(*PROPOSAL_INITS),
  'roi_extension': rows(number(0, 10), 2, 2),
  'token_restoring': one_of(*TOKEN_RESTORINGS),
  'decoder_width': _width,
  'decoder_depth': _blocks,
  'decoder_heads': _width,
  'decoder_drop_path': _drop,
  'action_hidden': whole(1, 2**16),
  'padding': one_of(*PADDINGS),
  'remat': one_of(True, False, AUTO),
  'attention': one_of(*FORMS),
  'dtype': one_of(*DTYPES, AUTO),
}
_canvas = rows(whole(1, limits.LARGEST_SIDE), 2, 2)
CLIP: dict[str, Rule] = {
  'clip_frames': whole(1, 1024),
  'frame_stride': whole(1, 10**4),
  'canvases': rows(_canvas, 1),
  'short_side': whole(0, limits.LARGEST_SIDE),  # 0: as large as a canvas allows
  'max_long': whole(1, limits.LARGEST_SIDE),
  'flip_probability': number(0, 1),
  'max_boxes': whole(1, 10**4),
  'reduced_decoding': truth,
}
# Numbers in a position table, per time step; published: 14 * 14 * 1024.
_LARGEST_TABLE = 2 * 10**6
_HEADS = {
  'num_heads': 'width',
  'detector_heads': 'detector_width',
  'decoder_heads': 'decoder_width',
}


def check_model(settings: Any, where: str) -> None:
  """Raises InputError for invalid settings of a model; not all need be given.

  where: prefix of their names, as in 'config.model.'.
  """
  check(settings, MODEL, where)
  for heads, width in _HEADS.items():
    _check_divides(settings, heads, width, where)
  _check_divides(settings, 'patch', 'pretrain_size', where)
  grid, widest = settings.get('pretrain_size', 1) // settings.get('patch', 1), 1
  for width in ('width', 'decoder_width'):
    widest = max(widest, settings.get(width, 1))
  if grid**2 * widest > _LARGEST_TABLE:
    raise InputError(
      f'{where}pretrain_size={settings["pretrain_size"]} makes {grid} x {grid} positions of '
      f'{widest} numbers, more than {_LARGEST_TABLE}; make it smaller, or {where}patch larger.'
    )


def _check_divides(settings: Mapping, part: str, whole_name: str, where: str) -> None:
  both = part in settings and whole_name in settings
  if both and settings[whole_name] % settings[part]:
    raise InputError(
      f'{where}{part}={settings[part]} must divide {where}{whole_name}={settings[whole_name]}.'
    )
