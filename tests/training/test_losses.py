"""Every loss term against loops or hand-worked numbers, and what happens without people."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evad_jax import boxes as box_ops
from evad_jax.structures import Outputs, Targets
from evad_jax.training import losses
from evad_jax.training.matcher import Matches, match
from tests.micro_evad import ACTIONS, PROPOSALS, random_targets

STAGES, BLOCKS, B = 2, 3, 4
SIZES = np.array([[32, 32], [24, 20], [32, 28], [32, 32]], np.int32)
ACTION_WEIGHT = 12.0


@pytest.fixture(scope='module')
def case():
  """Random outputs, and targets with 0, 1, 2 and 3 people."""
  rng = np.random.default_rng(0)
  low = rng.uniform(0, 15, (STAGES, B, PROPOSALS, 2))
  boxes = np.concatenate([low, low + rng.uniform(2, 15, low.shape)], -1).astype(np.float32)
  logits = rng.normal(size=(STAGES, B, PROPOSALS, 2)).astype(np.float32)
  actions = rng.normal(size=(BLOCKS, B, PROPOSALS, ACTIONS)).astype(np.float32)
  return Outputs(logits, boxes, actions), random_targets(rng, SIZES)


MATCH = jax.jit(match)
NORMALIZERS = jax.jit(losses.normalizers, static_argnums=1)


@jax.jit
def terms_of(outputs, targets, sizes, matches, norms):
  return losses.detection_losses(outputs, targets, sizes, matches, norms, ACTION_WEIGHT)


@jax.jit
def _total_and_gradients(outputs, targets, sizes, matches):
  def total(outputs):
    norms = losses.normalizers(targets, PROPOSALS)
    terms = terms_of(outputs, targets, sizes, matches, norms)
    return terms.total(), terms

  return jax.value_and_grad(total, has_aux=True)(outputs)


def total_and_gradients(outputs, targets):
  matches = MATCH(outputs.person_logits, outputs.boxes, targets, SIZES)
  return _total_and_gradients(outputs, targets, SIZES, matches)


def oracle(outputs, targets, proposals):
  """All terms with loops; proposals (stages, B, G)."""
  people = [(b, g) for b in range(B) for g in range(3) if targets.box_mask[b, g]]
  person, l1, giou, action = [], [], [], []
  for stage, logits in enumerate(outputs.person_logits):
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    matched = {(b, proposals[stage, b, g]) for b, g in people}
    entropy = weight = distance = overlap = 0.0
    for b in range(B):
      for p in range(PROPOSALS):
        is_person = (b, p) in matched
        entropy -= log_p[b, p, 0] if is_person else 0.1 * log_p[b, p, 1]
        weight += 1 if is_person else 0.1
    for b, g in people:
      ours, true = outputs.boxes[stage, b, proposals[stage, b, g]], targets.boxes[b, g]
      distance += (abs(ours - true) / SIZES[b][[1, 0, 1, 0]]).sum()
      overlap += 1 - box_ops.pairwise_giou(ours[None], true[None])[0, 0]
    person.append(2 * entropy / weight)
    l1.append(5 * distance / len(people))
    giou.append(2 * overlap / len(people))
  for logits in outputs.action_logits:
    values = []
    for b, g in people:
      for a in range(ACTIONS):
        p = 1 / (1 + np.exp(-logits[b, proposals[-1, b, g], a]))
        values.append(-np.log(p if targets.labels[b, g, a] else 1 - p))
    action.append(ACTION_WEIGHT * np.mean(values))
  return losses.Terms(*map(np.array, (person, l1, giou, action)))


def test_every_term_equals_the_loops(case):
  outputs, targets = case
  (total, terms), _ = total_and_gradients(outputs, targets)
  matches = MATCH(outputs.person_logits, outputs.boxes, targets, SIZES)
  wanted = oracle(outputs, targets, np.asarray(matches.proposal))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), terms, wanted)
  np.testing.assert_allclose(total, np.concatenate(wanted).sum() / (3 * STAGES + BLOCKS), 1e-5)


def test_person_loss_by_hand():
  """Three proposals of odds 1:1, 3:1 and 1:3; the second is the person."""
  logits = jnp.log(jnp.array([[[1, 1], [3, 1], [1, 3.0]]]))
  loss = losses.person_loss(logits, jnp.array([[1, 1]]), jnp.array([[True, False]]))
  wanted = -(np.log(3 / 4) + 0.1 * np.log(1 / 2) + 0.1 * np.log(3 / 4))
  np.testing.assert_allclose(loss, wanted, rtol=1e-6)


def test_perfect_prediction_gives_minimal_losses(case):
  _, targets = case
  boxes = np.tile(np.float32([0, 0, 1, 1]), (STAGES, B, PROPOSALS, 1))
  boxes[:, :, 3:] = np.where(targets.box_mask[..., None], targets.boxes, [0, 0, 1, 1])
  logits = np.zeros((STAGES, B, PROPOSALS, 2), np.float32)
  is_person = np.zeros((B, PROPOSALS), bool)
  is_person[:, 3:] = targets.box_mask
  logits[..., 0] = np.where(is_person, 50, -50)
  actions = np.zeros((BLOCKS, B, PROPOSALS, ACTIONS), np.float32)
  actions[:, :, 3:] = 100 * targets.labels - 50
  (total, terms), _ = total_and_gradients(Outputs(logits, boxes, actions), targets)
  jax.tree.map(lambda a: np.testing.assert_allclose(a, 0, atol=1e-5), terms)
  assert total < 1e-5


@pytest.mark.parametrize('empty_boxes', [False, True])
def test_batch_without_people_trains_the_person_loss_alone(case, empty_boxes):
  outputs, targets = case
  if empty_boxes:
    outputs = outputs._replace(boxes=np.zeros_like(outputs.boxes))
  nobody = jax.tree.map(np.zeros_like, targets)
  (total, terms), gradients = total_and_gradients(outputs, nobody)
  for name in ('box_l1', 'box_giou', 'action'):
    assert (np.asarray(getattr(terms, name)) == 0).all(), name
  # The terms that are zero still count.
  np.testing.assert_allclose(total, terms.person.sum() / (3 * STAGES + BLOCKS), rtol=1e-6)
  assert (np.asarray(gradients.boxes) == 0).all()
  assert (np.asarray(gradients.action_logits) == 0).all()
  assert np.isfinite(gradients.person_logits).all()
  assert (np.abs(gradients.person_logits).max(axis=-1) > 0).all()


def test_clip_without_people_beside_others(case):
  outputs, targets = case
  _, gradients = total_and_gradients(outputs, targets)
  assert all(np.isfinite(g).all() for g in gradients)
  assert (np.asarray(gradients.boxes)[:, 0] == 0).all()  # clip 0 is empty
  assert (np.asarray(gradients.boxes)[:, 1:] != 0).any(axis=(2, 3)).all()
  assert (np.asarray(gradients.action_logits)[:, 1:] != 0).any(axis=(2, 3)).all()


def test_gradients_are_finite_for_empty_predictions(case):
  outputs, targets = case
  outputs = outputs._replace(boxes=np.zeros_like(outputs.boxes))
  _, gradients = total_and_gradients(outputs, targets)
  assert all(np.isfinite(g).all() for g in gradients)


def test_parts_of_a_batch_add_up_to_the_whole(case):
  outputs, targets = case
  matches = MATCH(outputs.person_logits, outputs.boxes, targets, SIZES)
  norms = NORMALIZERS(targets, PROPOSALS)
  _, whole = total_and_gradients(outputs, targets)[0]
  parts = []
  for rows in ([0, 2], [1, 3]):
    some_targets = Targets(*(x[rows] for x in targets))
    some_outputs = Outputs(*(x[:, rows] for x in outputs))
    some_matches = Matches(np.asarray(matches.proposal)[:, rows])
    parts.append(terms_of(some_outputs, some_targets, SIZES[rows], some_matches, norms))
  jax.tree.map(
    lambda total, *some: np.testing.assert_allclose(sum(some), total, rtol=1e-5), whole, *parts
  )


def test_masked_clips_count_as_if_they_were_not_there(case):
  outputs, targets = case
  mask = np.array([True, False, True, False])
  targets = targets._replace(box_mask=targets.box_mask & mask[:, None])
  some_targets = Targets(*(x[mask] for x in targets))
  some_outputs = Outputs(*(x[:, mask] for x in outputs))

  def total(outputs, targets, sizes, mask):
    matches = match(outputs.person_logits, outputs.boxes, targets, sizes)
    norms = losses.normalizers(targets, PROPOSALS, mask)
    return losses.detection_losses(
      outputs, targets, sizes, matches, norms, ACTION_WEIGHT, mask
    ).total()

  step = jax.jit(jax.value_and_grad(total))
  found, gradients = step(outputs, targets, SIZES, mask)
  right, _ = step(some_outputs, some_targets, SIZES[mask], np.ones(2, bool))
  np.testing.assert_allclose(found, right, rtol=1e-6)
  assert all((np.asarray(g)[:, ~mask] == 0).all() for g in gradients)
  nobody = targets._replace(box_mask=np.zeros_like(targets.box_mask))
  nothing, gradients = step(outputs, nobody, SIZES, np.zeros(B, bool))
  assert nothing == 0 and all((np.asarray(g) == 0).all() for g in gradients)


def test_normalizers_by_hand(case):
  _, targets = case  # 0 + 1 + 2 + 3 people, 4 x 6 proposals
  assert np.allclose(NORMALIZERS(targets, PROPOSALS), (6, 6 + 0.1 * 18))
  nobody = jax.tree.map(np.zeros_like, targets)
  assert np.allclose(NORMALIZERS(nobody, PROPOSALS), (1, 0.1 * 24))


def test_actions_use_the_matches_of_the_last_stage(case):
  outputs, targets = case
  proposals = np.stack([np.tile([0, 1, 2], (B, 1)), np.tile([3, 4, 5], (B, 1))])
  norms = NORMALIZERS(targets, PROPOSALS)
  terms = terms_of(outputs, targets, SIZES, Matches(proposals), norms)
  np.testing.assert_allclose(terms.action, oracle(outputs, targets, proposals).action, rtol=1e-5)
