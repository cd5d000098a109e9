"""The training objective: persons and boxes of every stage, actions of every decoder block.

Paper section 3.5. The sum of all weighted terms is divided by the number of terms. Every term is a
sum over the given clips divided by a count over the *global* batch. So the terms and gradients of
microbatches add up to those of the batch, however it is divided.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evad_jax import boxes as box_ops
from evad_jax.structures import Outputs, Targets
from evad_jax.training.matcher import Matches

Array = jax.Array

# The published loss stores this weight in float32.
NO_OBJECT_WEIGHT = float(np.float32(0.1))
PERSON_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0


class Normalizers(NamedTuple):
  """Counts over the global batch, known before the model runs."""

  boxes: Array  # () float32, ground-truth boxes, at least 1
  proposals: Array  # () float32, proposals weighted as in the person loss


class Terms(NamedTuple):
  """The weighted loss terms, before the division by their number."""

  person: Array  # (stages,)
  box_l1: Array  # (stages,)
  box_giou: Array  # (stages,)
  action: Array  # (decoder blocks,)

  def total(self) -> Array:
    """The published objective, (): the mean of all terms."""
    return sum(term.sum() for term in self) / sum(term.size for term in self)


def normalizers(
  targets: Targets, num_proposals: int, example_mask: Array | None = None
) -> Normalizers:
  """Every box is matched to exactly one proposal, so the counts follow from the targets alone.

  example_mask: (B,) bool, clips that count; None: all. Without any the counts are 1.
  """
  persons = targets.box_mask.sum().astype(float)
  clips = targets.box_mask.shape[0] if example_mask is None else example_mask.sum()
  proposals = jnp.asarray(clips * num_proposals, float)
  weighted = persons + NO_OBJECT_WEIGHT * (proposals - persons)
  return Normalizers(jnp.maximum(persons, 1), jnp.where(weighted > 0, weighted, 1))


def _of_matched(values: Array, proposal: Array) -> Array:
  """values (..., P, C), proposal (..., G) -> (..., G, C)."""
  return jnp.take_along_axis(values, proposal[..., None], axis=-2)


def person_loss(
  logits: Array, proposal: Array, box_mask: Array, example_mask: Array | None = None
) -> Array:
  """Weighted cross-entropy, summed: logits (B, P, 2), proposal (B, G), box_mask (B, G) -> ().

  example_mask: (B,) bool, clips that count; None: all.
  """
  matched = jnp.zeros(logits.shape[:2], jnp.int32)
  batch = jnp.arange(logits.shape[0])[:, None]
  matched = matched.at[batch, proposal].add(box_mask.astype(jnp.int32))
  log_p = jax.nn.log_softmax(logits, axis=-1)
  loss = -jnp.where(matched > 0, log_p[..., 0], NO_OBJECT_WEIGHT * log_p[..., 1])
  return (loss if example_mask is None else jnp.where(example_mask[:, None], loss, 0)).sum()


def box_losses(
  boxes: Array, proposal: Array, targets: Targets, sizes: Array
) -> tuple[Array, Array]:
  """L1 of the normalised corners and 1 - GIoU of the matched pairs, each summed to ()."""
  mask = targets.box_mask
  # Unmatched rows become the unit box on both sides: finite values, and gradients of zero.
  unit = jnp.asarray([0, 0, 1, 1], boxes.dtype)
  predicted = jnp.where(mask[..., None], _of_matched(boxes, proposal), unit)
  true = jnp.where(mask[..., None], targets.boxes.astype(boxes.dtype), unit)
  ours, theirs = (box_ops.normalise(some, sizes[:, None]) for some in (predicted, true))
  l1 = jnp.abs(ours - theirs).sum()
  giou = box_ops.pairwise_giou(predicted[..., None, :], true[..., None, :])[..., 0, 0]
  return l1, jnp.where(mask, 1 - giou, 0).sum()


def action_loss(logits: Array, proposal: Array, targets: Targets) -> Array:
  """Sigmoid cross-entropy of the matched proposals, mean over classes, summed to ()."""
  logits = _of_matched(logits, proposal)  # (B, G, A)
  loss = optax.sigmoid_binary_cross_entropy(logits, targets.labels.astype(logits.dtype))
  return jnp.where(targets.box_mask, loss.mean(axis=-1), 0).sum()


def consistency_loss(
  logits: Array,  # (blocks, B, P, A)
  proposal: Array,  # (B, G)
  reference_logits: Array,  # (blocks, B, P, A), without gradient
  reference_proposal: Array,  # (B, G)
  box_mask: Array,  # (B, G)
) -> Array:  # (blocks,)
  """Distance of the actions of the matched people from those of another pass over the clips.

  Kullback-Leibler divergence of each class's Bernoulli distribution from the reference; mean over
  classes, summed over people. Zero where both are equal.
  """

  def of_block(logits: Array, reference: Array) -> Array:
    logits, reference = _of_matched(logits, proposal), _of_matched(reference, reference_proposal)
    wanted = jax.nn.sigmoid(reference)
    distance = optax.sigmoid_binary_cross_entropy(logits, wanted)
    distance -= optax.sigmoid_binary_cross_entropy(reference, wanted)
    return jnp.where(box_mask, distance.mean(axis=-1), 0).sum()

  return jax.vmap(of_block)(logits, jax.lax.stop_gradient(reference_logits))


def detection_losses(
  outputs: Outputs,
  targets: Targets,
  sizes: Array,  # (B, 2) height and width of the frames
  matches: Matches,
  norms: Normalizers,
  action_weight: float,  # 12 for ViT-B, 6 for ViT-L
  example_mask: Array | None = None,  # (B,) bool, clips that count; None: all
) -> Terms:
  """All weighted terms. Without people the box and action terms are zero and still count."""

  def of_stage(logits: Array, boxes: Array, proposal: Array) -> tuple[Array, Array, Array]:
    return (
      person_loss(logits, proposal, targets.box_mask, example_mask) / norms.proposals,
      *(loss / norms.boxes for loss in box_losses(boxes, proposal, targets, sizes)),
    )

  def of_block(logits: Array) -> Array:
    return action_loss(logits, matches.proposal[-1], targets) / norms.boxes

  stages = (outputs.person_logits, outputs.boxes, matches.proposal)
  person, l1, giou = jax.vmap(of_stage)(*stages)  # each (stages,)
  action = jax.vmap(of_block)(outputs.action_logits)  # (blocks,)
  return Terms(PERSON_WEIGHT * person, L1_WEIGHT * l1, GIOU_WEIGHT * giou, action_weight * action)
