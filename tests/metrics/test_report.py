"""The table and the dictionary, letter by letter."""

import json

import numpy as np
import pytest

from evad_jax.metrics.average_precision import AveragePrecision
from evad_jax.metrics.error_breakdown import Breakdown
from evad_jax.metrics.frame_map import FrameMap
from evad_jax.metrics.report import (
  as_dictionary,
  average,
  errors_as_dictionary,
  format_errors,
  format_table,
  format_video_table,
  video_as_dictionary,
)
from evad_jax.metrics.video_map import VideoMap

RESULT = FrameMap(
  scoring='action',
  iou_threshold=0.5,
  mean_ap=0.625,
  per_class=(
    AveragePrecision(1.0, 3, 1200),
    AveragePrecision(0.25, 1, 1200),
    AveragePrecision(float('nan'), 0, 1200),
  ),
  person=AveragePrecision(0.98765, 3, 40000),
  num_frames=1000,
  num_truth_boxes=3,
  num_boxes=1200,
)
NAMES = ('stand', 'walk', 'swim')


def test_table():
  expected = """\
class              AP@0.5  truth boxes  detections
--------------------------------------------------
stand              100.00            3       1,200
walk                25.00            1       1,200
swim                    -            0       1,200
--------------------------------------------------
mean of 2 classes   62.50            4       3,600
person              98.77            3      40,000
1,000 frames, 3 people; 1,200 of 40,000 proposals scored by action"""
  assert format_table(RESULT, NAMES) == expected


def test_dictionary_is_plain_json():
  dictionary = as_dictionary(RESULT, NAMES)
  assert json.loads(json.dumps(dictionary, allow_nan=False)) == dictionary
  assert dictionary['frame_mAP@0.5'] == 0.625
  assert dictionary['person_AP@0.5'] == 0.98765
  assert dictionary['per_class']['swim'] == {'AP@0.5': None, 'truth_boxes': 0, 'detections': 1200}
  assert dictionary['counts'] == {
    'frames': 1000,
    'truth_boxes': 3,
    'truth_labels': 4,
    'detected_boxes': 1200,
    'detections': 3600,
    'proposals': 40000,
  }


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (('stand',), '1 class names were given for 3 classes'),
    (('stand', 'walk', 'walk'), 'the same name'),
  ],
)
def test_names_must_fit(names, message):
  for function in (format_table, as_dictionary):
    with pytest.raises(ValueError, match=message):
      function(RESULT, names)


VIDEO_RESULT = VideoMap(
  rule='greedy',
  figures={
    '0.5': (AveragePrecision(0.75, 2, 5), AveragePrecision(float('nan'), 0, 1)),
    '0.5:0.95': (AveragePrecision(0.5, 2, 5), AveragePrecision(float('nan'), 0, 1)),
  },
  num_videos=4,
  num_truth_tubes=2,
  num_tubes=6,
)
ERRORS = Breakdown(
  mean_ap=0.5,
  costs=np.array([0, 0.125, 0.25, 0, 0, np.nan]),
  class_costs=np.array([[0, 0.125, 0.25, 0, 0, np.nan]]),
  counts=np.array([[1, 2, 3000, 4, 5, 6]]),
  size_counts=np.array([[1, 0, 1000, 2, 5, 1], [0, 2, 1000, 2, 0, 2], [0, 0, 1000, 0, 0, 3]]),
  size_truth=np.array([7, 8, 9]),
  size_found=np.array([6, 6, 6]),
  size_limits=np.array([0.125, 0.5]),
)


def test_classes_that_are_not_scored_are_not_named():
  some = RESULT._replace(per_class=RESULT.per_class[:2], classes=(2, 0))
  assert list(as_dictionary(some, NAMES, 'mAP')['per_class']) == ['swim', 'stand']
  assert as_dictionary(some, NAMES, 'mAP')['mAP@0.5'] == 0.625
  assert format_table(some, NAMES).splitlines()[2].startswith('swim ')


def test_video_table_and_dictionary():
  expected = """\
class              AP@0.5  AP@0.5:0.95  truth tubes  tubes
----------------------------------------------------------
stand               75.00        50.00            2      5
walk                    -            -            0      1
----------------------------------------------------------
mean of 1 classes   75.00        50.00            2      6
4 videos; boxes linked by the rule greedy"""
  assert format_video_table(VIDEO_RESULT, NAMES[:2]) == expected
  dictionary = video_as_dictionary(VIDEO_RESULT, NAMES[:2])
  assert json.loads(json.dumps(dictionary, allow_nan=False)) == dictionary
  assert (dictionary['video_mAP@0.5'], dictionary['video_mAP@0.5:0.95']) == (0.75, 0.5)
  assert dictionary['per_class']['stand'] == {
    'AP@0.5': 0.75,
    'AP@0.5:0.95': 0.5,
    'truth_tubes': 2,
    'tubes': 5,
  }
  assert dictionary['counts'] == {'videos': 4, 'truth_tubes': 2, 'tubes': 6}


def test_errors():
  expected = """\
error           mAP points  errors  small  medium  large
--------------------------------------------------------
duplicate             0.00       1      1       0      0
localisation         12.50       2      0       2      0
classification       25.00   3,000  1,000   1,000  1,000
both                  0.00       4      2       2      0
background            0.00       5      5       0      0
missed                   -       6      1       2      3
--------------------------------------------------------
truth labels                    24      7       8      9
found                           18      6       6      6"""
  assert format_errors(ERRORS) == expected
  dictionary = errors_as_dictionary(ERRORS, ['stand'])
  assert json.loads(json.dumps(dictionary, allow_nan=False)) == dictionary
  assert dictionary['kinds']['missed'] == {'cost': None, 'count': 6}
  assert dictionary['per_class']['stand']['localisation'] == {'cost': 0.125, 'count': 2}
  assert dictionary['per_size']['large'] == {
    **dict.fromkeys(('duplicate', 'localisation', 'both', 'background'), 0),
    'classification': 1000,
    'missed': 3,
    'truth_labels': 9,
    'found': 6,
  }
  assert dictionary['size_limits'] == [0.125, 0.5]


def test_average_over_splits():
  def split(mean, stand, walk, frames):
    return {
      'protocol': 'frame',
      'frame_mAP@0.5': mean,
      'person_AP@0.5': 1.0,
      'per_class': {
        'stand': {'AP@0.5': stand, 'truth_boxes': 3},
        'walk': {'AP@0.5': walk, 'truth_boxes': 2},
      },
      'counts': {'frames': frames},
    }

  splits = [split(0.5, 0.25, 0.75, 10), split(0.25, 0.25, None, 20), split(0.75, 0.75, 0.75, 30)]
  result = average(splits)
  assert result == {
    'protocol': 'frame',
    'frame_mAP@0.5': 0.5,
    'person_AP@0.5': 1.0,
    'per_class': {
      'stand': {'AP@0.5': 1.25 / 3, 'truth_boxes': 9},
      'walk': {'AP@0.5': 0.75, 'truth_boxes': 6},
    },
    'counts': {'frames': 60},
    'splits': splits,
  }
  with pytest.raises(ValueError, match='one protocol'):
    average([splits[0], video_as_dictionary(VIDEO_RESULT, NAMES[:2])])
