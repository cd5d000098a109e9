"""The demo: a small EVAD, trained on synthetic stick figures.

  python -m evad_jax.main --config=configs/demo.py

It makes its own data, in about half a minute.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
  """The demo."""
  config = common.get_config()
  config.name = 'demo'
  config.data.directory = 'data/synthetic'
  config.data.synthetic = 'easy'
  config.data.prepare_command = 'python -m data_prep.synthetic --output data/synthetic'
  config.clip.update(
    clip_frames=8, frame_stride=1, canvases=((64, 64),), short_side=64, max_boxes=4
  )
  common.set_small(config)
  # A narrower detector than set_small's: the finest maps of the pyramid cost most here.
  config.model.update(
    num_actions=6,
    pretrain_size=64,
    num_heads=2,
    detector_width=48,
    num_proposals=9,
    num_stages=2,
    decoder_heads=2,
  )
  config.optimizer.update(clip_norm=1.0, warmup_epochs=0.25)
  config.train.update(batch_size=16, epochs=5.0, log_every=25, checkpoint_every=200)
  config.eval.batch_size = 32
  return config
