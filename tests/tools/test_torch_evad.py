"""The PyTorch version that ours is timed against computes the same."""

import functools

import jax
import numpy as np
import pytest

from tests.micro_evad import micro_model, random_parameters

torch = pytest.importorskip('torch')


@pytest.mark.parametrize('fused', [False, True])
def test_action_logits_are_ours(fused):
  from tests.tools.torch_evad import TorchEvad

  model = micro_model(enhanced_weight=4.0, padding='released', decoder_depth=2)
  params = random_parameters(model)
  clips = np.random.default_rng(1).standard_normal((2, 8, 32, 32, 3)).astype(np.float32)
  sizes = np.full((2, 2), 32, np.int32)
  forward = jax.jit(functools.partial(model.apply, train=False, mutable=['intermediates']))
  outputs, found = forward({'params': params}, clips, sizes)
  actors = np.array(found['intermediates']['context_refinement']['actors'][0])
  theirs = TorchEvad(model, params, (32, 32), 8, fused)
  logits = theirs(torch.from_numpy(clips), torch.from_numpy(actors)).numpy()
  np.testing.assert_allclose(logits, outputs.action_logits, atol=2e-5)
  assert np.abs(logits).max() > 0.1
