"""Accelerators that need not be present: programs are traced and compiled for them on a CPU.

One process compiles for one kind of accelerator: set `environment` before JAX is imported.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

from evad_jax.errors import InputError

# What XLA needs to know about an H100 SXM, in its own text format.
_H100 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
shared_memory_per_block: 49152 shared_memory_per_core: 233472 threads_per_core_limit: 2048
core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
clock_rate_ghz: 1.98 device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536
registers_per_block_limit: 65536 } platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 patch: 0 } runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3" """


class Target(NamedTuple):
  """One or more devices of one kind."""

  platform: str  # 'gpu' or 'tpu'
  topology: str  # the compiler's name for it
  devices: int
  peak: float  # nominal 16-bit operations per second of one device
  cycles: float  # per second, of a TPU


TARGETS = {
  'h100': Target('gpu', '1x1x1', 1, 989e12, 0),
  'h100:8': Target('gpu', '1x1x8', 8, 989e12, 0),
  'v5e': Target('tpu', 'v5e:2x2', 1, 197e12, 1.5e9),
  'v5e:2x2': Target('tpu', 'v5e:2x2', 4, 197e12, 1.5e9),
  'v5e:2x4': Target('tpu', 'v5e:2x4', 8, 197e12, 1.5e9),
  'v4:2x2x2': Target('tpu', 'v4:2x2x2', 8, 275e12, 1.05e9),
  'v6e': Target('tpu', 'v6e:2x4', 1, 918e12, 1.75e9),
  'v6e:2x4': Target('tpu', 'v6e:2x4', 8, 918e12, 1.75e9),
}
_PACKAGES = {'gpu': ('jax_cuda13_plugin', 'jax_plugins.xla_cuda13'), 'tpu': ('libtpu',)}


def environment(target: Target) -> dict[str, str]:
  """Environment variables that a process needs before it imports JAX."""
  common = {'JAX_PLATFORMS': 'cpu'}
  if target.platform == 'gpu':
    # There is no card to autotune kernels on.
    flags = '--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false'
    return common | {'XLA_FLAGS': flags}
  return common | {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  }


def check_compiler(target: Target) -> None:
  """Raises InputError if the packages with the target's compiler are not installed."""
  for name in _PACKAGES[target.platform]:
    try:
      found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
      found = None
    if found is None:
      raise InputError(
        f'The compiler for a {target.platform.upper()} is not installed ({name} is missing): '
        'pip install -r requirements-compilers.txt.'
      )


def devices(target: Target) -> list[Any]:
  """Devices to compile for. Raises InputError if the compiler is not installed."""
  check_compiler(target)
  from jax.experimental import topologies

  if target.platform == 'gpu':
    topology = topologies.get_topology_desc(
      'h100', platform='cuda', target_config=_H100, topology=target.topology
    )
  else:
    topology = topologies.get_topology_desc(platform='tpu', topology_name=target.topology)
  return list(topology.devices)[: target.devices]


@contextlib.contextmanager
def traced_for(target: Target) -> Iterator[None]:
  """Context in which the model sees the target as its platform."""
  import jax
  from jax._src.cudnn import fused_attention_stablehlo as cudnn

  from evad_jax.model import attention

  capability = 9.0 if target.platform == 'gpu' else 0.0
  with (
    mock.patch.object(jax, 'default_backend', lambda: target.platform),
    mock.patch.object(attention, 'cuda_capability', lambda: capability),
    mock.patch.object(cudnn, 'check_cudnn_version', lambda: 91200),
    mock.patch.object(cudnn, 'check_compute_capability', lambda _: True),
    mock.patch.object(cudnn, 'is_cuda_compute_capability_equal', lambda _: False),
  ):
    yield
