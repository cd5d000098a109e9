"""The synthetic data set: reproducible bytes, true boxes and labels, uninformative keyframes.

Boxes and actions are measured from pixels (people differ from the grey by at least 80 levels in one
channel, the background by about 12), never from the parameters that drew them.
"""

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scipy.stats
import simplejpeg

from data_prep import synthetic
from evad_jax import command_line
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.records import RecordReader
from evad_jax.errors import InputError
from evad_jax.synthetic import clips as synthetic_clips
from evad_jax.synthetic import data_set, stick_figures
from evad_jax.synthetic.stick_figures import ACTIONS

SMALL = synthetic_clips.Settings(train=10, test=5, height=48, width=64, workers=1)
FIGURE_THRESHOLD = 45  # grey levels: half way from the background into an anti-aliased edge


def clips(count: int, **changes) -> list[synthetic_clips.Clip]:
  settings = dataclasses.replace(synthetic_clips.Settings(), **changes)
  return [synthetic_clips.make_clip(np.random.default_rng((7, i)), settings) for i in range(count)]


@pytest.fixture(scope='module')
def many_clips():
  return clips(200)


@pytest.fixture(scope='module')
def small_set(tmp_path_factory):
  directory = tmp_path_factory.mktemp('one_worker')
  data_set.generate(directory, SMALL)
  return directory


def read_all(directory) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


# Files


def test_workers_do_not_change_a_byte_and_the_seed_does(small_set, tmp_path):
  expected = read_all(small_set)
  data_set.generate(tmp_path / 'two', dataclasses.replace(SMALL, workers=2))
  assert read_all(tmp_path / 'two') == expected
  data_set.generate(tmp_path / 'seed', dataclasses.replace(SMALL, seed=1))
  other = read_all(tmp_path / 'seed')
  shards = [name for name in expected if 'tfrecord' in name]
  assert len(shards) == 5
  assert all(other[name] != expected[name] for name in shards)


def test_records_hold_the_clips(small_set):
  for split, count in (('train', SMALL.train), ('test', SMALL.test)):
    reader = RecordReader(RecordIndex.open(small_set, split))
    assert len(reader) == count
    numbers = set()
    for example in (reader[i] for i in range(count)):
      number = int(example.video.removeprefix(f'{split}_'))
      numbers.add(number)
      rng = np.random.default_rng((SMALL.seed, data_set.SPLITS.index(split), number))
      clip = synthetic_clips.make_clip(rng, SMALL)
      np.testing.assert_array_equal(example.boxes, clip.boxes)
      np.testing.assert_array_equal(example.labels, clip.labels)
      assert (example.height, example.width) == (48, 64)
      frames = np.array([simplejpeg.decode_jpeg(f) for f in example.frames])
      assert np.abs(frames.astype(float) - clip.frames).mean() < 3  # JPEG at quality 95
    assert numbers == set(range(count))


