"""The demo cut down until a step takes milliseconds: configuration and data of many tests."""

from configs import demo
from evad_jax.synthetic import data_set


def tiny_config(directory):
  """The demo cut down until a step takes milliseconds."""
  config = demo.get_config()
  config.data.directory = str(directory)
  config.data.synthetic = ''
  config.clip.canvases = ((32, 32),)
  config.clip.short_side = 32
  config.clip.clip_frames = 4
  config.model.update(
    drop_path=0.2,  # so that the random keys of a step matter
    width=16,
    depth=4,
    num_heads=2,
    pretrain_size=32,
    detector_width=16,
    detector_heads=2,
    num_proposals=4,
    num_stages=1,
    dynamic_width=4,
    feed_forward=16,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
    action_hidden=16,
  )
  # A constant rate: runs of any length use the same compiled program.
  config.optimizer.update(schedule='step', milestones=(), factors=(), warmup_epochs=0.0)
  config.train.update(batch_size=4, epochs=1.0, log_every=1, checkpoint_every=2)
  config.eval.update(batch_size=4, sheet_clips=3)
  return config


def make_data(directory, train=16, test=6):
  settings = data_set.Settings(
    height=32, width=32, clip_frames=4, frame_stride=1, train=train, test=test, workers=1
  )
  data_set.generate(directory, settings)
  return directory
