"""Lists of the videos that are scored, as they are published."""

import pytest

from tests.tools.score_files import ACT, rows, run, tube, write


def test_a_list_of_videos(tmp_path):
  write(
    tmp_path,
    {
      'truth.pkl': ACT,
      'list.txt': 'run/c.avi 2\n',
      'detections.csv': rows('run/c', range(3, 23), '20,20,40,40', 1, 0.8),
    },
  )
  result = run(tmp_path, 'video', '--videos', str(tmp_path / 'list.txt'), truth='truth.pkl')
  assert (result['video_mAP@0.5'], result['counts']['videos']) == (1.0, 1)


@pytest.mark.parametrize(
  'text',
  [
    'run/a b.c\n',  # the name as it is
    'run/a b.c 101\nother/v_x.avi 3\n',  # a class number behind it, and a video of another class
    'run/a b.c.avi\n\nrun/lost.avi 2\n',  # a suffix, and a video without annotations
    '\ufeffrun/a b.c.MKV\t7\nrun/a b.c\n',
  ],
)
def test_names_with_dots_and_spaces_in_lists_of_other_classes_too(tmp_path, capsys, text):
  name = 'run/a b.c'
  truth = {
    'labels': ['catch', 'run'],
    'gttubes': {
      name: {1: [tube(3, 22, (20, 20, 40, 40))]},
      'run/a': {1: [tube(1, 9, (0, 0, 9, 9))]},
    },
    'nframes': {name: 30, 'run/a': 9},
  }
  detections = rows(name, range(3, 23), '20,20,40,40', 1, 0.8)
  write(tmp_path, {'truth.pkl': truth, 'detections.csv': detections, 'list.txt': text})
  result = run(tmp_path, 'video', '--videos', str(tmp_path / 'list.txt'), truth='truth.pkl')
  assert (result['video_mAP@0.5'], result['counts']['videos']) == (1.0, 1)
  told = (
    'list.txt: 1 of its videos have no ground truth and are left out' in capsys.readouterr().out
  )
  assert told == ('other/' in text or 'lost' in text)