@pytest.mark.parametrize('stride', [1, 3])
def test_the_stored_frames_are_the_window_of_the_keyframe(stride):
  settings = dataclasses.replace(SMALL, clip_frames=6, frame_stride=stride)
  record = data_set.make_record(0, 'train', settings)
  centre = int(record.keyframes[0])
  window = range(centre - 6 * stride // 2, centre + 6 * stride // 2, stride)
  assert record.frame_numbers.tolist() == list(window)
  assert window[0] >= 0 and window[-1] < record.num_frames
  assert len(record.frames) == 6


def test_a_finished_set_is_replaced_only_when_told(small_set):
  before = read_all(small_set)
  with pytest.raises(InputError, match='--overwrite'):
    data_set.generate(small_set, SMALL)
  data_set.generate(small_set, SMALL, overwrite=True)
  assert read_all(small_set) == before


@pytest.mark.parametrize('settings', [SMALL, dataclasses.replace(SMALL, seed=1)])
def test_what_was_not_finished_is_done_again(small_set, tmp_path, monkeypatch, settings):
  with monkeypatch.context() as patch:  # it fails in the second split, after the first is complete
    patch.setitem(data_set.SHARDS, 'test', 0)
    with pytest.raises(ZeroDivisionError):
      data_set.generate(tmp_path, settings)
  assert (tmp_path / 'index-train.npz').exists()
  data_set.generate(tmp_path, SMALL)
  assert read_all(tmp_path) == read_all(small_set)


def test_another_data_set_is_never_mixed_in(tmp_path):
  (tmp_path / 'index-val.npz').write_bytes(b'')
  with pytest.raises(InputError, match='index-val.npz'):
    data_set.generate(tmp_path, SMALL, overwrite=True)


@pytest.mark.parametrize(
  'flags', [['--size', '64'], ['--size', '16x16'], ['--clip-frames', '7'], ['--train', '0']]
)
def test_bad_flags_exit_with_2_and_name_the_flag(flags, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['synthetic', '--output', str(tmp_path / 'no'), *flags])
  with pytest.raises(SystemExit) as error:
    command_line.run(synthetic.main)
  assert error.value.code == 2
  assert flags[0] in capsys.readouterr().err
  assert not (tmp_path / 'no').exists()


def test_the_command_line_writes_a_set(tmp_path):
  command = [sys.executable, '-m', 'data_prep.synthetic', '--output', str(tmp_path / 'made')]
  command += ['--train', '3', '--test', '2', '--size', '32x48', '--workers', '1', '--hard']
  subprocess.run(command, check=True, capture_output=True)
  index = RecordIndex.open(tmp_path / 'made', 'train')
  assert len(index) == 3
  assert list(index.classes) == list(ACTIONS)
  assert index.heights.tolist() == [32] * 3 and index.widths.tolist() == [48] * 3


# Boxes


def figure_mask(frame: np.ndarray) -> np.ndarray:
  """(H, W, 3) -> (H, W) bool: True where the pixels differ from the picture's border."""
  border = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]]).astype(float)
  return np.abs(frame - np.median(border, 0)).max(-1) > FIGURE_THRESHOLD


