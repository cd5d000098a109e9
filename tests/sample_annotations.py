"""The annotations.json of small samples of UCF101-24 and JHMDB, rewritten in the layout of ACT.

Both name the classes `labels` and number them. UCF101-24: a tube is {start, end, boxes_xyxy}, and
frames count from 0. JHMDB: a tube is a list of [frame, x1, y1, x2, y2], frames count from 1, and a
video states its part in each of the three splits.
"""

import json
from pathlib import Path


def in_act_layout(source: Path, path: Path) -> Path:
  """Writes the annotations of a sample to `path`, JSON, and returns it."""
  content = json.loads(source.read_text())
  videos = content['videos']
  parts = {name: v.get('splits') or [v['official_split1']] for name, v in videos.items()}
  count = max(map(len, parts.values()))
  own = [content.get(f'annotation_{side}') for side in ('height', 'width')]
  lists = {
    kind: [[name for name in videos if parts[name][i] == kind] for i in range(count)]
    for kind in ('train', 'test')
  }
  act = {
    'labels': content['labels'],
    'gttubes': {n: {v['label']: [*map(_rows, v['tubes'])]} for n, v in videos.items()},
    'nframes': {name: video['num_frames'] for name, video in videos.items()},
    'resolution': {name: video.get('resolution_hw', own) for name, video in videos.items()},
    'train_videos': lists['train'],
    'test_videos': lists['test'],
  }
  path.write_text(json.dumps(act))
  return path


def _rows(tube: dict | list) -> list[list[float]]:
  if isinstance(tube, list):
    return tube
  return [[frame, *box] for frame, box in enumerate(tube['boxes_xyxy'], tube['start'] + 1)]
