"""Raw outputs to detections (paper section 3.5), inside jit."""

import jax

from evad_jax import boxes as box_ops
from evad_jax.structures import Detections, Outputs

Array = jax.Array


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
