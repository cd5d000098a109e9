"""A video of synthetic people and its ground truth: reproducible, and correct."""

import csv
import re

import numpy as np
import pytest

from data_prep import synthetic_video
from data_prep.synthetic_video import BETWEEN, ENLARGED, FPS, PERIOD, SIZE
from evad_jax.errors import InputError
from evad_jax.formats import tube_csv
from evad_jax.synthetic.stick_figures import ACTIONS
from evad_jax.video import video_source

SECONDS = 5  # 40 frames: four actions and the beginning of a fifth


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  path = tmp_path_factory.mktemp('synthetic') / 'new' / 'people.mp4'
  synthetic_video.main(['--output', str(path), '--seconds', str(SECONDS), '--seed', '5'])
  return path


def read(path):
  with video_source.opened(video_source.find(str(path))) as source:
    return [(picture.rgb(), seconds) for seconds, picture, _ in source.pictures]


def truth_of(path):
  return path.with_name(f'{path.stem}_truth.csv')


def test_the_same_seed_gives_the_same_video(written, tmp_path):
  for seed, same in ((5, True), (6, False)):
    path = tmp_path / str(seed) / 'people.mp4'
    synthetic_video.main(['--output', str(path), '--seconds', str(SECONDS), '--seed', str(seed)])
    assert (truth_of(path).read_bytes() == truth_of(written).read_bytes()) == same
    equal = [np.array_equal(a, b) for (a, _), (b, _) in zip(read(path), read(written), strict=True)]
    assert all(equal) if same else not any(equal)


def test_pictures_are_the_frames_enlarged(written):
  shown = read(written)
  made = [frame for frame, _ in synthetic_video.frames(SECONDS, 2, 5)]
  assert len(shown) == len(made) == SECONDS * FPS
  assert [s for _, s in shown] == pytest.approx(np.arange(len(made)) / FPS, abs=1e-4)
  for (picture, _), frame in zip(shown, made, strict=True):
    assert picture.shape == (ENLARGED * SIZE, ENLARGED * SIZE, 3)
    middle = picture[ENLARGED // 2 :: ENLARGED, ENLARGED // 2 :: ENLARGED].astype(int)
    assert np.abs(middle - frame).mean() < 6  # the codec halves the resolution of colours


def test_truth_is_what_frames_say(written):
  """Boxes in pixels of the file; no rows while a person changes from one action to the next."""
  wanted = []
  for number, (_, found) in enumerate(synthetic_video.frames(SECONDS, 2, 5)):
    sure = BETWEEN <= number % PERIOD <= PERIOD - BETWEEN
    for person, (box, labels) in enumerate(found):
      assert sure or not labels.any()
      wanted += [
        (number + 1, *(ENLARGED * box).tolist(), label, f'{person}.{number // PERIOD}')
        for label in np.flatnonzero(labels)
      ]
  rows = list(csv.DictReader(truth_of(written).read_text().splitlines()))
  keys = ('x1', 'y1', 'x2', 'y2')
  assert wanted == [
    (int(row['frame']), *(float(row[k]) for k in keys), int(row['label']), row['tube_id'])
    for row in rows
  ]
  assert {row['video'] for row in rows} == {'people.mp4'}
  assert len(rows) > 20 and max(int(row['label']) for row in rows) < len(ACTIONS)


def test_the_scorer_reads_the_truth(written):
  truth = tube_csv.read_truth(truth_of(written))
  (tubes,) = truth.tubes.values()
  # One for each action of each person: no longer than the steps in which it is sure.
  assert len(tubes) >= 8
  assert max(len(tube.frames) for tube in tubes) == PERIOD - 2 * BETWEEN + 1


def test_boxes_are_where_people_are():
  """What changes from one frame to the next, beyond the background, changes in or near boxes."""
  made = list(synthetic_video.frames(10, 3, 1))
  assert all(len(found) == 3 for _, found in made)
  for (before, old), (after, new) in zip(made, made[1:], strict=False):
    apart = np.zeros((SIZE, SIZE), bool)
    for box, _ in (*old, *new):
      x1, y1, x2, y2 = (int(v) for v in np.round(box))
      assert 0 <= x1 < x2 <= SIZE and 0 <= y1 < y2 <= SIZE
      apart[max(0, y1 - 1) : y2 + 2, max(0, x1 - 1) : x2 + 2] = True
    change = np.abs(after.astype(int) - before).max(axis=-1)
    assert change[~apart].max() < 40 <= change.max()


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--people', '0'], '--people 0 --seconds 20.0 --seed 0: give 1 to 3 people'),
    (['--people', '4'], '--people 4'),
    (['--seconds', '0.1'], '--seconds 0.1 .* at least 1/8 of a second'),
    (['--seconds', '-1'], '--seconds -1.0'),
    (['--seconds', 'nan'], '--seconds nan'),
    (['--seconds', 'inf'], '--seconds inf'),
    (['--seed', '-1'], '--seed -1: .* a seed of 0 or more'),
    (['--output', 'people.avi'], 'people.avi: a video name ends with .mp4, .mov, .mkv'),
  ],
)
def test_bad_flags(tmp_path, monkeypatch, flags, words):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=words):
    synthetic_video.main(['--output', 'people.mp4', *flags])
  assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_when_it_fails(tmp_path, monkeypatch):
  names = ('a.mp4', 'a_truth.csv')
  for name in names:
    (tmp_path / name).write_text('old')

  def failing(*arguments):
    yield from [*real(*arguments)][:3]
    raise KeyboardInterrupt

  real = synthetic_video.frames
  monkeypatch.setattr(synthetic_video, 'frames', failing)
  with pytest.raises(KeyboardInterrupt):
    synthetic_video.main(['--output', str(tmp_path / 'a.mp4'), '--seconds', '1'])
  assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, 'old')
  monkeypatch.undo()
  (tmp_path / 'b.mp4').mkdir()
  with pytest.raises(InputError, match='b.mp4: cannot be .*: Is a directory'):
    synthetic_video.main(['--output', str(tmp_path / 'b.mp4'), '--seconds', '1'])


def test_what_it_tells(tmp_path, capsys):
  path = tmp_path / 'one.mkv'
  synthetic_video.main(['--output', str(path), '--seconds', '0.5', '--people', '1'])
  assert re.search(r'one.mkv: 0.5 seconds, 1 people', capsys.readouterr().out)
  assert len(read(path)) == 4