@pytest.mark.parametrize('size', [(64, 64), (64, 80), (96, 48)])
def test_boxes_are_tight_around_the_pixels_of_the_keyframe(size):
  height, width = size
  alone = [c for c in clips(60, height=height, width=width) if len(c.boxes) == 1]
  assert len(alone) >= 10
  for clip in alone:
    rows, columns = np.nonzero(figure_mask(clip.frames[len(clip.frames) // 2]))
    measured = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    box = clip.boxes[0] * np.array([width, height] * 2)
    np.testing.assert_allclose(box, measured, atol=1.01)  # the anti-aliased edge pixel


def test_people_are_one_to_three_inside_the_picture_and_visible(many_clips):
  counts = np.bincount([len(c.boxes) for c in many_clips], minlength=4)
  assert counts[0] == 0 and len(counts) == 4
  assert (counts[1:] > 0.15 * len(many_clips)).all()
  for clip in many_clips:
    assert (clip.boxes >= 0).all() and (clip.boxes <= 1).all()
    shape = clip.frames.shape[1:3]
    masks = [stick_figures.person_mask(shape, p, p.pose) for p in clip.people]
    for i, mask in enumerate(masks):
      in_front = np.any([np.zeros_like(mask), *masks[i + 1 :]], axis=0)
      assert (mask & ~in_front).sum() >= synthetic_clips.MIN_VISIBLE * mask.sum()


# Labels


def nearest_part(frame: np.ndarray, colours: np.ndarray) -> np.ndarray:
  """(H, W) int: 0 shirt, 1 trousers, 2 skin where the pixel has nearly that colour, else 3."""
  distance = np.abs(frame[:, :, None].astype(float) - colours.astype(float)).sum(-1)
  return np.where(distance.min(-1) < 40, distance.argmin(-1), 3)


def cut_around(mask: np.ndarray, centre: np.ndarray) -> np.ndarray:
  """The mask shifted, with subpixel precision, so that `centre` (x, y) is in the middle."""
  middle = np.array(mask.shape[::-1]) / 2
  matrix = np.column_stack([np.eye(2), middle - centre])
  return cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1])


def measured_actions(clip: synthetic_clips.Clip) -> set[str]:
  """The actions of a clip's only person, from the positions of shirt, trousers and skin."""
  shirts, feet, skins = [], [], []
  for frame in clip.frames:
    part = nearest_part(frame, clip.people[0].colours)
    rows, columns = np.nonzero(part == 0)
    shirts.append([columns.mean(), rows.mean()])
    feet.append(np.nonzero((part == 1).any(1))[0].max())
    skins.append(cut_around(part == 2, np.array(shirts[-1])))
  shirts, times = np.array(shirts), np.arange(len(clip.frames))
  slope_x, slope_y = (np.polyfit(times, shirts[:, axis], 1)[0] for axis in (0, 1))
  found = set()
  if abs(slope_x) > 1:
    found.add('walk')
  elif np.ptp(feet) >= 4:
    found.add('jump')
  elif abs(slope_y) > 0.6:
    found.add('crouch' if slope_y > 0 else 'rise')
  key = skins[len(skins) // 2]
  overlap = [np.minimum(s, key).sum() / np.maximum(s, key).sum() for s in skins]
  if np.median(overlap) < 0.75:
    found.add('wave')
  return found or {'stand'}


def in_full_view(clip: synthetic_clips.Clip) -> bool:
  """One person in three distinct colours, never touching the picture's border."""
  if len(clip.people) > 1:
    return False
  colours = clip.people[0].colours.astype(float)
  if min(np.abs(a - b).sum() for a, b in zip(colours, np.roll(colours, 1, 0), strict=True)) < 150:
    return False
  masks = np.array([figure_mask(frame) for frame in clip.frames])
  return not (masks[:, [0, -1]].any() or masks[:, :, [0, -1]].any())


def test_labels_are_what_the_pixels_do():
  seen = [c for c in clips(160, height=96, width=96) if in_full_view(c)]
  labels = [{a for a, on in zip(ACTIONS, c.labels[0], strict=True) if on} for c in seen]
  wrong = [
    (told, m) for c, told in zip(seen, labels, strict=True) if (m := measured_actions(c)) != told
  ]
  assert len(seen) >= 20
  assert set().union(*labels) == set(ACTIONS)
  assert len(wrong) <= 0.03 * len(seen), wrong


def test_every_action_is_frequent_and_nobody_does_nothing():
  rng = np.random.default_rng(0)
  labels = np.array([stick_figures.sample_motion(rng)[1] for _ in range(4000)])
  assert (labels.mean(0) > 0.15).all()
  assert (labels.mean(0) < 0.35).all()
  assert set(labels.sum(1)) == {1, 2}


# Keyframes


def appearance(clip: synthetic_clips.Clip, frame: int) -> list[list[float]]:
  """Box, pose and colours of every person in a frame: numbers that could reveal the action."""
  rows = []
  shape = clip.frames.shape[1:3]
  for person in clip.people:
    pose = stick_figures.pose_at(person, frame - len(clip.frames) // 2)
    mask = stick_figures.person_mask(shape, person, pose)
    y, x = np.nonzero(mask)
    pixels = clip.frames[frame][mask].astype(float)
    row = [x.min(), y.min(), np.ptp(x), np.ptp(y), x.mean(), y.mean(), mask.sum()]
    row += [pose.crouch, pose.spread, abs(pose.spread), *pose.arms, *pixels.mean(0)]
    rows.append(row)
  return rows


def smallest_p(many_clips, frame: int) -> np.ndarray:
  """(A,): over the appearance's numbers, the least Kolmogorov-Smirnov p, with against without."""
  rows = np.array([row for c in many_clips for row in appearance(c, frame)])
  labels = np.concatenate([c.labels for c in many_clips]).astype(bool)
  return np.array(
    [
      min(scipy.stats.ks_2samp(column[on], column[~on]).pvalue for column in rows.T)
      for on in labels.T
    ]
  )


def test_the_keyframe_tells_nothing_of_the_action(many_clips):
  # 6 actions x 15 numbers: the least of 90 p-values falls below 1e-4 once in a hundred data sets.
  assert (smallest_p(many_clips, 4) > 1e-4).all()


def test_the_same_check_finds_the_crouch_in_the_first_frame(many_clips):
  p = smallest_p(many_clips, 0)
  assert p[ACTIONS.index('crouch')] < 1e-10
  assert p[ACTIONS.index('rise')] < 1e-10
