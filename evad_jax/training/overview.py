"""Describes a run before its first step: how it computes, its parameters and their sharding."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evad_jax.model import multiply_adds
from evad_jax.model.attention import form_for
from evad_jax.model.evad import EVAD
from evad_jax.model.layers import at_least_float32
from evad_jax.training import activation_memory


def computation(config: ConfigDict, model: EVAD, mesh: Mesh) -> str:
  """One line: devices, dtype, attention implementation, activation memory, precision, gradients."""
  kinds = ', '.join(dict.fromkeys(device.device_kind for device in mesh.devices.flat))
  dtype = jnp.dtype(model.dtype).name
  parts = [
    f'{mesh.size} x {kinds}: {dtype}',
    f'attention {attention_form(config, model)}',
    f'activations of blocks {"recomputed" if model.remat else "kept"} for the backward pass',
    f'float32 products at {config.matmul_precision!r}',
  ]
  if mesh.shape['data'] > 1:
    summed = dtype if config.mesh.gradient_dtype == 'compute' else at_least_float32(model.dtype)
    parts.append(f'gradients of matrices summed over devices in {jnp.dtype(summed).name}')
  return ', '.join(parts)


def attention_form(config: ConfigDict, model: EVAD) -> str:
  """The implementation of attention for the tokens of the largest canvas."""
  canvas = max(config.clip.canvases, key=math.prod)
  tokens = multiply_adds.count_tokens(model, config.clip.clip_frames, tuple(canvas)).entering[0]
  return form_for(model.attention, tokens, model.dtype)


def parameters(state: Any, shardings: Any) -> list[str]:
  """One line for each part of the model, and one for the complete state.

  state: shapes and dtypes of a TrainState. shardings: of each of its arrays.
  """
  lines = [_line(part, state.params[part], shardings.params[part]) for part in sorted(state.params)]
  return [*lines, _line('all, with the optimizer', state, shardings)]


def _line(name: str, shapes: Any, shardings: Any) -> str:
  leaves = jax.tree.leaves(shapes)
  numbers = sum(math.prod(x.shape) for x in leaves)
  size = sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)
  axes = sorted(
    {axis for x in jax.tree.leaves(shardings) for axis in _axes(x.spec) if x.mesh.shape[axis] > 1}
  )
  held = activation_memory.on_device(shapes, shardings)
  place = f'sharded over {" and ".join(axes)}, {held / 1e6:,.1f} MB' if axes else 'replicated'
  return f'  {name:24}{numbers:>14,} numbers {size / 1e6:>10,.1f} MB, on each device {place}'


def _axes(spec: Any) -> list[str]:
  """The mesh axes that a PartitionSpec names."""
  return [
    name for entry in spec if entry for name in (entry if isinstance(entry, tuple) else (entry,))
  ]
