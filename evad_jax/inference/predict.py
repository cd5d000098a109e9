"""A batch of clips to detections: the function that evaluation compiles."""

from typing import Any

import flax.linen as nn

from evad_jax.inference import postprocess
from evad_jax.model.evad import normalize_clips
from evad_jax.structures import Batch, Detections


def predict(model: nn.Module, params: Any, batch: Batch) -> Detections:
  """Runs the detector without drop path; a free function, to be jitted with the model bound."""
  clips = normalize_clips(batch.clips, batch.sizes, model.dtype)
  outputs = model.apply({'params': params}, clips, batch.sizes, train=False)
  return postprocess.detections(outputs, batch.sizes)
