"""How much of what a device can do at most a run does."""

import jax

# Beginnings of names of devices, and their makers' 16-bit products with 32-bit sums, dense, in
# 1e12 operations a second (float16 on a T4 and V100). The first that fits counts.
PEAKS = (
  ('NVIDIA H100 PCIe', 756),
  ('NVIDIA H100 NVL', 835),
  ('NVIDIA H100', 989),
  ('NVIDIA H200', 989),
  ('NVIDIA A100', 312),
  ('NVIDIA L40S', 362),
  ('NVIDIA L4', 121),
  ('NVIDIA A10', 125),
  ('Tesla V100', 125),
  ('Tesla T4', 65),
  ('TPU v4 lite', 138),
  ('TPU v4', 275),
  ('TPU v5 lite', 197),
  ('TPU v5e', 197),
  ('TPU v5', 459),
  ('TPU v6', 918),
)


def peak_of(kind: str) -> float | None:
  """Operations a second of a device of this kind (`jax.Device.device_kind`); None: not known."""
  for name, peak in PEAKS:
    if kind == name or kind.startswith((f'{name} ', f'{name}-', f'{name}e', f'{name}p')):
      return peak * 1e12
  return None


def share(multiply_adds: float, seconds: float, devices: int, kind: str | None = None):
  """What part of the peak of all devices training takes, or None where that is not known.

  multiply_adds: forward, of all clips in that time; a step has about three times as many, of two
  operations each. What is computed twice to save memory does not count. kind: None: this machine's.
  """
  peak = peak_of(kind or jax.local_devices()[0].device_kind)
  return None if peak is None else 6 * multiply_adds / max(seconds, 1e-9) / (devices * peak)
