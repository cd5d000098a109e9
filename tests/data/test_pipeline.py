"""The stream of batches: content, order, epochs, hosts, threads, worker processes, resuming."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from evad_jax.data import augment
from evad_jax.data.pipeline import eval_batches, train_batches
from tests.data.toy_records import (
  KEYFRAMES,
  NUM_EXAMPLES,
  NUM_FRAMES,
  SETTINGS,
)


def _first(count, index, settings=SETTINGS, **arguments):
  """The first batches of a training run."""
  arguments = {'seed': 1, 'batch_size': 4, 'threads': 1, 'prefetch': 2} | arguments
  with train_batches(index, settings, **arguments) as batches:
    return list(itertools.islice(batches, count))


def _all_eval(index, settings=SETTINGS, **arguments):
  with eval_batches(index, settings, **{'batch_size': 4} | arguments) as batches:
    return list(batches)


def _arrays(batch):
  return [*(field for field in batch if field is not batch.targets), *batch.targets]


def _assert_equal(ours, theirs):
  assert len(ours) == len(theirs) > 0
  for a, b in zip(ours, theirs, strict=True):
    for x, y in zip(_arrays(a), _arrays(b), strict=True):
      assert type(x) is type(y) is np.ndarray and x.dtype == y.dtype
      np.testing.assert_array_equal(x, y)


def _numbers(batches):
  return np.concatenate([batch.index for batch in batches]).tolist()


def _mirrored(batch):
  """(B,) bool, read off the blue of the pictures' left edge."""
  return batch.clips[:, 0, 4, 2, 2] > 128


EXAMPLES = [(video, keyframe) for video in range(4) for keyframe in KEYFRAMES[video]]


def test_content_of_every_example(index):
  batches = _all_eval(index)
  clips = np.concatenate([batch.clips for batch in batches])
  sizes = np.concatenate([batch.sizes for batch in batches])
  assert clips.shape == (12, 4, 32, 48, 3) and clips.dtype == np.uint8
  for number, (video, keyframe) in enumerate(EXAMPLES):
    height, width = (24, 48) if video < 3 else (32, 16)
    assert sizes[number].tolist() == [height, width]
    for t, offset in enumerate((-4, -2, 0, 2)):
      frame = min(max(keyframe + offset, 0), NUM_FRAMES - 1)
      level = clips[number, t, 2, 2].astype(int)
      np.testing.assert_allclose(level, [20 * frame, 50 * video, 0], atol=4)
      assert clips[number, t, 2, width - 2, 2] > 250
    assert not clips[number, :, height:].any() and not clips[number, :, :, width:].any()


def test_targets_of_every_example(index):
  batches = _all_eval(index)
  boxes, labels, mask = (np.concatenate([batch.targets[i] for batch in batches]) for i in range(3))
  as_annotated = np.concatenate([batch.frame_boxes for batch in batches])
  for number, (video, keyframe) in enumerate(EXAMPLES):
    count = KEYFRAMES[video].index(keyframe) % 3
    assert mask[number].tolist() == [place < count for place in range(3)]
    expected = [12, 6, 24, 18] if video < 3 else [4, 8, 8, 24]  # 48 x 24 and 16 x 32 pictures
    np.testing.assert_allclose(boxes[number, :count], np.tile(expected, (count, 1)), atol=1e-5)
    annotated = np.tile([0.25, 0.25, 0.5, 0.75], (count, 1))
    np.testing.assert_allclose(as_annotated[number, :count], annotated)
    first = {0: 0, 1: 0, 2: 1}[count]  # row in the video's list of boxes
    assert (labels[number, :count] == np.eye(3)[first : first + count]).all()
    assert not boxes[number, count:].any() and not labels[number, count:].any()


@pytest.mark.parametrize(
  ('batch_size', 'process_count'), [(4, 1), (4, 2), (1, 1), (16, 2), (24, 3)]
)
def test_evaluation_covers_every_example_once_in_order(index, batch_size, process_count):
  streams = [
    _all_eval(index, batch_size=batch_size, process_index=i, process_count=process_count)
    for i in range(process_count)
  ]
  assert {len(stream) for stream in streams} == {math.ceil(NUM_EXAMPLES / batch_size)}
  interleaved = [batch for step in zip(*streams, strict=True) for batch in step]
  numbers = np.array(_numbers(interleaved))
  mask = np.concatenate([batch.example_mask for batch in interleaved])
  assert numbers[mask].tolist() == list(range(NUM_EXAMPLES))
  assert (numbers[~mask] == -1).all() and mask[:NUM_EXAMPLES].all()
  filler = [batch for batch in interleaved if not batch.example_mask.any()]
  assert all(not batch.clips.any() and not batch.targets.box_mask.any() for batch in filler)


