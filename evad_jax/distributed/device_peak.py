"""Peak throughput of devices, and the share of it that a run reaches."""

import jax

# Prefixes of device names, with the vendors' specifications: dense 16-bit products with 32-bit
# accumulation in 1e12 operations per second (float16 on T4 and V100), and memory bandwidth in GB/s.
# The first match counts.
DEVICES = (
  ('NVIDIA B200', 2250, 8000),
  ('NVIDIA H200', 989, 4800),
  ('NVIDIA H100 PCIe', 756, 2000),
  ('NVIDIA H100 NVL', 835, 3900),
  ('NVIDIA H100', 989, 3350),
  ('NVIDIA A100', 312, 2039),
  ('NVIDIA L40S', 362, 864),
  ('NVIDIA L4', 121, 300),
  ('NVIDIA A10', 125, 600),
  ('Tesla V100', 125, 900),
  ('Tesla T4', 65, 320),
  ('TPU v4 lite', 138, 614),
  ('TPU v4', 275, 1228),
  ('TPU v5 lite', 197, 819),
  ('TPU v5e', 197, 819),
  ('TPU v5', 459, 2765),
  ('TPU v6', 918, 1640),
)


def nominal(kind: str) -> tuple[float | None, float | None]:
  """Operations per second and memory bandwidth in GB/s of a device kind.

  kind: `jax.Device.device_kind`. Returns (None, None) for an unknown kind.
  """
  for name, peak, bandwidth in DEVICES:
    if kind == name or kind.startswith((f'{name} ', f'{name}-', f'{name}e', f'{name}p')):
      return peak * 1e12, bandwidth
  return None, None


def peak_of(kind: str) -> float | None:
  """Operations per second of a device of this kind; None for an unknown kind."""
  return nominal(kind)[0]


def share(multiply_adds: float, seconds: float, devices: int, kind: str | None = None):
  """Share of the peak throughput of all devices that training reaches; None for an unknown kind.

  multiply_adds: forward, of all clips in that time; a step has about three times as many, of two
  operations each. Recomputation does not count. kind: None: that of this machine's devices.
  """
  peak = peak_of(kind or jax.local_devices()[0].device_kind)
  return None if peak is None else 6 * multiply_adds / max(seconds, 1e-9) / (devices * peak)
