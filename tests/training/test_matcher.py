"""The matcher against SciPy's assignment, and its costs against loops."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from evad_jax import boxes as box_ops
from evad_jax.errors import InputError
from evad_jax.structures import Targets
from evad_jax.training import matcher

CASES, P, G = 300, 7, 4
ASSIGN = jax.jit(jax.vmap(matcher.assign))


@pytest.fixture(scope='module')
def problems():
  """Random costs; a third of the cases have ties, and every number of real boxes occurs."""
  rng = np.random.default_rng(0)
  costs = rng.normal(0, 3, (CASES, P, G)).astype(np.float32)
  costs[::3] = costs[::3].round()
  return costs, rng.random((CASES, G)) < rng.random((CASES, 1))


def test_cost_is_the_optimum_of_scipy(problems):
  costs, mask = problems
  proposals = np.asarray(ASSIGN(costs, mask))
  assert {0, G} <= set(mask.sum(1))
  for cost, real, proposal in zip(costs, mask, proposals, strict=True):
    chosen = proposal[real]
    assert len(set(chosen.tolist())) == real.sum(), 'two boxes share a proposal'
    optimum = cost[:, real][linear_sum_assignment(cost[:, real])].sum()
    np.testing.assert_allclose(cost[:, real][chosen, np.arange(len(chosen))].sum(), optimum, 1e-4)


def test_padding_may_hold_anything(problems):
  costs, mask = problems
  other = np.where(mask[:, None], costs, np.nan)
  for ours, theirs, real in zip(ASSIGN(costs, mask), ASSIGN(other, mask), mask, strict=True):
    np.testing.assert_array_equal(ours[real], theirs[real])


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_costs_that_are_not_finite_terminate(problems, bad):
  costs, mask = problems[0].copy(), np.ones((CASES, G), bool)
  costs[: CASES // 2] = bad
  costs[CASES // 2 :, 0] = bad  # the first proposal alone: a dear one, or a cheap one
  proposals = np.asarray(ASSIGN(costs, mask))
  assert all(len(set(row.tolist())) == G for row in proposals)
  taken = (proposals[CASES // 2 :] == 0).any(axis=1)
  assert taken.all() if bad == -np.inf else not taken.any()


def test_costs_are_those_of_the_paper():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(2, P, 2)).astype(np.float32)
  low = rng.uniform(0, 20, (2, P + G, 2))
  boxes = np.concatenate([low, low + rng.uniform(1, 20, low.shape)], -1).astype(np.float32)
  ours = matcher.matching_costs(logits, boxes[:, :P], boxes[:, P:], np.array([[30, 50], [40, 20]]))
  for b, (height, width) in enumerate([(30, 50), (40, 20)]):
    for p in range(P):
      person = np.exp(logits[b, p, 0]) / np.exp(logits[b, p]).sum()
      for g in range(G):
        one, other = boxes[b, p], boxes[b, P + g]
        l1 = (abs(one - other) / [width, height, width, height]).sum()
        giou = box_ops.pairwise_giou(one[None], other[None])[0, 0]
        np.testing.assert_allclose(ours[b, p, g], -2 * person + 5 * l1 - 2 * giou, atol=1e-4)


def test_every_stage_is_matched_by_itself():
  boxes = np.array([[0, 0, 9, 9], [10, 0, 19, 9], [20, 0, 29, 9]], np.float32)
  order = [[0, 1, 2], [2, 0, 1]]  # of the boxes among the proposals of two stages
  targets = Targets(boxes[None, [2, 0]], np.zeros((1, 2, 1)), np.ones((1, 2), bool))
  stages = np.stack([boxes[row] for row in order])[:, None]  # (stages, B, P, 4)
  matches = jax.jit(matcher.match)(np.zeros((2, 1, 3, 2)), stages, targets, np.array([[10, 30]]))
  np.testing.assert_array_equal(matches.proposal, [[[2, 0]], [[0, 1]]])


def test_more_boxes_than_proposals_is_an_error():
  with pytest.raises(InputError, match='3 proposals cannot be assigned to up to 4 boxes'):
    matcher.assign(np.zeros((3, 4)), np.ones(4, bool))


@pytest.mark.parametrize('most', [0, 1, 8, 9, 16, 20])
def test_search_among_few_columns_finds_what_the_whole_search_finds(most):
  """20 columns: programs for 8, 16 and 20; real boxes may be anywhere."""
  rng = np.random.default_rng(most)
  costs = rng.normal(size=(12, 30, 20)).astype(np.float32)
  mask = np.zeros((12, 20), bool)
  for i, row in enumerate(mask):
    row[rng.permutation(20)[: most if i == 5 else rng.integers(0, most + 1)]] = True
  found = np.asarray(jax.jit(matcher.assign_all)(costs, mask))
  for cost, real, proposal in zip(costs, mask, found, strict=True):
    rows, columns = linear_sum_assignment(cost[:, real])
    np.testing.assert_array_equal(proposal[real][columns], rows)
