"""Annotation pickles: malicious ones are refused by name; both layouts are read alike."""

import collections
import datetime
import pickle
from pathlib import Path

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.files.plain_pickle import load_plain_pickle
from evad_jax.formats.annotations import read_annotations
from evad_jax.formats.problems import Problems
from tests import external
from tests.formats.one_tube import NAME, act_content, pyannot_entry

SHARED = external.DATA / 'ucf24_mini'


def save(path: Path, content, protocol: int = 2) -> Path:
  path.write_bytes(pickle.dumps(content, protocol))
  return path


@pytest.mark.parametrize('content', [{NAME: pyannot_entry()}, act_content()])
def test_both_families_against_a_table(tmp_path, content):
  annotations = read_annotations(save(tmp_path / 'a.pkl', content))
  video = annotations.videos[NAME]
  assert (video.num_frames, video.height, video.width) == (9, 240, 320)
  (tube,) = video.tubes
  assert tube.label == 5 and tube.frames.tolist() == [3, 4]
  assert tube.boxes.tolist() == [[250, 10, 310, 110], [10, 200, 30, 240]]
  if annotations.classes:
    assert annotations.classes[5] == 'class5'
    assert annotations.train_videos == [[NAME]] and annotations.test_videos == [[]]


@pytest.mark.skipif(not SHARED.is_dir(), reason=external.missing(SHARED))
def test_both_families_agree_on_real_annotations():
  one = read_annotations(SHARED / 'pyannot_mini.pkl').videos
  two = read_annotations(SHARED / 'UCF24mini-GT.pkl').videos
  assert one.keys() == two.keys() and len(one) == 24
  for name in one:
    assert one[name][:3] == two[name][:3]
    tubes = [
      sorted((t.label, t.frames.tolist(), t.boxes.tolist()) for t in v[name].tubes)
      for v in (one, two)
    ]
    assert tubes[0] == tubes[1]


class Hostile:
  """Runs a function when it is unpickled."""

  def __init__(self, function, *arguments):
    self.call = (function, arguments)

  def __reduce__(self):
    return self.call


def touch(path: str) -> None:
  Path(path).touch()


@pytest.mark.parametrize('protocol', range(6))
def test_code_is_refused_by_name_and_not_run(tmp_path, protocol):
  victim = tmp_path / 'victim'
  bad = {NAME: pyannot_entry() | {'numf': Hostile(touch, str(victim))}}
  with pytest.raises(InputError, match=r'asks for tests\.formats\.test_annotations\.touch'):
    read_annotations(save(tmp_path / 'bad.pkl', bad, protocol))
  assert not victim.exists()


@pytest.mark.parametrize(
  ('content', 'name'),
  [
    (Hostile(eval, '1'), r'builtins__\.eval|builtin__\.eval|builtins\.eval'),
    (Hostile(getattr, 'a', 'b'), 'getattr'),
    (datetime.date(2024, 1, 1), r'datetime\.date'),
    (np.ma.zeros(3), 'numpy.ma'),
    (Hostile(__import__('codecs').encode, 'a', 'rot13'), "codec 'rot13'"),
  ],
)
def test_what_is_not_plain_is_named(tmp_path, content, name):
  with pytest.raises(InputError, match=name):
    load_plain_pickle(save(tmp_path / 'bad.pkl', content))


@pytest.mark.parametrize('protocol', range(2, 6))
def test_plain_data_pass(tmp_path, protocol):
  content = collections.OrderedDict(
    counts=collections.defaultdict(list, a=[1, 2.5, None, True]),
    text=('é', b'\xff\x00', np.str_('x')),
    array=np.arange(6, dtype=np.uint16).reshape(2, 3),
    fortran=np.asfortranarray(np.ones((2, 2), np.float32)),
    scalar=np.float32(1.5),
    sets={1, 2},
  )
  got = load_plain_pickle(save(tmp_path / 'a.pkl', content, protocol))
  arrays = {key: np.asarray(got[key]) for key in ('array', 'fortran')}
  assert repr(collections.OrderedDict(got | arrays)) == repr(content)
  assert arrays['fortran'].flags.f_contiguous and type(arrays['array']) is np.ndarray


def test_python_2_text_is_latin1(tmp_path):
  path = tmp_path / 'two.pkl'
  path.write_bytes(b'\x80\x02U\x02\xe9a.')  # the SHORT_BINSTRING that Python 2 wrote
  assert load_plain_pickle(path) == 'éa'


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04', b'\x80\x02}', b'\x80\x02K\x01'])
def test_no_pickle(tmp_path, content):
  (tmp_path / 'a.pkl').write_bytes(content)
  with pytest.raises(InputError, match='not a complete pickle'):
    load_plain_pickle(tmp_path / 'a.pkl')
  with pytest.raises(InputError, match='cannot be read'):
    load_plain_pickle(tmp_path / 'missing.pkl')


def wrong_length() -> dict:
  entry = pyannot_entry()
  entry['annotations'][0]['ef'] = 9
  return {NAME: entry}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ([1, 2], 'neither'),
    ({}, 'neither'),
    ({NAME: 3}, 'unexpected form'),
    (wrong_length(), 'v_Diving_g01_c01: bad tube: frames 3 to 8 have 2 boxes'),
    (act_content() | {'resolution': {}}, 'unexpected form'),
  ],
)
def test_other_layouts_are_refused(tmp_path, content, message):
  with pytest.raises(InputError, match=message):
    read_annotations(save(tmp_path / 'a.pkl', content))


def test_a_bad_tube_is_left_out_where_problems_are_listed(tmp_path):
  """A repeated frame loses its second row; a tube out of order is left out."""
  content = act_content()
  (good,) = content['gttubes'][NAME][5]
  twice = good[[0, 0, 1]] + np.array([[0, 0, 0, 0, 0], [0, 9, 9, 9, 9], [0, 0, 0, 0, 0]])
  content['gttubes'][NAME] = {5: [good], 6: [twice, good[::-1]]}
  path = save(tmp_path / 'a.pkl', content)
  with pytest.raises(InputError, match='duplicate row: 1 rows repeat'):
    read_annotations(path)
  problems = Problems()
  tubes = read_annotations(path, problems).videos[NAME].tubes
  assert [(tube.label, tube.boxes.tolist()) for tube in tubes] == [
    (5, good[:, 1:].tolist()),
    (6, good[:, 1:].tolist()),
  ]
  assert problems.counts() == {'bad tube': 1, 'duplicate row': 1}
  assert problems.names('bad tube') == [NAME]
