"""The overview of a run: how it computes, what it trains, and its share of the peak."""

import jax
import pytest

from evad_jax.distributed import device_peak, sharding
from evad_jax.settings import from_config
from evad_jax.training import overview, setup
from tests.micro_evad import micro_config


@pytest.mark.parametrize(
  'kind, tera',
  [
    ('NVIDIA H100 80GB HBM3', 989),
    ('NVIDIA H100 PCIe', 756),
    ('NVIDIA A100-SXM4-80GB', 312),
    ('NVIDIA L4', 121),
    ('NVIDIA L40', None),
    ('NVIDIA L40S', 362),
    ('TPU v4', 275),
    ('TPU v5 lite', 197),
    ('TPU v5e', 197),
    ('TPU v5p', 459),
    ('TPU v6 lite', 918),
    ('TPU v6e', 918),
    ('cpu', None),
  ],
)
def test_the_peak_of_a_device(kind, tera):
  assert device_peak.peak_of(kind) == (tera and tera * 1e12)


def test_the_share_of_the_peak_by_hand():
  # 16 clips of 518.6 G multiply-adds, in the 50 ms that an H100 takes at its peak.
  assert device_peak.share(16 * 518.6e9, 0.0503, 1, 'NVIDIA H100') == pytest.approx(1, abs=0.01)
  assert device_peak.share(16 * 518.6e9, 0.0503, 4, 'NVIDIA H100') == pytest.approx(0.25, abs=0.01)
  assert device_peak.share(1e9, 1.0, 1) is None  # of a CPU


def test_how_it_computes_and_what_it_learns():
  config = micro_config(dtype='bfloat16', remat=True)
  model, mesh = from_config.make_model(config), sharding.make_mesh()
  assert overview.computation(config, model, mesh) == (
    '1 x cpu: bfloat16, attention plain, activations of blocks recomputed for the backward pass, '
    "float32 products at 'highest'"
  )
  optimizer = setup.make_optimizer(config, model, lambda step: 0.0)
  state = setup.abstract_state(config, model, optimizer)
  places = sharding.state_shardings(state, optimizer, mesh, False)
  lines = [line.split() for line in overview.parameters(state, places)]
  parts = ['context_refinement', 'encoder', 'fpn', 'person_detector']
  assert [line[0] for line in lines] == [*parts, 'all,']
  numbers = [int(line[-8].replace(',', '')) for line in lines]
  assert sum(numbers[:4]) == sum(x.size for x in jax.tree.leaves(state.params))
  assert numbers[4] == sum(x.size for x in jax.tree.leaves(state))
  assert all(line[-1] == 'replicated' for line in lines)
