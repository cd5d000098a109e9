"""Lists of videos: the forms in which splits are published, and names with dots and spaces."""

import pytest

from data_prep.common.splits import read_list
from evad_jax.errors import InputError
from evad_jax.formats import video_lists

KNOWN = ['run/v.1', 'run/a b 2', 'run/a b', 'jump/c.avi', 'd']


def listed(tmp_path, text):
  (tmp_path / 'list.txt').write_bytes(text.encode())
  return tmp_path / 'list.txt'


@pytest.mark.parametrize(
  ('line', 'name'),
  [
    ('run/v.1', 'run/v.1'),
    ('run/v.1.avi', 'run/v.1'),
    ('run/v.1.AVI 12', 'run/v.1'),
    ('run/a b 2', 'run/a b 2'),  # the number belongs to the name, where there is such a name
    ('run/a b 3', 'run/a b'),
    ('run/a b 2 3', 'run/a b 2'),
    ('run/a b.mp4\t3 ', 'run/a b'),
    ('jump/c.avi', 'jump/c.avi'),
    ('jump/c.avi.mkv 1', 'jump/c.avi'),
    ('d', 'd'),
  ],
)
def test_names_are_told_by_what_is_known(tmp_path, line, name):
  assert video_lists.read(listed(tmp_path, line + '\r\n'), KNOWN) == ([name], [])


def test_others_are_told_apart_and_each_is_there_once(tmp_path):
  text = 'Archery/v_A_g01.avi 3\nd\n\nrun/lost.b.webm\nd 7\nArchery/v_A_g01.avi 3\n'
  assert video_lists.read(listed(tmp_path, text), KNOWN) == (
    ['d'],
    ['Archery/v_A_g01', 'run/lost.b'],
  )
  with pytest.raises(InputError, match='list.txt is empty'):
    video_lists.read(listed(tmp_path, '\n'), KNOWN)


def test_preparation_reads_them_by_the_same_rule(tmp_path):
  """Videos of other classes are left out; those without annotations are reported later."""
  path = listed(tmp_path, 'run/v.1.avi 4\nrun/a b 2\nArchery/v_A.avi 3\nrun/lost.b.avi 4\n')
  assert read_list(path, ('run', 'jump'), KNOWN) == ['run/a b 2', 'run/lost.b', 'run/v.1']
  with pytest.raises(InputError, match='lists no video of the 1 classes'):
    read_list(path, ('walk',), KNOWN)
