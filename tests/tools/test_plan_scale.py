"""The plan of what a mesh costs: batches as they come, sums by hand, what is refused."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from evad_jax import command_line
from evad_jax.cost import communication
from evad_jax.distributed import sharding
from evad_jax.settings import from_config, start_values
from evad_jax.tools import plan_scale
from evad_jax.training import activation_memory
from tests.micro_evad import SIDE, micro_config, micro_model, random_batch


def test_the_abstract_batch_is_what_the_pipeline_makes():
  found = activation_memory.abstract_batch(micro_config(), 8, (SIDE, SIDE))
  wanted = random_batch(8)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert (ours.shape, ours.dtype) == (theirs.shape, np.asarray(theirs).dtype)


def plan(mesh, fully_sharded=False, **changes):
  config = micro_config(num_stages=1, **changes)
  model = from_config.make_model(config)
  params = start_values.abstract_params(config, model)
  mesh = AbstractMesh(mesh, sharding.AXES)
  found = communication.by_hand(model, params, mesh, fully_sharded, 8, (SIDE, SIDE), 2)
  return found, sum(x.size for x in jax.tree.leaves(params))


def test_gradients_go_around_once_and_back():
  found, numbers = plan((8, 1))
  assert found == (pytest.approx(2 * 7 / 8 * 4 * numbers), 0, 0, 0)


def test_what_a_block_that_is_split_in_two_exchanges():
  # 64, 64, 45 and 32 tokens enter the four blocks, 64, 45, 32 and 32 leave, of width 32; those of
  # the last and 6 proposals enter the decoder's one block, of width 32 too. Two clips, float32.
  entering, leaving = 32 * (64 + 64 + 45 + 32 + 38), 32 * (64 + 45 + 32 + 32 + 38)
  found, _ = plan((4, 2))
  assert found.gathers == 0.5 * 3 * entering * 2 * 4
  assert found.sums == 2 * 0.5 * (entering + 2 * leaving) * 2 * 4
  again, _ = plan((4, 2), remat=True)
  assert again.sums == 2 * 0.5 * (2 * entering + 2 * leaving) * 2 * 4


def test_weights_that_are_split_are_gathered():
  found, numbers = plan((4, 1), True)
  assert 0.9 * 3 / 4 * 4 * numbers < found.weights < 3 / 4 * 4 * numbers  # vectors are not split
  assert found.all_gather() == found.weights and found.all_reduce() == found.gradients
  again, _ = plan((4, 1), True, remat=True)
  width = 32  # of encoder and decoder: four and one blocks, with 12 width^2 in matrices each
  assert again.weights - found.weights == 3 / 4 * 4 * 5 * 12 * width**2


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--devices=0'], 'devices'),
    (['--mesh=x'], 'mesh'),
    ([], '--config is missing'),
    (['--config=nothing.py'], 'nothing.py'),
    (['--config=configs/demo.py', 'more'], "'more' is not a flag"),
  ],
)
def test_bad_flags_are_one_sentence(arguments, words, capsys):
  with pytest.raises(SystemExit) as caught:
    command_line.run(plan_scale.main, arguments)
  told = capsys.readouterr().err
  assert caught.value.code == 2 and words in told and len(told.splitlines()) == 1


def test_what_is_kept_for_the_backward_pass():
  config = micro_config()
  params = start_values.abstract_params(config, micro_model())

  def kept(model):
    return activation_memory.kept_of_a_clip(
      model, params, lambda clips: activation_memory.abstract_batch(config, clips, (SIDE, SIDE))
    )

  # Of five blocks the hidden units, 4 * 32 of them, as they go into GELU and come out of it: at
  # least those are computed again. 64, 45, 32, 32 and 38 tokens, float32.
  hidden = 2 * 4 * 32 * (64 + 45 + 32 + 32 + 38) * 4
  assert kept(micro_model()) - kept(micro_model(remat=True)) > hidden
  # At least what the blocks take in and what attention gives stays.
  assert kept(micro_model(remat=True)) > 2 * 32 * (64 + 64 + 45 + 32 + 38) * 4
