"""Clips for pre-training: which frames, order, epochs, hosts, copies, resuming, bad records."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
import simplejpeg

from data_prep.common.clip_records import Settings, Spread, plan_runs
from evad_jax.data import augment, multi_scale_crop, unreadable
from evad_jax.data.clip_sampling import stored_clips
from evad_jax.data.pretraining import (
  ChooseClip,
  PretrainingClips,
  clips_per_epoch,
  held_out_clips,
  train_clips,
  videos_of,
)
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.record_writer import write_dataset_metadata, write_split
from evad_jax.data.records import Record, RecordReader
from evad_jax.errors import InputError
from evad_jax.synthetic import data_set
from evad_jax.synthetic.clips import Settings as SyntheticSettings
from tests.data.toy_records import encoded_frame, make_record, write_toy

CLIPS = PretrainingClips(clip_frames=4, frame_stride=2, canvas=32)
LENGTHS = (30, 5, 12, 3, 8, 1, 26)  # frames of the videos; a clip spans 8
HEIGHT, WIDTH = 24, 40


def whole_videos(directory, lengths=LENGTHS, run=6):
  """Videos as data_prep.unlabelled stores them, in records of `run` clips."""
  settings = Settings(4, 2, keyframes_per_record=run)

  def records():
    for video, length in enumerate(lengths):
      frames = [encoded_frame(video % 5, n % 13, HEIGHT, WIDTH) for n in range(length)]
      for part in plan_runs(Spread(0, 0, 4, 2).keyframes(length), length, settings):
        numbers = part.frame_numbers
        yield Record(
          *(f'video_{video}', 25.0, length, HEIGHT, WIDTH, [frames[n] for n in numbers]),
          *(numbers, part.keyframes, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)),
          np.zeros((0, 1), np.uint8),
        )

  write_split(directory, 'unlabelled', 'train', 1, 2, records())
  write_dataset_metadata(directory, 'unlabelled', ['none'], clip_frames=4, frame_stride=2)
  return RecordIndex.open(directory, 'train')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  return whole_videos(tmp_path_factory.mktemp('whole'))


def first(count, index, settings=CLIPS, **arguments):
  arguments = {'seed': 1, 'batch_size': 4, 'threads': 1, 'prefetch': 2} | arguments
  with train_clips(index, settings, **arguments) as batches:
    return list(itertools.islice(batches, count))


def held_out(index, settings=CLIPS, **arguments):
  with held_out_clips(index, settings, **{'batch_size': 3} | arguments) as batches:
    return list(batches)


def assert_equal(ours, theirs):
  assert len(ours) == len(theirs) > 0
  for a, b in zip(ours, theirs, strict=True):
    for x, y in zip(a, b, strict=True):
      assert type(x) is type(y) is np.ndarray and x.dtype == y.dtype
      np.testing.assert_array_equal(x, y)


def numbers_of(clips):
  """(B, T), the numbers of the frames, read off their red, modulo 13."""
  return np.rint(clips[..., 0].mean(axis=(2, 3)) / 20).astype(int)


def choose(index, settings=CLIPS):
  return ChooseClip(RecordReader(index), videos_of(index, settings), settings)


def frames_of(view):
  return [view.frame_numbers[place] for place in view.order]


# Which frames


def test_starts_are_uniform_over_a_video_in_several_records(videos):
  chosen, generator = choose(videos), np.random.default_rng(0)
  assert (videos.record_video == 'video_0').sum() == 4
  views = [chosen(0, generator) for _ in range(1380)]
  starts = collections.Counter(frames_of(view)[0] for view in views)
  assert sorted(starts) == list(range(30 - 4 * 2 + 1))  # 0 to F - T * stride
  assert all(28 < count < 92 for count in starts.values())  # 60 +- 4 standard deviations
  for view in views[:200]:
    start = frames_of(view)[0]
    assert frames_of(view) == [start, start + 2, start + 4, start + 6]
    assert videos.videos[view.number] == view.video == 'video_0'


@pytest.mark.parametrize('video', [1, 3, 5])
def test_the_last_reachable_frame_of_a_short_video_repeats(videos, video):
  length, frame, expected = LENGTHS[video], 0, []
  for _ in range(4):
    expected.append(frame)
    if frame + 2 < length:
      frame += 2
  chosen, generator = choose(videos), np.random.default_rng(0)
  for _ in range(20):
    view = chosen(video, generator)
    assert frames_of(view) == expected and len(view.frames) == len(set(expected))


@pytest.mark.parametrize('video', [0, 2, 4, 6])
def test_the_middle_clip_is_held_out(videos, video):
  start = (LENGTHS[video] - 8) // 2
  assert frames_of(choose(videos)(video)) == [start, start + 2, start + 4, start + 6]


@pytest.mark.parametrize(
  ('stored', 'num_frames', 'expected'),
  [
    # Every other frame, as for thinned-out keyframes; 8 frames of the video follow from a start on.
    (range(0, 14, 2), 14, [[0, 2, 4, 6], [2, 4, 6, 8], [4, 6, 8, 10], [6, 8, 10, 12]]),
    (range(0, 14, 2), 13, [[0, 2, 4, 6], [2, 4, 6, 8], [4, 6, 8, 10]]),
    ([3, 5, 7, 9, 30, 32, 34, 36], 90, [[3, 5, 7, 9], [30, 32, 34, 36]]),
    ([0, 1, 3], 90, [[1, 3, 3, 3]]),  # the clip of keyframe 1
    ([85, 87, 89], 90, [[85, 87, 89, 89]]),  # of keyframe 89
    ([0], 1, [[0, 0, 0, 0]]),
    ([0, 1, 2, 3, 4, 5, 6], 7, [[0, 2, 4, 6]]),  # 8 frames do not follow, but 4 can be reached
  ],
)
def test_clips_in_records_of_any_kind(stored, num_frames, expected):
  stored = np.array(stored)
  assert stored[stored_clips(stored, num_frames, 4, 2, 'v')].tolist() == expected


def test_frames_that_are_too_far_apart_are_an_error():
  with pytest.raises(InputError, match="'v': its record holds no clip of 4 frames, 1 apart"):
    stored_clips(np.arange(0, 20, 2), 20, 4, 1, 'v')


def test_longer_clips_than_prepared_are_refused(videos):
  with pytest.raises(InputError, match='up to 4 frames, 2 apart, which is less than 5, 2 apart'):
    clips_per_epoch(videos, dataclasses.replace(CLIPS, clip_frames=5))
  assert clips_per_epoch(videos, dataclasses.replace(CLIPS, frame_stride=1)) == len(LENGTHS)


def test_long_videos_count_as_several(videos):
  settings = dataclasses.replace(CLIPS, piece_frames=8)  # 23 and 19 clips: 3 and 2 pieces
  pieces = videos_of(videos, settings)
  spans = [videos.keyframes[pieces[piece]].tolist() for piece in range(len(pieces))]
  assert sorted(np.concatenate([pieces[piece] for piece in range(len(pieces))])) == list(
    range(len(videos))
  )
  assert [len(span) for span in spans[:3]] == [8, 8, 7]
  assert len(pieces) == len(LENGTHS) + 2 + 1
  assert all(span == list(range(span[0], span[-1] + 1)) for span in spans)


def test_boxes_and_labels_are_not_read(tmp_path):
  index = write_toy(tmp_path, [make_record(video) for video in range(4)])
  (batch,) = first(1, index, batch_size=8)
  assert batch._fields == ('clips', 'example_mask', 'index')
  assert batch.clips.shape == (8, 4, 32, 32, 3) and batch.example_mask.all()
  numbers = numbers_of(batch.clips)
  assert (np.diff(numbers) == 2).all() and numbers.max() <= 10


def test_the_synthetic_set(tmp_path):
  data_set.generate(
    tmp_path, SyntheticSettings(height=32, width=32, train=4, test=2, clip_frames=4, workers=1)
  )
  settings = PretrainingClips(4, 1, 32)
  (batch,) = first(1, RecordIndex.open(tmp_path, 'train'), settings)
  assert sorted(batch.index.tolist()) == [0, 1, 2, 3] and batch.clips.std() > 5
  (test,) = held_out(RecordIndex.open(tmp_path, 'test'), settings, batch_size=2)
  example = RecordReader(RecordIndex.open(tmp_path, 'test'))[1]
  for frame, jpeg in zip(test.clips[1], example.frames, strict=True):
    expected = augment.decode_frame(jpeg, video='', frame=0, size=(32, 32))
    assert (frame == expected).all()


# Batches


def test_every_epoch_has_one_clip_of_every_video_in_its_own_order(videos):
  batches = first(7, videos)
  drawn = [str(videos.videos[number]) for batch in batches for number in batch.index]
  epochs = [drawn[start : start + 7] for start in range(0, 28, 7)]  # batches straddle ends
  assert all(sorted(epoch) == sorted(set(videos.record_video)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 4
  for batch in batches:
    clips = zip(videos.videos[batch.index], numbers_of(batch.clips), strict=True)
    for name, numbers in clips:
      if LENGTHS[int(name[-1])] >= 8:
        assert ((numbers - numbers[0]) % 13 == [0, 2, 4, 6]).all()


def test_the_seed_decides(videos):
  assert_equal(first(4, videos), first(4, videos))
  others = first(4, videos, seed=2)
  assert any((a.index != b.index).any() for a, b in zip(first(4, videos), others, strict=True))


def test_threads_and_worker_processes_do_not_matter(videos):
  one = first(6, videos)
  assert_equal(one, first(6, videos, threads=8, prefetch=8))
  assert_equal(one, first(6, videos, threads=0, prefetch=0))
  assert_equal(one[:3], first(3, videos, workers=1))


def test_resuming_at_every_step_gives_the_tail(videos):
  whole = first(9, videos)
  for step in range(1, 9):
    assert_equal(first(9 - step, videos, start_step=step), whole[step:])


@pytest.mark.parametrize('copies', [1, 2])
@pytest.mark.parametrize('start_step', [0, 5])
def test_two_processes_share_each_global_batch(videos, start_step, copies):
  settings = dataclasses.replace(CLIPS, copies=copies)
  whole = first(5, videos, settings, start_step=start_step)
  halves = [
    first(5, videos, settings, start_step=start_step, process_index=i, process_count=2)
    for i in range(2)
  ]
  for batch, *parts in zip(whole, *halves, strict=True):
    for array, a, b in zip(batch, *parts, strict=True):
      np.testing.assert_array_equal(array, np.concatenate([a, b]))


@pytest.mark.parametrize(('batch_size', 'process_count'), [(3, 1), (4, 2), (8, 1)])
def test_every_video_is_held_out_once(videos, batch_size, process_count):
  streams = [
    held_out(videos, batch_size=batch_size, process_index=i, process_count=process_count)
    for i in range(process_count)
  ]
  batches = [batch for step in zip(*streams, strict=True) for batch in step]
  mask, numbers = (np.concatenate([batch[i] for batch in batches]) for i in (1, 2))
  assert videos.videos[numbers[mask]].tolist() == [f'video_{video}' for video in range(7)]
  assert mask[:7].all() and (numbers[~mask] == -1).all()
  assert not np.concatenate([batch.clips for batch in batches])[~mask].any()


@pytest.fixture(scope='module')
def still(tmp_path_factory):
  """Two videos of 8 frames, each of one picture of noise in its middle square, black outside."""
  records = []
  for video in range(2):
    picture = np.zeros((40, 64, 3), np.uint8)
    noise = np.random.default_rng(video).integers(60, 256, (10, 10, 3), np.uint8)
    picture[:, 12:52] = np.kron(noise, np.ones((4, 4, 1), np.uint8))
    jpeg = simplejpeg.encode_jpeg(picture, 98, 'RGB', '444')
    records.append(
      make_record(0)._replace(
        **{'video': f'v{video}', 'num_frames': 8, 'height': 40, 'width': 64},
        **{'frames': [jpeg] * 8, 'frame_numbers': np.arange(8), 'keyframes': np.array([0, 3, 4])},
      )
    )
  return write_toy(tmp_path_factory.mktemp('still'), records)


def test_all_frames_of_a_clip_have_the_same_crop_and_copies_have_others(still, monkeypatch):
  decoded, decode = [], augment.decode_frame
  monkeypatch.setattr(
    augment, 'decode_frame', lambda *a, **k: decoded.append(k['frame']) or decode(*a, **k)
  )
  settings = dataclasses.replace(CLIPS, copies=4)
  batches = first(4, still, settings, threads=0)
  assert decoded == [0, 2, 4, 6] * 4  # once for four copies
  for batch in batches:
    assert (batch.clips == batch.clips[:, :1]).all()
    assert len({clip.tobytes() for clip in batch.clips}) > 1 and len(set(batch.index)) == 1
  assert clips_per_epoch(still, settings) == 8


def test_crops_are_those_that_are_drawn(still):
  chosen = choose(still)
  (batch,) = first(1, still, threads=0)
  frame = decode_first(chosen, 0), decode_first(chosen, 1)
  possible = {}
  for video in range(2):
    for case in range(400):
      crop = multi_scale_crop.draw(40, 64, 32, CLIPS.scales, np.random.default_rng(case))
      picture = np.zeros((32, 32, 3), np.uint8)
      multi_scale_crop.cut(frame[video], crop, False, picture)
      possible[picture.tobytes()] = video
  for clip, number in zip(batch.clips, batch.index, strict=True):
    assert possible[clip[0].tobytes()] == int(still.videos[number][-1])


def decode_first(chosen, video):
  view = chosen(video)
  return augment.decode_frame(view.frames[0], video='', frame=0, size=view.size)


def test_the_central_square_is_held_out(still):
  (batch,) = held_out(still, dataclasses.replace(CLIPS, canvas=40, copies=3), batch_size=2)
  assert batch.clips.shape == (2, 4, 40, 40, 3)
  picture = decode_first(choose(still), 1)
  assert (batch.clips[1] == picture[:, 12:52]).all()


@pytest.mark.parametrize('probability', [0.0, 1.0])
def test_mirroring(still, probability):
  settings = dataclasses.replace(CLIPS, flip_probability=probability)
  plain = first(2, still, threads=0)
  for batch, other in zip(plain, first(2, still, settings, threads=0), strict=True):
    expected = batch.clips[:, :, :, ::-1] if probability else batch.clips
    np.testing.assert_array_equal(other.clips, expected)


# Bad input


def test_copies_have_to_divide_the_batch(videos):
  settings = dataclasses.replace(CLIPS, copies=3)
  with pytest.raises(InputError, match='batch size 8 is not made of 3 crops .* multiple of 6'):
    train_clips(videos, settings, seed=0, batch_size=8, process_count=2)
  with pytest.raises(InputError, match='cannot be shared equally by 2 processes'):
    train_clips(videos, CLIPS, seed=0, batch_size=3, process_count=2)


@pytest.mark.parametrize('copies', [1, 2])
def test_an_unreadable_clip_stops_or_is_masked(tmp_path, copies):
  records = [make_record(video) for video in range(4)]
  records[1] = records[1]._replace(frames=[jpeg[:-20] for jpeg in records[1].frames])
  index = write_toy(tmp_path, records)
  settings = dataclasses.replace(CLIPS, copies=copies)
  with pytest.raises(InputError, match="video 'video_1': the JPEG of frame"):
    first(4, index, settings)
  masked = 0
  for batch in first(copies, index, settings, unreadable='skip'):  # an epoch
    bad = unreadable.numbers_in(batch.index)
    assert set(index.videos[bad]) <= {'video_1'} and len(bad) == (~batch.example_mask).sum()
    assert not batch.clips[~batch.example_mask].any()
    masked += len(bad)
  assert masked == copies
  (batch, _) = held_out(index, unreadable='skip')
  assert batch.example_mask.tolist() == [True, False, True]


def test_an_empty_split_is_refused(videos):
  none = np.zeros(0, np.int64)
  with pytest.raises(InputError, match="split 'train' has no examples; prepare it"):
    videos_of(dataclasses.replace(videos, example_record=none, keyframes=none), CLIPS)
