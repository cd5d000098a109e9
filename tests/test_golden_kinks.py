"""Which ReLU inputs are near zero, and the effect of holding them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import golden_kinks

X = jnp.array([2.0, 1e-7, -1e-7, -1.0])
SIDES = np.array([0, -1, 1, 0], np.int8)


def value_and_slopes(sides):
  with golden_kinks.held(sides):
    return jax.value_and_grad(lambda x: nn.relu(x) @ jnp.ones(4))(X)


def test_inputs_within_the_bound_of_the_largest_are_near_zero():
  x = np.array([[-10.0, 3.9e-5, 4.1e-5, -3.9e-5, 0.0, 1.0]])
  np.testing.assert_array_equal(golden_kinks._sides(x), [[0, 1, 0, -1, -1, 0]])
  assert golden_kinks.count([golden_kinks._sides(x), SIDES]) == (5, 10)


def test_held_inputs_take_the_given_side_and_no_other_changes():
  value, slopes = value_and_slopes(None)
  np.testing.assert_array_equal(slopes, [1, 1, 0, 0])
  held, held_slopes = value_and_slopes([SIDES])
  np.testing.assert_array_equal(held_slopes, [1, 0, 1, 0])
  np.testing.assert_allclose(held, value, atol=2.1e-7)
  assert nn.relu(jnp.float32(-1.0)) == 0  # the layer is its own again


def test_too_many_sides_are_an_error():
  with pytest.raises(AssertionError, match='fewer ReLUs'):
    value_and_slopes([SIDES, SIDES])