def test_every_epoch_is_exact_and_has_its_own_order(index):
  epochs = np.array(_numbers(_first(11, index))).reshape(4, NUM_EXAMPLES)  # batches straddle ends
  assert (np.sort(epochs, axis=1) == np.arange(NUM_EXAMPLES)).all()
  assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_the_seed_decides(index):
  _assert_equal(_first(4, index), _first(4, index))
  one, two = _first(11, index), _first(11, index, seed=2)
  assert _numbers(one) != _numbers(two)
  assert any((_mirrored(a) != _mirrored(b)).any() for a, b in zip(one, two, strict=True))


def test_flips_are_fair_and_change_from_epoch_to_epoch(index):
  batches = _first(44, index)  # 16 epochs
  flips = np.concatenate([_mirrored(batch) for batch in batches])
  assert 60 < flips.sum() < 116  # 176 draws: 88 +- 4 standard deviations
  numbers = np.array(_numbers(batches))
  for number in range(NUM_EXAMPLES):
    assert len(set(flips[numbers == number])) == 2


@pytest.mark.parametrize('probability', [0.0, 1.0])
def test_flip_probability(index, probability):
  settings = dataclasses.replace(SETTINGS, flip_probability=probability)
  batches = _first(3, index, settings)
  assert all((_mirrored(batch) == bool(probability)).all() for batch in batches)
  # x of the box: 12 to 24 of 48 pixels; 6 to 12 of 24, mirrored to 11 to 17, at a scale of 2/3.
  expected = {48: [23, 35], 16: [22 / 3, 34 / 3]} if probability else {48: [12, 24], 16: [4, 8]}
  for batch in batches:
    for place in np.flatnonzero(batch.targets.box_mask[:, 0]):
      x = batch.targets.boxes[place, 0, [0, 2]]
      np.testing.assert_allclose(x, expected[int(batch.sizes[place, 1])], atol=1e-4)


def test_threads_do_not_matter(index):
  one = _first(8, index, threads=1, prefetch=1)
  _assert_equal(one, _first(8, index, threads=8, prefetch=8))
  _assert_equal(one, _first(8, index, threads=0, prefetch=0))


def test_worker_processes_do_not_matter(index):
  _assert_equal(_first(7, index), _first(7, index, workers=2))


def test_resuming_at_every_step_gives_the_tail(index):
  whole = _first(9, index)
  for step in range(1, 9):
    _assert_equal(_first(9 - step, index, start_step=step), whole[step:])


@pytest.mark.parametrize('start_step', [0, 5])
def test_two_processes_share_each_global_batch(index, start_step):
  whole = _first(6, index, start_step=start_step)
  halves = [
    _first(6, index, start_step=start_step, process_index=i, process_count=2) for i in range(2)
  ]
  for batch, *parts in zip(whole, *halves, strict=True):
    for array, a, b in zip(_arrays(batch), *map(_arrays, parts), strict=True):
      np.testing.assert_array_equal(array, np.concatenate([a, b]))


def test_a_batch_larger_than_the_split(index):
  numbers = _numbers(_first(1, index, batch_size=33))
  assert np.bincount(numbers).tolist() == [3] * NUM_EXAMPLES


def test_keyframe_only_repeats_the_keyframe_and_decodes_it_once(index, monkeypatch):
  decoded, decode = [], augment.decode_frame
  monkeypatch.setattr(
    augment, 'decode_frame', lambda *a, **k: decoded.append(k['frame']) or decode(*a, **k)
  )
  settings = dataclasses.replace(SETTINGS, keyframe_only=True)
  batches = _all_eval(index, settings, batch_size=11, threads=0)
  assert decoded == [keyframe for _, keyframe in EXAMPLES]
  still, moving = batches[0].clips, _all_eval(index, batch_size=11)[0].clips
  assert (still == moving[:, 2:3]).all()


def test_a_frame_is_decoded_once_in_a_batch(index, monkeypatch):
  decoded, decode = [], augment.decode_frame
  monkeypatch.setattr(
    augment, 'decode_frame', lambda *a, **k: decoded.append(k['frame']) or decode(*a, **k)
  )
  (together,) = _all_eval(index, batch_size=11, threads=0)
  assert decoded[:5] == [0, 2, 1, 3, 5]  # keyframes 0 (frames 0 0 0 2) and 3 (0 1 3 5)
  assert decoded[5:8] == [7, 9, 11]  # keyframe 11 (7 9 11 11)
  assert decoded[8:12] == [1, 3, 5, 7]  # the second video has frames of its own
  apart = _all_eval(index, batch_size=1, threads=0)
  np.testing.assert_array_equal(together.clips, np.concatenate([batch.clips for batch in apart]))


def test_a_mirrored_frame_is_another_frame(index):
  settings = dataclasses.replace(SETTINGS, flip_probability=0.5)
  (batch,) = _first(1, index, settings, batch_size=44)
  mirrored = _mirrored(batch)
  assert 5 < mirrored.sum() < 39
  for number in range(NUM_EXAMPLES):
    same = batch.clips[(batch.index == number) & mirrored]
    other = batch.clips[(batch.index == number) & ~mirrored]
    assert (same == same[:1]).all() and (other == other[:1]).all()
