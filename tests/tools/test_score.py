"""The command that scores files: small evaluations by hand, faults, and published metrics."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evad_jax.tools import score
from tests import external
from tests.tools.score_files import ACT, rows, run, write

REPOSITORY = Path(__file__).resolve().parents[2]
AVA_EVAL = external.DATA / 'ava_eval'
published = pytest.mark.skipif(not AVA_EVAL.exists(), reason=external.missing(AVA_EVAL))
LEFT, RIGHT, NOWHERE = '0,0,0.4,1', '0.6,0,1,1', '0.45,0.45,0.55,0.55'
AVA = {
  'labels.pbtxt': 'label { name: "stand" label_id: 12 }\nlabel { name: "watch" label_id: 80 }\n',
  'truth.csv': f'a,0902,{LEFT},12,0\na,0902,{RIGHT},80,1\nb,903,{LEFT},12\n',
  'detections.csv': f'a,0902,{LEFT},12,0.9\nb,0903,{NOWHERE},12,0.8\nb,0903,{LEFT},12,0.7\n'
  f'a,0902,{RIGHT},80,0.6\na,0902,{RIGHT},17,0.99\n',
}


def labels(tmp_path):
  return '--labels', str(tmp_path / 'labels.pbtxt')


def test_ava(tmp_path, capsys):
  write(tmp_path, AVA)
  plot = tmp_path / 'bars.png'
  result = run(tmp_path, 'ava', *labels(tmp_path), '--errors', '--plot', str(plot))
  # stand: .9 hit, .8 miss, .7 hit.
  assert result['mAP@0.5'] == pytest.approx((5 / 6 + 1) / 2, abs=1e-15)
  assert result['per_class'] == {
    'stand': {'AP@0.5': pytest.approx(5 / 6), 'truth_boxes': 2, 'detections': 3},
    'watch': {'AP@0.5': 1.0, 'truth_boxes': 1, 'detections': 1},
  }
  assert result['counts'] == {
    'frames': 2,
    'truth_boxes': 3,
    'truth_labels': 3,
    'detected_boxes': 4,
    'detections': 4,
    'proposals': 4,
    'detections_of_unlisted_classes': 1,
    'detections_on_excluded_keyframes': 0,
    'detections_beyond_the_highest': 0,
  }
  assert result['errors']['kinds']['background'] == {'cost': pytest.approx(1 / 12), 'count': 1}
  printed = capsys.readouterr().out
  assert 'stand               83.33            2           3' in printed
  assert 'background            8.33       1' in printed
  assert 'mAP@0.5 0.916666666667' in printed
  with Image.open(plot) as picture:
    assert picture.format == 'PNG'


def test_ava_excluded_and_max_per_frame(tmp_path):
  write(tmp_path, AVA | {'excluded.csv': 'b,0903\n'})
  flags = (*labels(tmp_path), '--excluded', str(tmp_path / 'excluded.csv'))
  result = run(tmp_path, 'ava', *flags)
  assert (result['mAP@0.5'], result['counts']['detections_on_excluded_keyframes']) == (1.0, 2)
  result = run(tmp_path, 'ava', *labels(tmp_path), '--max-per-frame', '1')
  assert [entry['AP@0.5'] for entry in result['per_class'].values()] == [0.5, 0.0]
  assert result['counts']['detections_beyond_the_highest'] == 2


FRAME_DETECTIONS = (
  rows('catch/a', range(1, 21), '0,0,10,10', 0, 0.9)
  + rows('run/c', range(3, 23), '20,20,40,40', 1, 0.8)
  + rows('run/c', (1, 2, 25), '0,0,9,9', 1, 0.95)
)


def test_frame(tmp_path):
  write(tmp_path, {'truth.pkl': ACT, 'detections.csv': FRAME_DETECTIONS})
  result = run(tmp_path, 'frame', truth='truth.pkl')
  assert (result['frame_mAP@0.5'], result['person_AP@0.5']) == (1.0, 1.0)
  assert result['counts']['frames'] == 40
  assert result['counts']['detections_on_other_frames'] == 3
  result = run(tmp_path, 'frame', '--all-frames', truth='truth.pkl')
  # The envelope of 20 hits behind three false positives is 20/23 at each of them.
  assert result['per_class']['run']['AP@0.5'] == pytest.approx(20 / 23)
  assert result['counts']['frames'] == 50


def test_video(tmp_path):
  write(tmp_path, {'truth.pkl': ACT, 'detections.csv': FRAME_DETECTIONS})
  result = run(tmp_path, 'video', truth='truth.pkl')
  assert [result[f'video_mAP@{t}'] for t in ('0.2', '0.5', '0.75', '0.5:0.95', '0.1:0.9')] == [
    1
  ] * 5
  assert result['counts'] == {
    'videos': 2,
    'truth_tubes': 2,
    'tubes': 2,
    'truth_boxes': 40,
    'detections': 43,
    'frames_with_detections': 43,
  }
  assert result['linking'] == 'greedy'
  result = run(tmp_path, 'video', '--iou', '0.3', '--linking', 'viterbi', truth='truth.pkl')
  assert [key for key in result if '@' in key] == ['video_mAP@0.3']


def test_csv_truth_equals_the_pickle(tmp_path):
  truth = ''.join(
    f'{video},{int(row[0])},{row[1]},{row[2]},{row[3]},{row[4]},{label},0\n'
    for video in ('catch/a', 'run/c')
    for label, (some,) in ACT['gttubes'][video].items()
    for row in some
  )
  # Half as high, and with misses in one clip.
  detections = rows('catch/a', range(1, 21, 3), '0,0,10,8', 0, 0.9) + rows(
    'run/c', range(3, 23), '20,20,40,38', 1, 0.8
  )
  files = {'truth.csv': truth, 'truth.pkl': ACT, 'detections.csv': detections}
  write(tmp_path, files | {'names.txt': 'catch\nrun\n'})
  for protocol in ('frame', 'video'):
    names = ('--labels', str(tmp_path / 'names.txt'))
    by_csv, by_pickle = (
      run(tmp_path, protocol, *names),
      run(tmp_path, protocol, truth='truth.pkl'),
    )
    assert by_csv == by_pickle
    figures = [value for key, value in by_csv.items() if 'mAP' in key]
    assert 0.3 < min(figures) < 1


def test_average_over_splits(tmp_path):
  first = FRAME_DETECTIONS
  second = rows('run/c', range(3, 23), '20,20,40,40', 1, 0.8)  # nothing in run/b
  write(tmp_path, {'truth.pkl': ACT, 'one.csv': first, 'two.csv': second})
  both = {'truth': 'truth.pkl', 'detections': ('one.csv', 'two.csv')}
  result = run(tmp_path, 'frame', '--split', '1', '2', **both)
  assert [split['frame_mAP@0.5'] for split in result['splits']] == [1.0, 0.5]
  assert result['frame_mAP@0.5'] == 0.75
  assert result['per_class']['run']['AP@0.5'] == 0.75
  assert result['per_class']['catch']['AP@0.5'] == 1.0
  assert result['counts']['frames'] == 80
  result = run(tmp_path, 'video', '--split', '1', '2', **both)
  assert result['video_mAP@0.5'] == 0.75


def generated(shift):
  """One tube of 20 frames for each of 3 classes in 4 videos, and each box as a detection.

  Boxes of the detections are lower by a share of their height, so that they overlap the truth by
  (1 - shift) / (1 + shift). Returns files of AVA's form and of the video protocol.
  """
  rng = np.random.default_rng(0)
  ava, ava_found, truth, found = [], [], [], []
  for video in range(4):
    for label, y in enumerate(rng.uniform(0.1, 0.5, 3)):
      x = 0.02 + 0.3 * label  # people do not overlap
      score = rng.uniform(0.1, 1)
      for frame in range(1, 21):
        box = np.array([x, y, x + 0.25, y + 0.2]) + 0.002 * frame
        moved = box + [0, 0.2 * shift, 0, 0.2 * shift]
        for rows_, b, end in ((ava, box, ''), (ava_found, moved, f',{score}')):
          rows_.append(f'v{video},{900 + frame:04d},{",".join(map(str, b))},{label + 1}{end}\n')
        for rows_, b, end in ((truth, box, label), (found, moved, score)):
          pixels = ','.join(map(str, b * 1000))
          rows_.append(f'v{video},{frame},{pixels},{label},{end}\n')
  names = ''.join(f'item {{ name: "class {i}" id: {i} }}\n' for i in (1, 2, 3))
  files = {'ava_truth.csv': ava, 'ava_found.csv': ava_found, 'truth.csv': truth, 'found.csv': found}
  return {name: ''.join(some) for name, some in files.items()} | {'labels.pbtxt': names}


@pytest.mark.parametrize(('shift', 'expected'), [(0.0, 1.0), ((1 - 0.49) / (1 + 0.49), 0.0)])
def test_perfect_and_shifted_detections(tmp_path, shift, expected):
  write(tmp_path, generated(shift))
  files = {'truth': 'ava_truth.csv', 'detections': ('ava_found.csv',)}
  for limit in ((), ('--max-per-frame', '50')):
    result = run(tmp_path, 'ava', *labels(tmp_path), *limit, **files)
    assert (result['mAP@0.5'], result['person_AP@0.5']) == (expected, expected)
  files = {'truth': 'truth.csv', 'detections': ('found.csv',)}
  for flags in ((), ('--all-frames',)):
    assert run(tmp_path, 'frame', *flags, **files)['frame_mAP@0.5'] == expected
  figures = ('0.5', '0.75', '0.5:0.95')
  for linking in ('greedy', 'viterbi', 'multisports'):
    for flags in ((), ('--spatial-only',)):
      result = run(tmp_path, 'video', '--linking', linking, '--iou', *figures, *flags, **files)
      assert [result[f'video_mAP@{figure}'] for figure in figures] == [expected] * 3
      assert result['counts']['tubes'] == 12


def test_names_that_occur_twice(tmp_path):
  twice = 'item { name: "do" id: 12 }\nitem { name: "do" id: 80 }\n'
  write(tmp_path, AVA | {'labels.pbtxt': twice})
  assert list(run(tmp_path, 'ava', *labels(tmp_path))['per_class']) == ['do (12)', 'do (80)']


@pytest.mark.parametrize(
  ('file', 'text', 'message'),
  [
    ('detections.csv', f'a,0902,{LEFT},12\n', 'detections.csv, line 1: 7 columns instead of 8'),
    ('detections.csv', f'a,0902,{LEFT},12,nan\n', "detections.csv, line 1: score is 'nan'"),
    ('detections.csv', 'a,0902,0.5,0,0.4,1,12,0.5\n', 'line 1: the box ends before it starts'),
    ('detections.csv', f'a,0902,{LEFT},99,0.5\n', 'line 1: there is no action 99'),
    ('detections.csv', f'z,0902,{LEFT},12,0.5\n', "line 1: video 'z' is not in the ground truth"),
    ('detections.csv', '', 'detections.csv is empty'),
    ('truth.csv', 'a,0902,0,0,1\n', 'truth.csv, line 1: 5 columns instead of 2, 7 or 8'),
    ('truth.csv', 'a,0902,0,0,nan,1,12,0\n', "truth.csv, line 1: x2 is 'nan'"),
    ('truth.csv', '', 'truth.csv is empty'),
    ('labels.pbtxt', 'stand\n', "labels.pbtxt, line 1: 'stand' does not belong here"),
  ],
)
def test_bad_ava_input(tmp_path, capsys, file, text, message):
  write(tmp_path, AVA | {file: text})
  with pytest.raises(SystemExit) as stop:
    run(tmp_path, 'ava', *labels(tmp_path))
  assert stop.value.code == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'out.json').exists()


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('run/c,31,0,0,1,1,1,0.5\n', 'line 2: there is no frame 31 in run/c, which has 30 frames'),
    ('run/b,3,0,0,1,1,1,0.5\n', "line 2: video 'run/b' is not one of the 2 that are scored"),
    ('run/c,3,0,0,1,1,2,0.5\n', 'line 2: there is no class 2; the labels go from 0 to 1'),
    ('run/c,3,0,0,1,1,1\n', 'line 2: 7 columns instead of 8'),
    ('run/c,3,0,0,1,inf,1,0.5\n', "line 2: y2 is 'inf'"),
    ('run/c,3,2,0,1,1,1,0.5\n', 'line 2: the box ends before it starts'),
  ],
)
@pytest.mark.parametrize('protocol', ['frame', 'video'])
def test_bad_video_input(tmp_path, capsys, protocol, row, message):
  write(tmp_path, {'truth.pkl': ACT, 'detections.csv': 'run/c,3,0,0,1,1,1,0.5\n' + row})
  with pytest.raises(SystemExit) as stop:
    run(tmp_path, protocol, truth='truth.pkl')
  assert stop.value.code == 2
  assert f'detections.csv, {message}' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('protocol', 'flags', 'message'),
  [
    ('ava', (), '--protocol ava needs --labels'),
    ('ava', ('--all-frames',), '--all-frames means nothing to --protocol ava'),
    ('frame', ('--linking', 'greedy'), '--linking means nothing to --protocol frame'),
    ('video', ('--errors',), '--errors means nothing to --protocol video'),
    ('frame', ('--iou', '0.5:0.95'), 'ranges belong to --protocol video'),
    ('video', ('--iou', 'half'), "'half' is not an IoU threshold"),
    ('frame', ('--split', '1', '2'), '1 detection files were given for 2 splits'),
    ('frame', ('--split', '3'), 'has 2 splits; give --split from 1 to 2'),
    ('frame', ('--max-per-frame', '0'), '--max-per-frame is 0; give at least 1'),
  ],
)
def test_flags_that_do_not_fit(tmp_path, capsys, protocol, flags, message):
  write(tmp_path, {'truth.pkl': ACT, 'detections.csv': FRAME_DETECTIONS})
  with pytest.raises(SystemExit) as stop:
    run(tmp_path, protocol, *flags, truth='truth.pkl')
  assert stop.value.code == 2
  assert message in capsys.readouterr().err


def test_output_that_cannot_be_written(tmp_path, capsys):
  write(tmp_path, AVA)
  with pytest.raises(SystemExit) as stop:
    run(tmp_path, 'ava', *labels(tmp_path), '--plot', str(tmp_path / 'truth.csv' / 'bars.png'))
  assert stop.value.code == 2
  assert 'cannot be written' in capsys.readouterr().err
  assert (tmp_path / 'out.json').exists()


def test_needs_no_accelerator_library():
  """Nothing of this imports JAX, so that a machine without it can score."""
  code = (
    'import pkgutil, sys, evad_jax.tools.score, evad_jax.metrics, evad_jax.tubes, '
    'evad_jax.formats.ground_truth\n'
    'for package in (evad_jax.metrics, evad_jax.tubes):\n'
    '  for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):\n'
    '    __import__(module.name)\n'
    'print(sorted({name.split(".")[0] for name in sys.modules} & {"jax", "jaxlib", "flax"}))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=REPOSITORY, capture_output=True, text=True
  )
  assert (done.stdout.strip(), done.stderr) == ('[]', '')


@published
@pytest.mark.parametrize(
  ('label_file', 'truth', 'detections', 'expected'),
  [
    (
      'ava_action_list_v2.2_for_activitynet_2019.pbtxt',
      'gt_pred_slice/gt_1j20qq1JyX4_0902-1014.csv',
      'gt_pred_slice/yowov3_pred_1j20qq1JyX4_0902-1014.csv',
      0.645276714783,
    ),
    *(
      (
        f'ava_action_list_{version}.pbtxt',
        'gt_pred_slice/gt_pose_1j20qq1JyX4_0902-1287.csv',
        'gt_pred_slice/yowov3_pred_1j20qq1JyX4_0902-1287.csv',
        0.701197194510,
      )
      for version in ('v2.1_for_activitynet_2018', 'v2.2_for_activitynet_2019')
    ),
    (
      'mmaction2_fixture/action_list.txt',
      'mmaction2_fixture/gt.csv',
      'mmaction2_fixture/pred.csv',
      0.093855218855,
    ),
  ],
)
def test_published_ava_figures(tmp_path, label_file, truth, detections, expected):
  files = (AVA_EVAL / name for name in (truth, detections, label_file))
  truth, detections, label_file = map(str, files)
  out = tmp_path / 'out.json'
  score.main(
    f'--protocol ava --labels {label_file} --groundtruth {truth} --detections {detections} '
    f'--json {out}'.split()
  )
  assert json.loads(out.read_text())['mAP@0.5'] == pytest.approx(expected, abs=1e-9)


@published
@pytest.mark.parametrize('truth', ['gt.pkl', 'gt.json'])
def test_published_multisports_figures(tmp_path, truth):
  fixture, out = AVA_EVAL / 'multisports_fixture', tmp_path / 'out.json'
  files = f'--groundtruth {fixture / truth} --detections {fixture}/detections.csv --json {out}'
  score.main(f'--protocol frame {files}'.split())
  assert json.loads(out.read_text())['frame_mAP@0.5'] == pytest.approx(0.836506, abs=5e-7)
  score.main(f'--protocol video --linking multisports {files}'.split())
  result = json.loads(out.read_text())
  figures = [result[f'video_mAP@{t}'] for t in ('0.2', '0.5', '0.75', '0.1:0.9', '0.5:0.95')]
  assert figures == pytest.approx([0.5, 0.5, 0.375, 0.402778, 0.325], abs=5e-7)
