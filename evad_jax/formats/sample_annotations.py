"""Two JSON layouts in which small samples of UCF101-24 and of JHMDB are passed on.

Both name the classes `labels` and number them. UCF101-24: a tube is {start, end, boxes_xyxy}, and
frames count from 0. JHMDB: a tube is a list of [frame, x1, y1, x2, y2], frames count from 1, and a
video says its part in each of the three splits.
"""

import numpy as np

from evad_jax.errors import InputError
from evad_jax.formats.annotation_types import (
  Annotations,
  Tube,
  checked_tube,
  numbered,
  video_annotation,
)


def read_sample(content: dict) -> Annotations:
  """Either layout; KeyError, TypeError, ValueError and the like where it is neither."""
  videos, train, test = {}, {}, {}
  classes = tuple(str(label) for label in content['labels'])
  for name, entry in content['videos'].items():
    height, width = entry.get('resolution_hw') or (
      content['annotation_height'],
      content['annotation_width'],
    )
    label = int(entry['label'])
    tubes = [tube for rows in entry['tubes'] for tube in _tube(name, label, rows, len(classes))]
    videos[name] = video_annotation(name, entry['num_frames'], height, width, tubes)
    for number, part in enumerate(entry.get('splits') or [entry['official_split1']]):
      (train if part == 'train' else test).setdefault(number, []).append(name)
  if not videos:
    raise InputError('"videos" has none')
  count = 1 + max([*train, *test])
  parts = ([part.get(number, []) for number in range(count)] for part in (train, test))
  return Annotations(videos, classes, *parts)


def _tube(name: str, label: int, tube: dict | list, num_classes: int) -> list[Tube]:
  if isinstance(tube, dict):
    boxes = np.array(tube['boxes_xyxy'], np.float32)
    frames = numbered(name, tube['start'], tube['end'], boxes)
  else:
    rows = np.array(tube, np.float32)
    frames, boxes = rows[:, 0] - 1, rows[:, 1:]
  return checked_tube(name, label, frames, boxes, None, num_classes)
