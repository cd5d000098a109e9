"""Names of published tensors and ours, both ways."""

import numpy as np
import pytest

from evad_jax.published import weight_names
from tests import golden_rule
from tests.published_names import to_name, to_path


@pytest.mark.parametrize('size', ['tiny', 'B', 'L'])
def test_every_name_comes_back(size):
  names = [n for n in golden_rule.published_shapes(size) if n not in weight_names.NOT_PARAMETERS]
  paths = [to_path(name) for name in names]
  assert len(set(paths)) == len(names)
  assert [to_name(path) for path in paths] == names


def test_tensors_come_back_bit_for_bit():
  random = np.random.default_rng(0)
  shapes = golden_rule.published_shapes('tiny')
  shapes = {n: s for n, s in shapes.items() if n not in weight_names.NOT_PARAMETERS}
  tensors = {n: random.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
  found = weight_names.to_published(weight_names.to_parameters(tensors), patch=16)
  assert set(found) == set(tensors)
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize(
  'published, ours',
  [
    ('norm.weight', 'encoder/norm/scale'),
    ('blocks.11.attn.q_bias', 'encoder/block_11/attention/q_bias'),
    ('det_head.decoder.blocks.5.act_module.1.bias', 'context_refinement/action_head_5/norm/bias'),
    (
      'det_head.s0_headseries.3.reg_module.6.weight',
      'person_detector/stage_3/box_tower_2/kernel',
    ),
    ('fpn_output5.weight', 'fpn/output_3/kernel'),
  ],
)
def test_places_that_were_looked_up_by_hand(published, ours):
  assert to_path(published) == ours
  assert to_name(ours) == published


def test_layouts_by_hand():
  """One entry of each kind of tensor, at the index from the formula of the convolution."""
  patch = np.arange(2 * 3 * 2 * 4 * 4).reshape(2, 3, 2, 4, 4)  # out, in, kt, kh, kw
  found = weight_names.to_parameters({'patch_embed.proj.weight': patch})
  kernel = found['encoder']['tubelets']['projection']['kernel']
  assert kernel.shape == (96, 2)
  t, y, x, channel, out = 1, 2, 3, 1, 1
  assert kernel[((t * 4 + y) * 4 + x) * 3 + channel, out] == patch[out, channel, t, y, x]
  conv = np.arange(2 * 3 * 9).reshape(2, 3, 3, 3)
  kernel = weight_names.to_parameters({'fpn_output2.weight': conv})['fpn']['output_0']['kernel']
  assert kernel[0, 2, 1, 0] == conv[0, 1, 0, 2]


@pytest.mark.parametrize('name', ['blocks.0.norm3.weight', 'xnorm.weight', 'norm_weight', ''])
def test_unknown_names_are_errors(name):
  with pytest.raises(ValueError, match='not the name of a tensor'):
    to_path(name)
  with pytest.raises(ValueError, match='not the name of a tensor'):
    to_name(f'encoder/{name}')
