"""Your own videos and classes, prepared from one JSON file.

  python -m data_prep.custom --annotations kitchen.json --output data/kitchen
  python -m evad_jax.main --config=configs/custom.py --config.data.directory=data/kitchen \\
    --config.model.num_actions=2

The size is an argument, as everywhere: configs/custom.py:L, configs/custom.py:small. There are
canvases for wide and for upright videos; a picture that fits none is reported before the first
step. It reproduces nothing published: B and L, by the AVA recipe, are meant for accelerators.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(size: str = 'B') -> ConfigDict:
  """The configuration of one size: 'B', 'L' or 'small'."""
  config = common.get_config()
  config.name = 'custom'
  config.data.directory = 'data/custom'
  config.data.prepare_command = (
    'python -m data_prep.custom --annotations YOURS.json --output data/custom'
  )
  common.set_size(config, size)
  upright = tuple((width, height) for height, width in config.clip.canvases)
  config.clip.canvases = (*config.clip.canvases, *upright)
  return config
