"""Names of published tensors and ours, one at a time."""

from evad_jax.published.weight_names import _BACKWARDS, RULES, _rule


def to_path(name: str) -> str:
  """The '/'-separated path of a published tensor in our parameter tree."""
  return _rule(name, RULES)[0]


def to_name(path: str) -> str:
  """The published name of a parameter; the reverse of `to_path`."""
  return _rule(path, _BACKWARDS)[0]
