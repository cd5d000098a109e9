"""UCF101-24, split 1, by the AVA recipe with 24 classes (no recipe was released for it).

  python -m evad_jax.main --config=configs/ucf24.py           ViT-B, keep rate 0.7
  python -m evad_jax.main --config=configs/ucf24.py:L         ViT-L
  python -m evad_jax.main --config=configs/ucf24.py:small     a size that two CPU cores can train

Prepare the records first:

  python -m data_prep.ucf24 --videos UCF-101 --annotations pyannot.pkl --output data/ucf24 \\
    --train-list trainlist01.txt --test-list testlist01.txt

B and L are meant for accelerators and were not trained by this project yet; what `small` reaches is
in the README.
"""

from ml_collections import ConfigDict

from configs import common
from evad_jax.errors import InputError


def get_config(size: str = 'B') -> ConfigDict:
  """The configuration of one size: 'B', 'L' or 'small'."""
  config = common.get_config()
  config.name = f'ucf24_{size.lower()}'
  config.data.directory = 'data/ucf24'
  config.data.prepare_command = (
    'python -m data_prep.ucf24 --videos UCF-101 --annotations pyannot.pkl --output data/ucf24 '
    '--train-list trainlist01.txt --test-list testlist01.txt'
  )
  config.clip.canvases = ((288, 384),)  # 320 x 240 videos at a short side of 288
  config.clip.max_boxes = 16
  config.model.num_actions = 24
  if size == 'L':
    common.set_vit_l(config)
  elif size == 'small':
    _set_small(config)
  elif size != 'B':
    raise InputError(f"configs/ucf24.py:{size}: the size must be 'B', 'L' or 'small'.")
  return config


def _set_small(config: ConfigDict) -> None:
  """Half the frames over the same time, 160 x 120 pixels, 4 encoder blocks."""
  common.set_small(config)
  config.clip.update(clip_frames=8, frame_stride=8, canvases=((128, 160),), short_side=120)
  config.model.update(patch=16, pretrain_size=128, width=96, num_heads=3, num_proposals=16)
  config.optimizer.clip_norm = 1.0
  config.train.update(batch_size=16, epochs=40.0, log_every=25, checkpoint_every=250)
  config.eval.batch_size = 32
