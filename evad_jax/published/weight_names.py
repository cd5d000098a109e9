"""Maps each tensor of a published checkpoint to its path and layout in evad_jax, and back.

One ordered list of rules works in both directions; every name must match exactly one. Published
linear weights are (out, in), ours (in, out). A published Conv3d weight (out, in, kt, kh, kw) is a
flattened matrix here.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from evad_jax.distributed.parameter_rules import by_path

Tree = dict  # nested dict of arrays


class Layout(NamedTuple):
  """Converts a tensor from the published layout to ours, and back."""

  to_ours: Callable[[np.ndarray], np.ndarray]
  to_published: Callable[[np.ndarray, int], np.ndarray]  # from our array and the patch, pixels


_linear = Layout(lambda w: w.T, lambda w, patch: w.T)
_conv1x1 = Layout(lambda w: w[:, :, 0, 0].T, lambda w, patch: w.T[:, :, None, None])
_conv3x3 = Layout(lambda w: w.transpose(2, 3, 1, 0), lambda w, patch: w.transpose(3, 2, 0, 1))
_tubelets = Layout(
  lambda w: w.transpose(2, 3, 4, 1, 0).reshape(-1, w.shape[0]),
  lambda w, patch: w.reshape(-1, patch, patch, 3, w.shape[-1]).transpose(4, 3, 0, 1, 2),
)
_same = Layout(lambda w: w, lambda w, patch: w)
_vector = Layout(lambda w: w.reshape(-1), lambda w, patch: w.reshape(1, 1, -1))


_BLOCK = [  # of the encoder and of the decoder
  (r'norm([12])\.weight', r'norm\1/scale', _same),
  (r'norm([12])\.bias', r'norm\1/bias', _same),
  (r'attn\.([qv])_bias', r'attention/\1_bias', _same),
  (r'attn\.qkv\.weight', r'attention/qkv/kernel', _linear),
  (r'attn\.proj\.weight', r'attention/out/kernel', _linear),
  (r'attn\.proj\.bias', r'attention/out/bias', _same),
  (r'mlp\.(fc[12])\.weight', r'mlp/\1/kernel', _linear),
  (r'mlp\.(fc[12])\.bias', r'mlp/\1/bias', _same),
]
_STAGE = [
  (r'self_attn\.in_proj_weight', r'self_attention/qkv/kernel', _linear),
  (r'self_attn\.in_proj_bias', r'self_attention/qkv/bias', _same),
  (r'self_attn\.out_proj\.weight', r'self_attention/out/kernel', _linear),
  (r'self_attn\.out_proj\.bias', r'self_attention/out/bias', _same),
  (r'inst_interact\.dynamic_layer\.weight', r'dynamic_convolution/matrices/kernel', _linear),
  (r'inst_interact\.dynamic_layer\.bias', r'dynamic_convolution/matrices/bias', _same),
  (r'inst_interact\.norm(\d)\.weight', r'dynamic_convolution/norm\1/scale', _same),
  (r'inst_interact\.norm(\d)\.bias', r'dynamic_convolution/norm\1/bias', _same),
  (r'inst_interact\.out_layer\.weight', r'dynamic_convolution/out/kernel', _linear),
  (r'inst_interact\.out_layer\.bias', r'dynamic_convolution/out/bias', _same),
  (r'linear([12])\.weight', r'fc\1/kernel', _linear),
  (r'linear([12])\.bias', r'fc\1/bias', _same),
  (r'norm([123])\.weight', r'norm\1/scale', _same),
  (r'norm([123])\.bias', r'norm\1/bias', _same),
  (r'class_logits\.weight', r'class_logits/kernel', _linear),
  (r'class_logits\.bias', r'class_logits/bias', _same),
  (r'bboxes_delta\.weight', r'box_deltas/kernel', _linear),
  (r'bboxes_delta\.bias', r'box_deltas/bias', _same),
]
for _published, _ours, _depth in (('cls_module', 'class_tower', 1), ('reg_module', 'box_tower', 3)):
  for _i in range(_depth):  # linear, norm, ReLU: three indices each in the published list
    _STAGE += [
      (rf'{_published}\.{3 * _i}\.weight', rf'{_ours}_{_i}/kernel', _linear),
      (rf'{_published}\.{3 * _i + 1}\.weight', rf'{_ours}_norm_{_i}/scale', _same),
      (rf'{_published}\.{3 * _i + 1}\.bias', rf'{_ours}_norm_{_i}/bias', _same),
    ]
_HEAD = [
  (r'act_module\.0\.weight', r'hidden/kernel', _linear),
  (r'act_module\.1\.weight', r'norm/scale', _same),
  (r'act_module\.1\.bias', r'norm/bias', _same),
  (r'action_logits\.weight', r'action_logits/kernel', _linear),
  (r'action_logits\.bias', r'action_logits/bias', _same),
]


def _under(published: str, ours: str, rules: list) -> list:
  """The rules of a numbered part, with its prefixes; `ours` has {} for the number."""
  # The part's number is the first group, so the backreferences of the rule shift by one.
  shifted = [(p, re.sub(r'\\(\d)', lambda m: rf'\{int(m[1]) + 1}', o), f) for p, o, f in rules]
  return [(published + p, ours.replace('{}', r'\1') + o, f) for p, o, f in shifted]


_PYRAMID = [
  (rf'fpn_{kind}{i + 2}\.{leaf}', rf'fpn/{kind}_{i}/{ours}', convert if leaf == 'weight' else _same)
  for kind, convert in (('lateral', _conv1x1), ('output', _conv3x3))
  for i in range(4)
  for leaf, ours in (('weight', 'kernel'), ('bias', 'bias'))
]

RULES = [
  (r'patch_embed\.proj\.weight', r'encoder/tubelets/projection/kernel', _tubelets),
  (r'patch_embed\.proj\.bias', r'encoder/tubelets/projection/bias', _same),
  *_under(r'blocks\.(\d+)\.', 'encoder/block_{}/', _BLOCK),
  (r'norm\.weight', r'encoder/norm/scale', _same),
  (r'norm\.bias', r'encoder/norm/bias', _same),
  *_PYRAMID,
  (r'init_proposal_features\.weight', r'person_detector/proposal_features', _same),
  (r'init_proposal_boxes\.weight', r'person_detector/proposal_boxes', _same),
  *_under(r'det_head\.s0_headseries\.(\d+)\.', 'person_detector/stage_{}/', _STAGE),
  (r'det_head\.mask_token', r'context_refinement/mask_token', _vector),
  (r'det_head\.encoder_to_decoder\.weight', r'context_refinement/projection/kernel', _linear),
  *_under(r'det_head\.decoder\.blocks\.(\d+)\.', 'context_refinement/block_{}/', _BLOCK),
  *_under(r'det_head\.decoder\.blocks\.(\d+)\.', 'context_refinement/action_head_{}/', _HEAD),
  # Of pre-training alone: the prediction of pixels, which ours orders as the published does.
  (r'det_head\.decoder\.norm\.weight', r'context_refinement/norm/scale', _same),
  (r'det_head\.decoder\.norm\.bias', r'context_refinement/norm/bias', _same),
  (r'det_head\.decoder\.head\.weight', r'context_refinement/head/kernel', _linear),
  (r'det_head\.decoder\.head\.bias', r'context_refinement/head/bias', _same),
]

# Buffers of the published loss: weights of person and no object. Written when converting back.
NOT_PARAMETERS = {'criterion.empty_weight': np.array([1, 0.1], np.float32)}


def _backwards(pattern: str, path: str) -> tuple[str, str]:
  """The reverse rule, from our path to the published name: the groups change sides.

  Both sides have the same groups in the same order, each once.
  """
  groups = re.findall(r'\([^)]*\)', pattern)
  numbers = iter(range(1, len(groups) + 1))
  name = re.sub(r'\([^)]*\)', lambda m: rf'\{next(numbers)}', pattern).replace(r'\.', '.')
  return re.sub(r'\\(\d)', lambda m: groups[int(m[1]) - 1], path), name


_BACKWARDS = [(*_backwards(pattern, path), layout) for pattern, path, layout in RULES]


def _rule(name: str, rules: list) -> tuple[str, Layout]:
  for pattern, target, layout in rules:
    match = re.fullmatch(pattern, name)
    if match:
      return match.expand(target), layout
  raise ValueError(f'{name!r} is not the name of a tensor of a published EVAD checkpoint.')


def to_parameters(tensors: Mapping[str, np.ndarray]) -> Tree:
  """Published tensors by name -> our nested parameter dict. Raises ValueError on unknown names."""
  arrays = {}
  for name, tensor in tensors.items():
    if name in NOT_PARAMETERS:
      continue
    path, layout = _rule(name, RULES)
    arrays[path] = np.ascontiguousarray(layout.to_ours(tensor))
  return traverse_util.unflatten_dict(arrays, sep='/')


def to_published(params: Tree, patch: int) -> dict[str, np.ndarray]:
  """Our parameters -> published tensors by name; the reverse of `to_parameters`, without buffers.

  patch: side of a tubelet in pixels. The tensors are views where possible. Raises ValueError on
  a path that no rule matches.
  """
  tensors = {}
  for path, array in by_path(params).items():
    name, layout = _rule(path, _BACKWARDS)
    tensors[name] = layout.to_published(array, patch)
  return tensors
