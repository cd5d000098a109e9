"""Two JSON layouts in which small samples of UCF101-24 and of JHMDB are passed on.

Both name the classes `labels` and number them. UCF101-24: a tube is {start, end, boxes_xyxy}, and
frames count from 0. JHMDB: a tube is a list of [frame, x1, y1, x2, y2], frames count from 1, and a
video says its part in each of the three splits.
"""

import numpy as np

from data_prep.tubes import Annotations, Tube, VideoAnnotation
from evad_jax.errors import InputError


def is_sample(content) -> bool:
  """Whether a JSON file has one of these layouts."""
  return isinstance(content, dict) and 'labels' in content and 'classes' not in content


def read_sample(content: dict) -> Annotations:
  """Either layout; KeyError, TypeError or ValueError where it is neither."""
  videos, train, test = {}, {}, {}
  for name, entry in content['videos'].items():
    size = entry.get('resolution_hw') or (
      content['annotation_height'],
      content['annotation_width'],
    )
    tubes = [_tube(name, entry['label'], tube) for tube in entry['tubes']]
    videos[name] = VideoAnnotation(entry['num_frames'], *size, tubes)
    for number, part in enumerate(entry.get('splits') or [entry['official_split1']]):
      (train if part == 'train' else test).setdefault(number, []).append(name)
  count = 1 + max([*train, *test])
  parts = ([part.get(number, []) for number in range(count)] for part in (train, test))
  return Annotations(videos, tuple(content['labels']), *parts)


def _tube(name: str, label: int, tube: dict | list) -> Tube:
  if isinstance(tube, dict):
    frames = np.arange(tube['start'], tube['end'])
    boxes = np.array(tube['boxes_xyxy'], np.float32)
  else:
    rows = np.array(tube, np.float32)
    frames, boxes = rows[:, 0].astype(np.int64) - 1, rows[:, 1:]
  if boxes.shape != (len(frames), 4) or (np.diff(frames) <= 0).any():
    raise InputError(f'{name}: {len(frames)} rising frames have boxes of shape {boxes.shape}')
  return Tube(int(label), frames, boxes)
