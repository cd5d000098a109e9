"""EVAD so small that a test can compile it, with random weights and batches to go with it."""

import jax
import numpy as np

from configs import common
from evad_jax.distributed.parameter_rules import path_of
from evad_jax.model import start_values
from evad_jax.model.evad import EVAD
from evad_jax.structures import Batch, Targets

FRAMES, SIDE, ACTIONS, PROPOSALS = 8, 32, 5, 6  # a token grid of 4 x 4 x 4

MODEL = {
  'num_actions': ACTIONS,
  'width': 32,
  'depth': 4,
  'num_heads': 2,
  'patch': 8,
  'pretrain_size': 32,
  'prune_blocks': (1, 2),
  'keep_rate': 0.7,
  'feature_blocks': (0, 1, 2, 3),
  'drop_path': 0.0,
  'detector_width': 32,
  'detector_heads': 2,
  'num_proposals': PROPOSALS,
  'num_stages': 1,
  'dynamic_width': 8,
  'feed_forward': 32,
  'decoder_width': 32,
  'decoder_depth': 1,
  'decoder_heads': 2,
  'decoder_drop_path': 0.0,
  'action_hidden': 32,
  'remat': False,
}


def micro_model(**changes):
  return EVAD(**(MODEL | changes))


def micro_config(**model_changes):
  """A configuration that trains the micro model on clips of random_batch."""
  config = common.get_config()
  config.model.update(MODEL | model_changes)
  config.clip.update(clip_frames=FRAMES, canvases=((SIDE, SIDE),), short_side=SIDE, max_boxes=3)
  config.optimizer.update(rate=1e-3, head_multiplier=1.0, warmup_epochs=0.0, milestones=())
  config.optimizer.factors = ()
  config.train.batch_size = 8
  return config


def random_parameters(model, seed=0):
  """No parameter is zero, so that none can be left out unnoticed; compiles nothing."""
  rng = np.random.default_rng(seed)

  def draw(key_path, leaf):
    name = path_of(key_path).split('/')[-1]
    noise = rng.standard_normal(leaf.shape)
    if name == 'proposal_boxes':
      noise = np.array([0.5, 0.5, 0.4, 0.5]) + 0.1 * np.clip(noise, -2, 2)
    elif name == 'kernel':
      noise /= np.sqrt(np.prod(leaf.shape[:-1]))
    elif name == 'scale':
      noise = 1 + 0.1 * noise
    elif name != 'proposal_features':
      noise *= 0.1
    return noise.astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, start_values.abstract_params(model))


def random_targets(rng, sizes, max_boxes=3, actions=ACTIONS):
  """0 to `max_boxes` people a clip, clip i having i modulo (max_boxes + 1)."""
  batch = len(sizes)
  whwh = np.asarray(sizes)[:, None, [1, 0]]
  low = rng.uniform(0, 0.5, (batch, max_boxes, 2)) * whwh
  high = low + rng.uniform(0.2, 0.5, low.shape) * whwh
  mask = np.arange(max_boxes) < np.arange(batch)[:, None] % (max_boxes + 1)
  boxes = np.concatenate([low, high], axis=-1) * mask[..., None]
  labels = (rng.random((batch, max_boxes, actions)) < 0.4) * mask[..., None]
  return Targets(boxes.astype(np.float32), labels.astype(np.float32), mask)


def random_batch(batch=8, seed=0):
  """Clips of full and of smaller pictures on one canvas."""
  rng = np.random.default_rng(seed)
  clips = rng.integers(0, 256, (batch, FRAMES, SIDE, SIDE, 3), np.uint8)
  sizes = np.full((batch, 2), SIDE, np.int32)
  sizes[::3] = (24, 20)
  rows, columns = np.arange(SIDE) < sizes[:, :1], np.arange(SIDE) < sizes[:, 1:]
  clips *= (rows[:, None, :, None, None] & columns[:, None, None, :, None]).astype(np.uint8)
  index = np.arange(batch, dtype=np.int32)
  targets = random_targets(rng, sizes)
  return Batch(clips, sizes, targets.boxes / SIDE, targets, np.ones(batch, bool), index)
