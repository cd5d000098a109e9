"""One tube of two boxes in the layouts of both families of annotation pickles."""

import numpy as np

NAME = 'Diving/v_Diving_g01_c01'


def pyannot_entry() -> dict:
  """Two boxes whose right edge is 250 + 60 = 310: in uint8 that would be 54."""
  boxes = np.array([[250, 10, 60, 100], [10, 200, 20, 40]], np.uint8)
  tube = {'label': 5, 'sf': 3, 'ef': 5, 'boxes': boxes}
  return {'annotations': [tube], 'numf': np.uint8(9), 'label': 5}


def act_content() -> dict:
  """The same tube as ACT has it: frames from 1, corners."""
  tube = np.array([[4, 250, 10, 310, 110], [5, 10, 200, 30, 240]], np.float32)
  return {
    'labels': [f'class{number}' for number in range(24)],
    'gttubes': {NAME: {5: [tube]}},
    'nframes': {NAME: 9},
    'train_videos': [[NAME]],
    'test_videos': [[]],
    'resolution': {NAME: (240, 320)},
  }
