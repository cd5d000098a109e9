"""Tests run on the CPU, unless an accelerator is asked for; types and ranks never mix."""

import jax
import numpy as np
import pytest

from tests.conftest import platform


@pytest.mark.parametrize(
  'markers, accelerator',
  [
    ('not slow and not accelerator', False),
    ('', False),
    ('slow', False),
    ('timing', False),
    ('accelerator', True),
    ('slow and (accelerator)', True),
  ],
)
def test_the_platform_follows_what_is_selected(markers, accelerator):
  asked = platform(markers)
  assert asked.get('JAX_PLATFORMS') == (None if accelerator else 'cpu')
  assert ('XLA_PYTHON_CLIENT_PREALLOCATE' in asked) == accelerator
  assert asked['JAX_NUMPY_DTYPE_PROMOTION'] == 'strict'
  assert asked['JAX_NUMPY_RANK_PROMOTION'] == 'raise'


def test_this_run_has_what_it_asks_for(request):
  markers = request.config.getoption('markexpr')
  if 'JAX_PLATFORMS' in platform(markers):
    assert jax.default_backend() == 'cpu'


@pytest.mark.parametrize(
  'a, b', [(np.ones(2, np.float32), np.ones(2, np.int32)), (np.ones((2, 2)), np.ones(2))]
)
def test_arrays_of_two_types_or_ranks_do_not_mix(a, b):
  with pytest.raises(ValueError, match='promotion'):
    jax.numpy.add(a, b)


@pytest.mark.accelerator
def test_an_accelerator_computes():
  assert jax.default_backend() != 'cpu'
  assert float(jax.numpy.ones((256, 256)).sum()) == 65536
