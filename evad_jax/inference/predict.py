"""A batch of clips to detections (paper section 3.5): the function that evaluation compiles."""

from typing import Any

import flax.linen as nn
import jax

from evad_jax import boxes as box_ops
from evad_jax.model.evad import normalize_clips
from evad_jax.structures import Batch, Detections, Outputs

Array = jax.Array


def predict(model: nn.Module, params: Any, batch: Batch) -> Detections:
  """Runs the detector without drop path; a free function, to be jitted with the model bound."""
  clips = normalize_clips(batch.clips, batch.sizes, model.dtype)
  outputs = model.apply({'params': params}, clips, batch.sizes, train=False)
  return detections(outputs, batch.sizes)


def detections(outputs: Outputs, sizes: Array) -> Detections:
  """Returns the last stage's boxes with their scores.

  sizes (B, 2): height and width of the unpadded pictures. Boxes are clipped to the picture and
  divided by its size, so they fit the original frame at any resolution.
  """
  boxes = outputs.boxes[-1]  # (B, P, 4)
  sizes = sizes.astype(boxes.dtype)
  clipped = box_ops.clip(boxes, sizes[:, None, 0], sizes[:, None, 1])
  return Detections(
    boxes=box_ops.normalise(clipped, sizes[:, None]),
    person_scores=jax.nn.softmax(outputs.person_logits[-1], axis=-1)[..., 0],
    action_scores=jax.nn.sigmoid(outputs.action_logits[-1]),
  )
