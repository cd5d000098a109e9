"""Flax where types must not mix: it alone may promote them, and only where it has to.

Its norms compute in float32 on 16-bit arrays, and its attention takes a softmax in float32 to
16-bit values, both by implicit promotion, which tests forbid (conftest.platform).
"""

import functools

import flax.linen as nn
import jax
from flax.linen import normalization


def promote():
  """From now on, in this process; float32 models do not need it."""
  normalization._compute_stats = _promoting(normalization._compute_stats)
  normalization._normalize = _promoting(normalization._normalize)
  nn.dot_product_attention = _promoting(nn.dot_product_attention)


def _promoting(function):
  @functools.wraps(function)
  def call(*arguments, **options):
    with jax.numpy_dtype_promotion('standard'):
      return function(*arguments, **options)

  return call
