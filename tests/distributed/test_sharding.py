"""The sharding of parameters, optimizer state and batches, by hand-worked tables."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from configs import ava
from evad_jax.distributed import parameter_rules, sharding
from evad_jax.distributed.parameter_rules import path_of
from evad_jax.errors import InputError
from evad_jax.model import start_values
from evad_jax.model.masked_autoencoder import MaskedAutoencoder
from evad_jax.settings import from_config
from evad_jax.training import setup
from tests.micro_evad import micro_config

P = PartitionSpec


def by_path(tree, is_leaf=None):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf)
  return {path_of(path): leaf for path, leaf in leaves}


@pytest.fixture(scope='module')
def vit_l():
  config = ava.get_config('L')
  model = from_config.make_model(config)
  return start_values.abstract_params(model)


@pytest.mark.parametrize(
  'path, split, fully',
  [
    # ViT-L: width 1024, decoder 512, 16 and 8 heads, on 4 x 2 devices
    ('encoder/block_0/attention/qkv/kernel', P(), P(None, 'data')),  # (1024, 3072)
    ('encoder/block_23/attention/out/kernel', P('model', None), P('model', 'data')),
    ('encoder/block_7/mlp/fc1/kernel', P(None, 'model'), P('data', 'model')),
    ('encoder/block_7/mlp/fc1/bias', P('model'), P('model')),
    ('encoder/block_7/mlp/fc2/kernel', P('model', None), P('model', 'data')),
    ('encoder/block_7/mlp/fc2/bias', P(), P()),
    ('encoder/block_0/norm1/scale', P(), P()),
    ('encoder/tubelets/projection/kernel', P(), P('data', None)),  # (1536, 1024)
    ('context_refinement/block_11/attention/out/kernel', P('model', None), P('model', 'data')),
    ('context_refinement/mask_token', P(), P()),
    ('context_refinement/action_head_3/action_logits/kernel', P(), P('data', None)),  # (2048, 80)
    ('fpn/output_0/kernel', P(), P(None, None, 'data', None)),  # (3, 3, 256, 256)
    ('person_detector/proposal_boxes', P(), P('data', None)),  # (100, 4)
    ('person_detector/stage_0/class_logits/kernel', P(), P('data', None)),  # (256, 2)
  ],
)
def test_parameters_of_vit_l(vit_l, path, split, fully):
  mesh = AbstractMesh((4, 2), sharding.AXES)
  for fully_sharded, wanted in ((False, split), (True, fully)):
    specs = sharding.parameter_specs(vit_l, mesh, fully_sharded)
    assert by_path(specs, lambda x: isinstance(x, P))[path] == wanted


@pytest.mark.parametrize(
  'path, split, fully',
  [
    ('encoder/block_0/mlp/fc1/kernel', P(None, 'model'), P('data', 'model')),
    ('context_refinement/block_3/mlp/fc2/kernel', P('model', None), P('model', 'data')),
    ('context_refinement/projection/kernel', P(), P('data', None)),  # (768, 384)
    ('context_refinement/norm/scale', P(), P()),
    ('context_refinement/head/kernel', P(), P(None, 'data')),  # (384, 1536)
  ],
)
def test_parameters_of_pre_training(path, split, fully):
  params = start_values.abstract_params(MaskedAutoencoder())
  mesh = AbstractMesh((4, 2), sharding.AXES)
  for fully_sharded, wanted in ((False, split), (True, fully)):
    specs = sharding.parameter_specs(params, mesh, fully_sharded)
    assert by_path(specs, lambda x: isinstance(x, P))[path] == wanted


def test_every_axis_divides_and_most_of_vit_l_is_split(vit_l):
  mesh = AbstractMesh((8, 2), sharding.AXES)
  shapes = by_path(vit_l)
  specs = sharding.parameter_specs(vit_l, mesh, True)
  held = total = 0
  for path, spec in by_path(specs, lambda x: isinstance(x, P)).items():
    parts = 1
    for size, name in zip(shapes[path].shape, spec, strict=False):
      assert name is None or size % mesh.shape[name] == 0, path
      parts *= 1 if name is None else mesh.shape[name]
    total += np.prod(shapes[path].shape)
    held += np.prod(shapes[path].shape) / parts
  assert held / total < 1 / 8  # a device's part


def test_what_no_axis_divides_stays_whole():
  shapes = {'fpn': {'kernel': jax.ShapeDtypeStruct((9, 15), np.float32)}}
  specs = sharding.parameter_specs(shapes, AbstractMesh((2, 1), sharding.AXES), True)
  assert specs == {'fpn': {'kernel': P()}}


def test_a_parameter_without_a_rule_is_an_error():
  shapes = {'encoder': {'block_0': {'gate': jax.ShapeDtypeStruct((4,), np.float32)}}}
  with pytest.raises(
    InputError, match="'encoder/block_0/gate'; add one to evad_jax/distributed/sharding.py"
  ):
    sharding.parameter_specs(shapes, AbstractMesh((1, 1), sharding.AXES), False)


def test_optimizer_state_and_moving_average_lie_with_their_parameters():
  config = micro_config()
  config.train.ema_decay, config.optimizer.clip_norm = 0.99, 1.0
  model = from_config.make_model(config)
  optimizer = setup.make_optimizer(config, model, lambda step: 1e-3)
  state = setup.abstract_state(config, model, optimizer)
  # Shardings of devices, but of one alone: the specification is what counts.
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  found = sharding.state_shardings(state, optimizer, mesh, True)
  assert jax.tree.structure(found) == jax.tree.structure(state)
  params = by_path(found.params)
  assert params['encoder/block_0/mlp/fc1/kernel'].spec == P('data', 'model')
  assert by_path(found.ema_params) == params
  moments = [s for s in found.opt_state if hasattr(s, 'mu')]
  assert len(moments) == 1 and by_path(moments[0].mu) == by_path(moments[0].nu) == params
  assert found.step.spec == moments[0].count.spec == P()


def fake_mesh(rows):
  devices = np.array([[SimpleNamespace(process_index=p) for p in row] for row in rows])
  return SimpleNamespace(devices=devices, shape={'data': len(rows), 'model': len(rows[0])})


@pytest.mark.parametrize(
  'rows, parts',
  [
    ([[0], [0], [1], [1]], [(0, 2), (1, 2)]),  # two processes of two devices
    ([[0, 0], [1, 1]], [(0, 2), (1, 2)]),  # the model axis within a process
    ([[0, 1], [2, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),  # across two of one device each
    ([[0, 0]], [(0, 1)]),
  ],
)
def test_part_of_every_process(rows, parts):
  found = [sharding.part_of_process(fake_mesh(rows), process) for process in range(len(parts))]
  assert found == parts


@pytest.mark.parametrize('rows', [[[0, 0, 0], [0, 1, 1], [1, 1, 1]], [[0], [0], [1]]])
def test_processes_that_would_share_a_part_of_a_batch_are_an_error(rows):
  with pytest.raises(InputError, match='config.mesh.model=. must divide'):
    sharding.part_of_process(fake_mesh(rows), 0)


def test_batches_that_cannot_be_shared_are_errors():
  mesh = AbstractMesh((8, 1), sharding.AXES)
  sharding.check_batch_size(16, mesh, 'config.train.batch_size')
  with pytest.raises(InputError, match='config.train.batch_size=12 .* make it a multiple of 8'):
    sharding.check_batch_size(12, mesh, 'config.train.batch_size')


def test_heads_that_cannot_be_shared_are_errors():
  mesh = AbstractMesh((1, 4), sharding.AXES)
  sharding.check_model_axis(mesh, {'num_heads': 12, 'decoder_heads': 4})
  with pytest.raises(InputError, match='config.mesh.model=4 .* config.model.decoder_heads=6'):
    sharding.check_model_axis(mesh, {'num_heads': 12, 'decoder_heads': 6})


def test_model_axis_must_divide_the_devices():
  count = len(jax.devices())
  assert dict(sharding.make_mesh().shape) == {'data': count, 'model': 1}
  for size in (0, count + 1):
    with pytest.raises(InputError, match=f'config.mesh.model={size} must divide'):
      sharding.make_mesh(size)


def test_two_parameters_of_one_path_are_an_error():
  with pytest.raises(InputError, match="Two parameters are named 'a/b'"):
    parameter_rules.by_path({'a': {'b': 1.0}, 'a/b': 2.0})
