"""How much of what a device can do at most a run does."""

import jax

# Beginnings of names of devices, and what their makers say: dense 16-bit products with 32-bit sums,
# in 1e12 operations a second (float16 on a T4 and V100), and GB/s of their memory. The first that
# fits counts.
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
  """Operations a second, and GB/s of memory, of a kind of device (`jax.Device.device_kind`).

  None twice where it is not known.
  """
  for name, peak, bandwidth in DEVICES:
    if kind == name or kind.startswith((f'{name} ', f'{name}-', f'{name}e', f'{name}p')):
      return peak * 1e12, bandwidth
  return None, None


def peak_of(kind: str) -> float | None:
  """Operations a second of a device of this kind; None: not known."""
  return nominal(kind)[0]


def share(multiply_adds: float, seconds: float, devices: int, kind: str | None = None):
  """What part of the peak of all devices training takes, or None where that is not known.

  multiply_adds: forward, of all clips in that time; a step has about three times as many, of two
  operations each. What is computed twice to save memory does not count. kind: None: this machine's.
  """
  peak = peak_of(kind or jax.local_devices()[0].device_kind)
  return None if peak is None else 6 * multiply_adds / max(seconds, 1e-9) / (devices * peak)
