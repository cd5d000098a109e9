"""JHMDB, 21 classes, by the AVA recipe (none was released for it); its three splits are averaged.

  python -m evad_jax.main --config=configs/jhmdb.py           ViT-B, keep rate 0.7, split 1
  python -m evad_jax.main --config=configs/jhmdb.py:L-2       ViT-L, split 2
  python -m evad_jax.main --config=configs/jhmdb.py:small-3   for two CPU cores, split 3

Prepare the records first, all three splits at once:

  python -m data_prep.jhmdb --frames Rename_Images --annotations JHMDB-GT.pkl --output data/jhmdb

The metrics of JHMDB are averaged over its splits, from three runs:

  python -m evad_jax.tools.score --protocol frame --groundtruth JHMDB-GT.pkl --split 1 2 3 \\
    --detections runs/jhmdb1_b runs/jhmdb2_b runs/jhmdb3_b

Its videos have 15 to 40 frames, so the 16 frames at stride 4 around a keyframe repeat the first and
the last; `--config.clip.frame_stride=2` covers half that time. B and L are meant for accelerators
and have not been trained by this project yet.
"""

from ml_collections import ConfigDict

from configs import common
from evad_jax.errors import InputError

SPLITS = ('1', '2', '3')


def get_config(size: str = 'B') -> ConfigDict:
  """The configuration of 'SIZE' or 'SIZE-SPLIT': size B, L or small, split 1 to 3."""
  size, _, split = size.partition('-')
  split = split or '1'
  if split not in SPLITS:
    raise InputError(f'configs/jhmdb.py:{size}-{split}: the split must be 1, 2 or 3.')
  config = common.get_config()
  config.name = f'jhmdb{split}'
  config.data.directory = 'data/jhmdb'
  config.data.train_split = f'train{split}'
  config.data.eval_split = f'test{split}'
  config.data.prepare_command = (
    'python -m data_prep.jhmdb --frames Rename_Images --annotations JHMDB-GT.pkl '
    '--output data/jhmdb'
  )
  config.clip.canvases = ((288, 384),)  # 320 x 240 videos at a short side of 288
  config.clip.max_boxes = 16
  config.model.num_actions = 21
  common.set_size(config, size)
  return config
