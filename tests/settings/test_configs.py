"""Every configuration builds its model, optimizer and training step; nothing is computed."""

import functools
import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import common
from data_prep import unlabelled
from evad_jax.data.pretraining import PretrainingClips
from evad_jax.errors import InputError
from evad_jax.model import sizes
from evad_jax.model.evad import EVAD
from evad_jax.settings import from_config
from evad_jax.structures import Batch, Targets
from evad_jax.training import setup
from evad_jax.training.train_step import train_step
from tests.video.tiny_videos import write_video

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SIZES = ('B', 'L', 'small')  # for configurations that come in sizes


def variants(*names, slow=()):
  """get_config of every variant of these configurations; of all where none is named."""
  cases = []
  for path in sorted(CONFIGS.glob('*.py')):
    if path.stem != '__init__' and (not names or path.stem in names):
      get_config = importlib.import_module(f'configs.{path.stem}').get_config
      sized = 'size' in inspect.signature(get_config).parameters
      for arguments in [(size,) for size in SIZES] if sized else [()]:
        name = ':'.join([path.stem, *arguments])
        marks = [pytest.mark.slow] if name in slow else []
        cases.append(pytest.param(functools.partial(get_config, *arguments), id=name, marks=marks))
  return cases


def abstract_batch(config):
  batch, (height, width) = config.train.batch_size, config.clip.canvases[0]
  boxes, actions = config.clip.max_boxes, config.model.num_actions

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct((batch, *shape), dtype)

  targets = Targets(
    array(jnp.float32, boxes, 4), array(jnp.float32, boxes, actions), array(bool, boxes)
  )
  sizes = array(jnp.int32, 2)
  clips = array(jnp.uint8, config.clip.clip_frames, height, width, 3)
  return Batch(clips, sizes, sizes, targets, array(bool), array(jnp.int32))


def test_vit_b_is_the_default_of_the_model():
  defaults = {key: EVAD.__dataclass_fields__[key].default for key in sizes.VIT_B}
  assert defaults == sizes.VIT_B and sizes.VIT_L.keys() == sizes.VIT_B.keys()


@pytest.mark.parametrize('get_config', variants())
def test_configuration_builds(get_config):
  config = get_config()
  model = from_config.make_model(config)
  settings = from_config.clip_settings(config)
  assert model.num_actions == config.model.num_actions and len(set(settings.canvases)) > 0
  assert from_config.pipeline_settings(config)['prefetch'] >= config.data.threads
  if 'common' not in str(get_config.func.__module__):
    assert config.name and config.data.directory and config.data.prepare_command


# The other configurations of videos have the same models, with other numbers of classes; B and L
# have more blocks than small: python -m pytest -m slow tests/settings/test_configs.py
@pytest.mark.parametrize('get_config', variants('demo', 'ava', slow=['ava:B', 'ava:L']))
def test_configuration_takes_a_step(get_config):
  config = get_config()
  model = from_config.make_model(config)
  optimizer = setup.make_optimizer(config, model, lambda step: 1e-3)
  state = setup.abstract_state(config, model, optimizer)
  step = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    action_weight=config.loss.action_weight,
    accumulation=config.train.accumulation,
    ema_decay=config.train.ema_decay,
    consistency=config.train.consistency,
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  after, metrics = jax.eval_shape(step, state, abstract_batch(config), key)
  # A step that changes a type or a shape would compile again at every turn.
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  assert metrics.terms.person.shape == (config.model.num_stages,)
  assert metrics.terms.action.shape == (config.model.decoder_depth,)
  assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.float32.dtype}


def test_stale_key_is_an_error_that_names_its_section():
  config = common.get_config()
  config.model.widht = 3  # codespell:ignore
  with pytest.raises(InputError, match=r"config\.model: .*'widht'.*configs/common.py lists"):
    from_config.make_model(config)
  config = common.get_config()
  config.clip.side = 3
  with pytest.raises(InputError, match=r"config\.clip: .*'side'"):
    from_config.clip_settings(config)


def test_values_that_do_not_fit_are_errors():
  config = common.get_config()
  config.model.dtype = 'float16'
  with pytest.raises(InputError, match="config.model.dtype='float16' is not one of float32"):
    from_config.make_model(config)
  config = common.get_config()
  config.clip.max_boxes = 101
  with pytest.raises(InputError, match='max_boxes=101 is more than config.model.num_proposals=100'):
    from_config.make_model(config)


def test_sizes_and_splits():
  from configs import ava, jhmdb, ucf24

  small = ava.get_config('small')
  assert small.name == 'ava_small' and small.clip.short_side == 120
  assert small.clip.canvases == ((128, 160), (128, 224), (128, 256), (128, 320))
  assert ucf24.get_config('small').clip.canvases == ((128, 160),)
  config = jhmdb.get_config('L-3')
  assert (config.name, config.data.train_split, config.data.eval_split, config.model.depth) == (
    'jhmdb3_l',
    'train3',
    'test3',
    24,
  )
  for get_config, size in ((ava.get_config, 'H'), (jhmdb.get_config, 'H-1')):
    with pytest.raises(InputError, match="the size 'H' is none of 'B', 'L' and 'small'"):
      get_config(size)
  with pytest.raises(InputError, match='jhmdb.py:B-4: the split must be 1, 2 or 3'):
    jhmdb.get_config('B-4')


@pytest.mark.parametrize(
  'canvases, words',
  [
    ((288, 512), 'a list in which 288 is a list'),
    ((), 'canvases=.. must be a list of 1 to'),
    (((288, 500),), r'multiple of 2 \* config.model.patch = 32'),
    (((288, 512), (0, 32)), r'\(0, 32\) is a list in which 0 is at least 1'),
  ],
)
def test_canvases_are_pairs_of_multiples(canvases, words):
  config = common.get_config()
  config.clip.canvases = canvases
  with pytest.raises(InputError, match=words):
    from_config.clip_settings(config)


def test_clips_for_pretraining():
  config = common.get_config()
  config.clip.update(clip_frames=4, frame_stride=2, flip_probability=0.0)
  with pytest.raises(InputError, match='crops all clips to one square canvas'):
    from_config.pretraining_clips(config)
  config.clip.canvases = ((32, 32),)
  config.pretrain_data.copies = 2
  assert from_config.pretraining_clips(config) == PretrainingClips(4, 2, 32, copies=2)
  config.pretrain_data.scales = (0.0,)
  with pytest.raises(InputError, match='config.pretrain_data.scales='):
    from_config.pretraining_clips(config)


def test_videos_without_labels_train_no_detector(tmp_path):
  unlabelled.main(
    ['--videos', str(write_video(tmp_path / 'v.mp4', 9).parent), '--output', str(tmp_path / 'out')]
  )
  config = common.get_config()
  config.data.directory = str(tmp_path / 'out')
  assert len(from_config.open_clips(config, 'train')) == 9
  with pytest.raises(InputError, match='its videos have no labels: only pre-training can use it'):
    from_config.open_split(config, 'train')
