"""The trace of pruning, against the tokens that the blocks really passed on, one by one."""

import functools
import math

import jax
import numpy as np
import pytest

from evad_jax.model.evad import normalize_clips
from evad_jax.visualization.pruning_trace import pruning_stages, trace_pruning
from tests.golden_stages import traced_apply
from tests.micro_evad import micro_model, random_batch, random_parameters

GRID = (4, 4, 4)
BATCH = random_batch(batch=2, seed=3)  # the first clip's picture is smaller than the canvas


@functools.lru_cache
def traced(padding):
  """The stages of BATCH, compiled; the token indices of every block, and what it sowed."""
  model = micro_model(padding=padding)
  params = random_parameters(model)

  @jax.jit
  def run(params, clips, sizes):
    stages = trace_pruning(model, params, clips, sizes)
    _, calls, sown = traced_apply(model, params, normalize_clips(clips, sizes), sizes)
    places = [calls.result(f'encoder/block_{i}').places for i in range(model.depth)]
    return stages, places, sown['encoder']

  return jax.device_get(run(params, BATCH.clips, BATCH.sizes))


def cell(place):
  """Index in the sequence without the keyframe's slot, 2 of 4 -> slot, row, column."""
  slot, rest = divmod(int(place), 16)
  return slot + (slot >= 2), *divmod(rest, 4)


@pytest.mark.parametrize('padding', ['masked', 'released'])
def test_kept_and_importance_are_those_of_the_blocks(padding):
  stages, places, sown = traced(padding)
  assert [int(stage.block) for stage in stages] == [1, 2]
  for stage in stages:
    block = int(stage.block)
    (importance,) = sown[f'block_{block}']['importance']
    for i in range(2):
      kept, expected = np.zeros(GRID, bool), np.full(GRID, np.nan, np.float32)
      kept[2] = True
      expected[2] = importance[i, :16].reshape(4, 4)
      for place in places[block][i]:
        kept[cell(place)] = True
      for place, value in zip(places[block - 1][i], importance[i, 16:], strict=True):
        expected[cell(place)] = value
      np.testing.assert_array_equal(stage.kept[i], kept)
      np.testing.assert_allclose(stage.importance[i], expected, rtol=1e-5)


def test_counts_and_what_was_dropped_before():
  first, second = traced('masked')[0]
  counts = [64, math.ceil(0.7 * 64), math.ceil(0.7 * math.ceil(0.7 * 64))]
  for stage, before, after in zip((first, second), counts, counts[1:], strict=False):
    assert (stage.kept.sum(axis=(1, 2, 3)) == after).all()
    assert (np.isfinite(stage.importance).sum(axis=(1, 2, 3)) == before).all()
  np.testing.assert_array_equal(np.isnan(second.importance), ~first.kept)
  assert not (second.kept & ~first.kept).any()


def test_the_most_important_stay():
  for stage in traced('masked')[0]:
    for kept, importance in zip(stage.kept, stage.importance, strict=True):
      others = np.arange(4) != 2
      kept, importance = kept[others], importance[others]
      assert importance[kept].min() >= np.nanmax(importance[~kept])


def test_padding_is_dropped_first_where_it_is_masked():
  masked, released = traced('masked')[0], traced('released')[0]
  height, width = (math.ceil(side / 8) for side in BATCH.sizes[0])  # 3 x 3 of 4 x 4 tokens
  outside = np.ones((4, 4), bool)
  outside[:height, :width] = False
  others = np.arange(4) != 2
  # 36 tokens have a pixel of the picture; 45 stay at first, 32 then, 16 of them the keyframe's.
  assert masked[0].kept[0, :, ~outside].all()
  assert not masked[1].kept[0, others][:, outside].any()
  assert (masked[0].importance[0, :, outside] == 0).all()
  assert released[1].kept[0, others][:, outside].any()


def test_not_compiled_it_is_the_same():
  compiled, _, sown = traced('masked')
  plain = pruning_stages(sown, GRID)  # the model itself takes half a minute when not compiled
  for ours, theirs in zip(plain, compiled, strict=True):
    np.testing.assert_array_equal(ours.kept, theirs.kept)
    np.testing.assert_allclose(ours.importance, theirs.importance, rtol=1e-5)


def test_without_pruning_there_are_no_stages():
  params = random_parameters(micro_model())

  def trace(**changes):
    model = micro_model(**changes)
    return jax.eval_shape(functools.partial(trace_pruning, model), params, BATCH.clips, BATCH.sizes)

  assert trace(keep_rate=1.0) == []
  assert len(trace(keep_rate=(1.0, 0.5))) == 1
