"""UCF101-24, split 1, by the AVA recipe with 24 classes (no recipe was released for it).

  python -m evad_jax.main --config=configs/ucf24.py           ViT-B, keep rate 0.7
  python -m evad_jax.main --config=configs/ucf24.py:L         ViT-L
  python -m evad_jax.main --config=configs/ucf24.py:small     a size that two CPU cores can train

Prepare the records first:

  python -m data_prep.ucf24 --videos UCF-101 --annotations pyannot.pkl --output data/ucf24 \\
    --train-list trainlist01.txt --test-list testlist01.txt

With --every-test-frame, evaluations compute video-mAP too: its tubes continue through frames
without annotation. B and L are meant for accelerators and have not been trained by this project
yet; the results of `small` are in docs/data.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(size: str = 'B') -> ConfigDict:
  """The configuration of one size: 'B', 'L' or 'small'."""
  config = common.get_config()
  config.name = 'ucf24'
  config.data.directory = 'data/ucf24'
  config.data.prepare_command = (
    'python -m data_prep.ucf24 --videos UCF-101 --annotations pyannot.pkl --output data/ucf24 '
    '--train-list trainlist01.txt --test-list testlist01.txt'
  )
  config.clip.canvases = ((288, 384),)  # 320 x 240 videos at a short side of 288
  config.clip.max_boxes = 16
  config.model.num_actions = 24
  common.set_size(config, size)
  if size == 'small':
    config.train.epochs = 20.0
  return config
