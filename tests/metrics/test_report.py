"""The table and the dictionary, letter by letter."""

import json

import pytest

from evad_jax.metrics.average_precision import AveragePrecision
from evad_jax.metrics.frame_map import FrameMap
from evad_jax.metrics.report import as_dictionary, format_table

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
