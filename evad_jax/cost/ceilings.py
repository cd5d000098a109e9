"""What a device is, and the most it can do: copies and large matrix products."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evad_jax.cost import measured_cost
from evad_jax.cost.report_scale import Scale
from evad_jax.cost.stage_runs import Stage
from evad_jax.distributed import device_peak

Array = jax.Array


def device(stage: Stage, scale: Scale) -> None:
  """Writes rows with the device's properties and its measured ceilings."""
  card = jax.devices()[0]
  memory = (card.memory_stats() or {}).get('bytes_limit')
  peak, bandwidth = device_peak.nominal(card.device_kind)
  stage.row(
    kind=card.device_kind,
    platform=card.platform,
    devices=jax.device_count(),
    jax=jax.__version__,
    runtime=' '.join(card.client.platform_version.split())[:60],
    compute_capability=getattr(card, 'compute_capability', None),
    memory_gb=memory and memory / 1e9,
    size=scale.size,
    canvas='x'.join(map(str, scale.canvas)),
    dtype=scale.dtype,
  )
  small = card.platform == 'cpu'
  copied = copy_bandwidth(2**24 if small else 2**28)
  stage.row(ceiling='copy', measured=copied, unit='GB/s', nominal=bandwidth)
  side = 512 if small else 8192
  for name, dtype, precision in (
    ('product bfloat16', jnp.bfloat16, 'default'),
    ('product float32, default', jnp.float32, 'default'),
    ('product float32, highest', jnp.float32, 'highest'),
  ):
    found = product_rate(side, dtype, precision) / 1e12
    known = peak / 1e12 if peak and dtype == jnp.bfloat16 else None
    stage.row(ceiling=name, measured=found, unit='TFLOP/s', nominal=known)


def best_seconds(call: Callable[[], Any], rounds: int = 5) -> float:
  """The shortest of several calls, after one that is not timed."""
  jax.block_until_ready(call())
  return min(measured_cost.seconds_of(lambda: jax.block_until_ready(call())) for _ in range(rounds))


def copy_bandwidth(length: int, turns: int = 10) -> float:
  """GB/s read plus written, in passes over `length` float32 values."""
  x = jnp.ones(length, jnp.float32)
  passes = jax.jit(lambda x: jax.lax.fori_loop(0, turns, lambda i, x: x * 0.999, x))
  return 2 * x.nbytes * turns / best_seconds(lambda: passes(x)) / 1e9


def product_rate(side: int, dtype: Any, precision: str, turns: int = 10) -> float:
  """Operations per second (two per multiply-add) of consecutive products of square matrices."""
  x = jnp.asarray(np.random.default_rng(0).standard_normal((side, side), np.float32), dtype)
  x = x / side**0.5

  def product(_, y: Array) -> Array:
    return jnp.matmul(x, y, precision=precision)

  products = jax.jit(lambda y: jax.lax.fori_loop(0, turns, product, y))
  return 2 * side**3 * turns / best_seconds(lambda: products(x))
