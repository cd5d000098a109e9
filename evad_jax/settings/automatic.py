"""Chooses settings for the machine: 'auto' in config.model.dtype and config.model.remat.

A run chooses once, process 0 for all, before it makes its model. The choice is printed, stored with
every checkpoint, and kept when the run resumes, on any machine.
"""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from evad_jax.distributed import processes

AUTO = 'auto'
KEYS = ('dtype', 'remat')
# Share of a device's memory for state, gradients and activations. The estimate of activation memory
# is above what compilers keep, as they recompute small arrays; the rest is for one layer's work.
USABLE = 0.9


def dtype_of(device: Any) -> str:
  """'bfloat16' where the device multiplies it fast: a TPU, or CUDA of capability 8.0 or higher.

  Else 'float32': CPUs, older GPUs, and GPUs of other vendors, whose capability is not a number.
  """
  if device.platform == 'tpu':
    return 'bfloat16'
  try:
    capable = float(getattr(device, 'compute_capability', None) or 0) >= 8
  except ValueError:
    capable = False
  return 'bfloat16' if device.platform == 'gpu' and capable else 'float32'


def memory_of(device: Any) -> int | None:
  """Bytes that this program may use on an accelerator; None for a CPU, or if it does not report."""
  if device.platform == 'cpu':
    return None
  try:
    return (device.memory_stats() or {}).get('bytes_limit')
  except (NotImplementedError, RuntimeError):
    return None


def without_auto(model: dict[str, Any], device: Any = None) -> dict[str, Any]:
  """The settings of a model with 'auto' resolved for a device (None: the first), for any batch.

  Activations are recomputed, which needs the least memory; it matters only in training.
  """
  asked = [key for key in KEYS if model.get(key) == AUTO]
  if not asked:
    return model
  device = device or jax.local_devices()[0]
  choice = {'dtype': dtype_of(device), 'remat': True}
  return model | {key: choice[key] for key in asked}


def resolve(
  config: ConfigDict,
  saved: dict[str, Any] | None = None,
  needed: Callable[[ConfigDict], int] | None = None,
) -> ConfigDict:
  """The configuration with 'auto' resolved, the same in all processes; prints what and why.

  saved: the model settings of the run's newest checkpoint; they take precedence over a new choice.
  needed: configuration -> bytes that a step needs on a device; called with dtype set and remat off.
  None: nothing is trained, and nothing recomputed.
  """
  asked = [key for key in KEYS if config.model[key] == AUTO]
  if not asked:
    return config
  config = config.copy_and_resolve_references()
  device, told, chosen = jax.local_devices()[0], [], {}
  for key in asked:
    if saved and saved.get(key) is not None:
      value, why = saved[key], 'as when this run was started'
    elif key == 'dtype':
      value, why = dtype_of(device), f'for {device.device_kind}'
    else:
      value, why = _choose_remat(config, device, needed)
    chosen[key] = value
    if key == 'dtype' or needed:
      told.append(f'config.model.{key}=auto: {value}, {why}')
    _set(config, key, value)
  chosen, told = processes.gather([(chosen, told)])[0]  # the choice of process 0
  for key, value in chosen.items():
    _set(config, key, value)
  for line in told:
    processes.tell(line)
  return config


def _set(config: ConfigDict, key: str, value: Any) -> None:
  with config.ignore_type():
    config.model[key] = value


def _choose_remat(
  config: ConfigDict, device: Any, needed: Callable[[ConfigDict], int] | None
) -> tuple[bool, str]:
  """Whether to recompute activations, and why."""
  if needed is None:
    return False, 'as nothing is trained'
  limit = memory_of(device)
  if limit is None:
    return True, f'as the memory of {device.device_kind} is not known'
  trial = config.copy_and_resolve_references()
  _set(trial, 'remat', False)
  least = needed(trial)
  return least > USABLE * limit, (
    f'as a step without it needs about {least / 1e9:.1f} of {limit / 1e9:.1f} GB of a device'
  )
