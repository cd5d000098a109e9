"""What 'auto' means on a device, and that a run keeps what it was started with."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from configs import common, demo
from evad_jax import main
from evad_jax.checkpoints.manager import Checkpoints, newest_settings
from evad_jax.errors import InputError
from evad_jax.inference.detector import Detector
from evad_jax.settings import automatic, from_config, start_values
from evad_jax.training import setup
from tests.micro_evad import micro_config
from tests.tiny_run import make_data, tiny_config


def device(platform, limit=None, **more):
  stats = None if limit is None else {'bytes_limit': limit}
  kind = f'a {platform}'
  return SimpleNamespace(platform=platform, device_kind=kind, memory_stats=lambda: stats, **more)


@pytest.mark.parametrize(
  'found, dtype',
  [
    (device('cpu'), 'float32'),
    (device('tpu'), 'bfloat16'),
    (device('gpu', compute_capability='7.5'), 'float32'),
    (device('gpu', compute_capability='8.0'), 'bfloat16'),
    (device('gpu', compute_capability='12.1'), 'bfloat16'),
    (device('gpu', compute_capability='gfx90a'), 'float32'),
    (device('gpu'), 'float32'),
  ],
)
def test_16_bits_where_they_are_fast(found, dtype):
  assert automatic.dtype_of(found) == dtype
  assert automatic.without_auto({'dtype': 'auto', 'remat': 'auto', 'width': 3}, found) == {
    'dtype': dtype,
    'remat': True,
    'width': 3,
  }
  assert automatic.without_auto({'dtype': 'float64'}, found) == {'dtype': 'float64'}


def on(monkeypatch, found):
  monkeypatch.setattr(jax, 'local_devices', lambda: [found])


@pytest.mark.parametrize('limit, remat', [(None, True), (99, True), (112, False)])
def test_activations_are_kept_where_they_fit(monkeypatch, capsys, limit, remat):
  on(monkeypatch, device('gpu', limit, compute_capability='9.0'))
  seen = []

  def needed(config):
    seen.append((config.model.dtype, config.model.remat))
    return 100

  config = micro_config(dtype='auto', remat='auto')
  found = automatic.resolve(config, None, needed)
  assert (found.model.dtype, found.model.remat) == ('bfloat16', remat)
  assert (config.model.dtype, config.model.remat) == ('auto', 'auto')
  assert seen == [('bfloat16', False)] * (limit is not None)
  told = capsys.readouterr().out.splitlines()
  assert told[0] == 'config.model.dtype=auto: bfloat16, for a gpu'
  assert told[1].startswith(f'config.model.remat=auto: {remat}, as ') and len(told) == 2


def test_a_given_value_stays(monkeypatch, capsys):
  on(monkeypatch, device('tpu', 100))
  config = micro_config(dtype='float32', remat=False)
  assert automatic.resolve(config, {'dtype': 'bfloat16', 'remat': True}, None) is config
  config = micro_config(dtype='float32', remat='auto')
  found = automatic.resolve(config, {'dtype': 'bfloat16', 'remat': True}, lambda _: 0)
  assert (found.model.dtype, found.model.remat) == ('float32', True)
  assert capsys.readouterr().out == (
    'config.model.remat=auto: True, with which this run was started\n'
  )


def test_evaluation_tells_the_type_alone(monkeypatch, capsys):
  on(monkeypatch, device('tpu', 100))
  found = automatic.resolve(micro_config(dtype='auto', remat='auto')).model
  assert (found.dtype, found.remat) == ('bfloat16', False)
  assert capsys.readouterr().out == 'config.model.dtype=auto: bfloat16, for a tpu\n'


def test_configurations_leave_it_to_the_machine_unless_they_are_small():
  large, small = common.get_config().model, demo.get_config().model
  assert (large.dtype, large.remat) == ('auto', 'auto')
  assert (small.dtype, small.remat) == ('float32', False)
  model = from_config.make_model(common.get_config())  # on the CPU of these tests
  assert (model.dtype, model.remat) == (jnp.float32, True)
  config = common.get_config()
  config.model.remat = 'yes'
  with pytest.raises(InputError, match="config.model.remat='yes' is not one of True, False, auto"):
    from_config.make_model(config)


def test_what_a_step_needs_by_hand():
  config = micro_config(dtype='float32')
  model = from_config.make_model(config)
  shapes = start_values.abstract_params(config, model)
  parameters = sum(x.size for x in jax.tree.leaves(shapes))
  one, two = (setup.step_bytes(with_batch(config, clips)) for clips in (8, 16))
  clip = (two - one) // 8
  # Parameters, their gradients, and two moments of AdamW; counters are a few bytes.
  assert 0 <= one - 8 * clip - 4 * 4 * parameters < 100
  config.train.accumulation = 2
  assert setup.step_bytes(with_batch(config, 16)) == one


def with_batch(config, clips):
  config = config.copy_and_resolve_references()
  config.train.batch_size = clips
  return config


def test_a_run_stores_what_it_chose_and_keeps_it(tmp_path, monkeypatch, capsys):
  config = tiny_config(make_data(tmp_path / 'data'))
  config.model.update(dtype='auto', remat='auto')
  with monkeypatch.context() as patch:
    patch.setattr(automatic, 'memory_of', lambda device: 10**12)
    main.run(config, tmp_path / 'run', 'train')
  told = capsys.readouterr().out
  assert 'config.model.dtype=auto: float32, for cpu' in told
  assert 'config.model.remat=auto: False, as a step without it needs about 0.0 of 1000.0 GB' in told
  with Checkpoints(tmp_path / 'run/checkpoints', read_only=True) as checkpoints:
    saved = checkpoints.settings(4)['model']
  assert (saved['dtype'], saved['remat']) == ('float32', False)
  assert newest_settings(tmp_path / 'run/checkpoints')['model'] == saved
  monkeypatch.setattr(automatic, 'dtype_of', lambda device: 'bfloat16')
  main.run(config, tmp_path / 'run', 'train')
  told = capsys.readouterr().out
  assert 'config.model.dtype=auto: float32, with which this run was started' in told
  assert 'config.model.remat=auto: False, with which this run was started' in told
  detector = Detector.from_checkpoint(tmp_path / 'run')
  assert detector.model.dtype == jnp.float32
  assert Detector.from_checkpoint(tmp_path / 'run', dtype='auto').model.dtype == jnp.bfloat16


def test_settings_that_cannot_be_read_are_passed_over(tmp_path):
  assert newest_settings(tmp_path / 'nothing') is None
  for step, text in ((2, '{"model": {}}'), (4, '{"mod'), (6, None)):
    directory = tmp_path / str(step) / 'settings'
    directory.mkdir(parents=True)
    if text:
      (directory / 'metadata').write_text(text)
  assert newest_settings(tmp_path) == {'model': {}}
