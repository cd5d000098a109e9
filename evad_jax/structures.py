"""The data passed between modules: Batch, Targets, ClipBatch, Outputs, Detections, PruningStage.

Plain named tuples of arrays: NumPy in the input pipeline and in the metrics, JAX inside jit (named
tuples are pytrees). Axis letters as in docs/architecture.md: B batch, T frames, H W canvas pixels,
t h w token grid, G padded ground-truth boxes, P proposals, A actions. All boxes are xyxy float32
pixels of the network input, whose origin is the top left corner; masks are True for real entries.
"""

from typing import Any, NamedTuple

Array = Any  # np.ndarray in data/ and metrics/, jax.Array inside jit


class Targets(NamedTuple):
  """Ground truth of a batch, padded to G boxes per clip."""

  boxes: Array  # (B, G, 4) float32, xyxy pixels of the resized, unpadded input; 0 where padded
  labels: Array  # (B, G, A) float32 multi-hot, 0 or 1
  box_mask: Array  # (B, G) bool


class Batch(NamedTuple):
  """One batch of clips on a common canvas."""

  clips: Array  # (B, T, H, W, 3) uint8 RGB, zero right of and below the picture
  sizes: Array  # (B, 2) int32, height and width of the picture inside the canvas
  frame_boxes: Array  # (B, G, 4) float32, xyxy as annotated, divided by the frame's size; unflipped
  targets: Targets
  example_mask: Array  # (B,) bool, False for the padding of the last batch of an evaluation
  index: Array  # (B,) int32, the example's index within its split


class ClipBatch(NamedTuple):
  """One batch of clips for pre-training; boxes play no part."""

  clips: Array  # (B, T, H, W, 3) uint8 RGB, crops that fill the canvas
  example_mask: Array  # (B,) bool, False for padding and for unreadable clips
  index: Array  # (B,) int32, the example whose record the clip is from; see data/unreadable.py


class Outputs(NamedTuple):
  """Outputs of the detector, in training and evaluation; the last stage is the final result."""

  person_logits: Array  # (stages, B, P, 2) float32: person, no object
  boxes: Array  # (stages, B, P, 4) float32 xyxy pixels, not clipped
  action_logits: Array  # (decoder blocks, B, P, A) float32


class Detections(NamedTuple):
  """Scored people of a batch, from the last stage."""

  boxes: Array  # (B, P, 4) float32 xyxy, clipped to the picture, divided by its width and height
  person_scores: Array  # (B, P) float32 in [0, 1]
  action_scores: Array  # (B, P, A) float32 in [0, 1]


class PruningStage(NamedTuple):
  """What one pruning block does with every token of the grid, in time order.

  Tokens outside the picture are padding: where padding is masked, they are kept only when too few
  others are left, and their importance is 0. For a single clip the axis B is absent.
  """

  block: Any  # int, counted from 0
  kept: Array  # (B, t, h, w) bool; the keyframe's time step, t // 2, is always kept
  importance: Array  # (B, t, h, w) float32, at least 0; NaN for tokens that earlier blocks dropped
