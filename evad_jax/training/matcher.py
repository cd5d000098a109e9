"""Optimal assignment of proposals to ground truth inside jit (arXiv 2005.12872; paper section 3.5).

Ground truth is padded to G boxes. Padding costs the same for every proposal, so with at least G
proposals it cannot change which proposals the real boxes are assigned.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from evad_jax import boxes as box_ops
from evad_jax.errors import InputError
from evad_jax.structures import Targets

Array = jax.Array

SEARCHED = (8, 16, 32)  # compiled numbers of columns; the fullest clip decides which is searched
PERSON_COST, L1_COST, GIOU_COST = 2.0, 5.0, 2.0


class Matches(NamedTuple):
  """The proposal of every ground-truth box; meaningless where the box is padding."""

  proposal: Array  # (stages, B, G) int32


def matching_costs(
  person_logits: Array,  # (..., P, 2)
  boxes: Array,  # (..., P, 4) xyxy pixels
  target_boxes: Array,  # (..., G, 4) xyxy pixels
  sizes: Array,  # (..., 2) height and width
) -> Array:  # (..., P, G)
  """2 * (-person probability) + 5 * L1 of the normalised boxes + 2 * (-GIoU), for every pair."""
  target_boxes = target_boxes.astype(boxes.dtype)
  person = jax.nn.softmax(person_logits, axis=-1)[..., 0]
  ours, theirs = (box_ops.normalise(some, sizes[..., None, :]) for some in (boxes, target_boxes))
  l1 = jnp.abs(ours[..., :, None, :] - theirs[..., None, :, :]).sum(-1)
  giou = box_ops.pairwise_giou(boxes, target_boxes)
  return -PERSON_COST * person[..., None] + L1_COST * l1 - GIOU_COST * giou


def assign(costs: Array, box_mask: Array) -> Array:
  """The cheapest assignment: costs (P, G), box_mask (G,) -> (G,) int32, a proposal for each box.

  Non-finite costs count as very high (-inf as very low), so that a diverged model cannot hang the
  search.
  """
  proposals, ground_truths = costs.shape
  if proposals < ground_truths:
    raise InputError(
      f'{proposals} proposals cannot be assigned to up to {ground_truths} boxes; raise '
      'num_proposals or lower max_boxes.'
    )
  costs = jnp.nan_to_num(costs, nan=1e6, posinf=1e6, neginf=-1e6)
  costs = jnp.where(box_mask, costs, 0)
  rows, columns = optax.assignment.hungarian_algorithm(costs)
  return jnp.zeros(ground_truths, jnp.int32).at[columns].set(rows.astype(jnp.int32))


def assign_all(costs: Array, box_mask: Array) -> Array:
  """`assign` for many problems: costs (n, P, G), box_mask (n, G) -> (n, G) int32.

  The search takes 1 + 2 + ... loop iterations for its columns, padding included. So real boxes move
  to the front, and the search covers the smallest compiled number of columns that holds the people
  of the fullest clip.
  """
  ground_truths = costs.shape[2]
  sizes = [size for size in SEARCHED if size < ground_truths] + [ground_truths]
  order = jnp.argsort(~box_mask, axis=1, stable=True)  # (n, G)
  costs = jnp.take_along_axis(costs, order[:, None], axis=2)
  mask = jnp.take_along_axis(box_mask, order, axis=1)

  def search(size: int) -> Array:
    found = jax.vmap(assign)(costs[:, :, :size], mask[:, :size])
    return jnp.pad(found, ((0, 0), (0, ground_truths - size)))

  people = box_mask.sum(axis=1).max()
  branch = (people > jnp.asarray(sizes[:-1], people.dtype)).sum()
  found = jax.lax.switch(branch, [functools.partial(search, size) for size in sizes])
  return jnp.take_along_axis(found, jnp.argsort(order, axis=1), axis=1)


def match(person_logits: Array, boxes: Array, targets: Targets, sizes: Array) -> Matches:
  """Matches every stage separately; stages and batch form one batch of assignment problems.

  person_logits (stages, B, P, 2), boxes (stages, B, P, 4), sizes (B, 2). No gradient.
  """
  costs = jax.lax.stop_gradient(
    matching_costs(person_logits, boxes, targets.boxes[None], sizes[None])
  )  # (stages, B, P, G)
  mask = jnp.broadcast_to(targets.box_mask, (*costs.shape[:2], costs.shape[3]))
  flat = (x.reshape(-1, *x.shape[2:]) for x in (costs, mask))
  return Matches(assign_all(*flat).reshape(mask.shape))
