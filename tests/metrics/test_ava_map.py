"""AVA's protocol: a small evaluation by hand. For published ones see tests/tools/test_score.py."""

import pytest

from evad_jax.errors import InputError
from evad_jax.formats.ava_files import read_exclusions, read_truth
from evad_jax.formats.detections_csv import read_with_lines
from evad_jax.metrics import ava_map, scored_boxes

LISTED = [12, 80]
LEFT, RIGHT, NOWHERE = '0,0,0.4,1', '0.6,0,1,1', '0.45,0.45,0.55,0.55'
# Class 17 is not listed; b,904 is excluded; c,905 is empty.
TRUTH = f"""\
a,0902,{LEFT},12,0
a,0902,{RIGHT},80,1
a,902,{RIGHT},17,1
b,903,{LEFT},12,0
b,0904,{LEFT},12,0
c,905
"""
DETECTIONS = f"""\
a,902,{LEFT},17,0.99
a,0902,{LEFT},12,0.9
a,0902,{RIGHT},80,0.4
c,0905,{LEFT},12,0.8
b,0903,{LEFT},12,0.7
b,0904,{NOWHERE},12,0.95
b,0999,{LEFT},80,0.5
a,0902,{NOWHERE},80,0.3
"""


def files(tmp_path, truth=TRUTH, detections=DETECTIONS):
  for name, text in (('gt.csv', truth), ('det.csv', detections), ('ex.csv', 'b,904\n')):
    (tmp_path / name).write_text(text)
  return (
    read_truth(tmp_path / 'gt.csv'),
    *read_with_lines(tmp_path / 'det.csv'),
    read_exclusions(tmp_path / 'ex.csv'),
  )


def scored(tmp_path, max_per_frame=None, exclude=True):
  truth, detections, lines, excluded = files(tmp_path)
  ava_map.check_detections(detections, lines, truth, LISTED)
  chosen = ava_map.select(truth, detections, LISTED, excluded if exclude else set(), max_per_frame)
  return chosen, scored_boxes.compute(chosen.detections, chosen.truth, 2, chosen.num_frames)


def test_all_detections(tmp_path):
  # Class 12: .9 hit, .8 on c,905, which is empty, .7 hit: (1 + 2/3) / 2.
  # Class 80: .5 on a keyframe that is not listed, .4 hit, .3 miss: 1/2.
  chosen, result = scored(tmp_path)
  assert [ap.value for ap in result.per_class] == [(1 + 2 / 3) / 2, 1 / 2]
  assert [ap.num_truth for ap in result.per_class] == [2, 1]
  assert [ap.num_detections for ap in result.per_class] == [3, 3]
  assert chosen.num_frames == 3  # keyframes with truth rows
  assert list(chosen.left_out.values()) == [1, 1, 0]  # unlisted, excluded, beyond
  # The two of a,902 and the one of b,903; the unlisted 17 of RIGHT adds no box.
  assert result.num_truth_boxes == 3


def test_excluded_keyframes_count_without_the_list(tmp_path):
  chosen, result = scored(tmp_path, exclude=False)
  # Class 12 has a third truth box, and is ranked .95 miss, .9 hit, .8 miss, .7 hit.
  assert result.per_class[0].value == pytest.approx((1 / 2 + 1 / 2) / 3, abs=1e-15)
  assert chosen.num_frames == 4


def test_the_highest_of_a_keyframe_are_counted_after_unlisted_classes_are_dropped(tmp_path):
  chosen, result = scored(tmp_path, max_per_frame=2)
  # The .3; the unlisted .99 did not push the .4 out.
  assert chosen.left_out['detections_beyond_the_highest'] == 1
  assert [ap.value for ap in result.per_class] == [(1 + 2 / 3) / 2, 1 / 2]
  chosen, result = scored(tmp_path, max_per_frame=1)
  assert chosen.left_out['detections_beyond_the_highest'] == 2
  assert [ap.value for ap in result.per_class] == [(1 + 2 / 3) / 2, 0.0]


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    (f'd,902,{LEFT},12,0.5', "line 2: video 'd' is not in the ground truth"),
    (f'a,902,{LEFT},81,0.5', 'line 2: there is no action 81; the ids end at 80'),
  ],
)
def test_what_cannot_belong_here(tmp_path, row, message):
  truth, detections, lines, _ = files(tmp_path, detections=f'a,902,{LEFT},2,0.5\n{row}\n')
  with pytest.raises(InputError, match=message):
    ava_map.check_detections(detections, lines, truth, LISTED)
