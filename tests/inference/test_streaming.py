"""Videos as streams: the same as clip by clip, in bounded memory, late or not."""

import itertools
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from evad_jax.data.augment import Resize
from evad_jax.data.clip_sampling import clip_frame_numbers
from evad_jax.errors import InputError
from evad_jax.inference import person_tracks, streaming
from evad_jax.inference.detector import Detector
from evad_jax.inference.keep_rate_choice import MEMORY
from evad_jax.inference.streaming import Settings, Stream
from evad_jax.structures import Detections
from tests import micro_checkpoint
from tests.inference.stepped_source import Source

NUM_FRAMES, STRIDE, THRESHOLD = 22, 4, 0.2


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
  return Detector.from_checkpoint(micro_checkpoint.write(tmp_path_factory.mktemp('streaming')))


@pytest.fixture(scope='module')
def video():
  """Noise that fades from one picture into another: detections differ, and move slowly."""
  first, last = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3))
  shares = np.linspace(0, 1, NUM_FRAMES)[:, None, None, None]
  return np.round((1 - shares) * first + shares * last).astype(np.uint8)


@pytest.mark.parametrize('batch_size', [1, 4])
def test_a_stream_is_the_video_clip_by_clip(detector, video, batch_size):
  """6 keyframes: the second call of four is filled up."""
  settings = Settings(STRIDE, batch_size, THRESHOLD)
  found = list(detector.stream(iter(video), settings))
  state, wanted = person_tracks.start(), []
  for keyframe in range(0, NUM_FRAMES, STRIDE):
    clip = video[clip_frame_numbers(keyframe, NUM_FRAMES, 8, 1)]
    state, present = person_tracks.follow(state, detector(clip), keyframe, STRIDE, THRESHOLD)
    wanted.append(present)
  assert [p.frame for p in found] == [0, 4, 8, 12, 16, 20]
  for ours, theirs in zip(found, wanted, strict=True):
    assert ours.ids.tolist() == theirs.ids.tolist() and ours.ended == theirs.ended
    for a, b in zip(ours[2:5], theirs[2:5], strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
  counts = np.unique(np.concatenate([p.ids for p in found]), return_counts=True)[1]
  assert counts.max() > 1  # a person is tracked, or the ids would prove nothing


class FakeDetector:
  """Finds one person, whose action scores are the numbers of the clip's frames / 1000.

  The frames must be grey, frame n of grey n.
  """

  model = SimpleNamespace(keep_rate=0.7)

  def __init__(self, clip_frames=4, frame_stride=1, during=lambda rate: None):
    """during: called while it runs."""
    self.clip_frames, self.frame_stride, self._during = clip_frames, frame_stride, during
    self.rates, self.batches = [], []

  def picture(self, height, width):
    return Resize(1.0, height, width), (height, width)

  def run(self, clips, sizes, keep_rate=None):
    self.rates.append(keep_rate)
    self.batches.append(len(clips))
    self._during(keep_rate)
    assert sizes.tolist() == [list(clips.shape[2:4])] * len(clips)
    boxes = np.tile(np.array([0.2, 0.2, 0.5, 0.9], np.float32), (len(clips), 1, 1))
    numbers = clips[:, :, 0, 0, 0].astype(np.float32)
    return Detections(boxes, np.full((len(clips), 1), 0.9, np.float32), numbers[:, None] / 1000)


def grey(number, size=(4, 6)):
  return np.full((*size, 3), number, np.uint8)


def clip_of(present):
  """The numbers of the frames of the clip."""
  return np.round(1000 * present.action_scores[0]).astype(int).tolist()


@pytest.mark.parametrize('live', [False, True])
def test_frames_and_pictures_are_taken_alike(live):
  pictures = [SimpleNamespace(rgb=lambda n=n: grey(n)) for n in range(10)]
  for frames in (pictures, [grey(n) for n in range(10)]):
    detector = FakeDetector(clip_frames=2, frame_stride=2)
    # Live, all keyframes may wait, so that none is too late.
    settings = Settings(keyframe_stride=3, batch_size=4 if live else 1, live=live)
    found = list(Stream(detector, frames, settings))
    assert [(p.frame, clip_of(p)) for p in found] == [
      (0, [0, 0]),
      (3, [1, 3]),
      (6, [4, 6]),
      (9, [7, 9]),
    ]
    assert [p.ids.tolist() for p in found] == [[0]] * 4


def test_frames_are_looked_at_once_and_no_more_than_needed():
  """Keyframes 0, 6, 12, ... with clips of k - 2 and k: frames of odd number are never converted."""
  converted = []

  class Picture:
    def __init__(self, number):
      self.number = number

    def rgb(self):
      converted.append(self.number)
      return grey(self.number)

  list(Stream(FakeDetector(2, 2), map(Picture, range(15)), Settings(keyframe_stride=6)))
  assert converted == [0, 4, 6, 10, 12]


def test_memory_does_not_grow():
  """The longest of 3,000 frames: a clip reaches 8 frames back and 6 on, at stride 2."""
  alive, most = weakref.WeakSet(), 0

  class Picture:
    def __init__(self, number):
      self.number = number
      alive.add(self)

    def rgb(self):
      return grey(self.number % 256)

  stream = Stream(FakeDetector(8, 2), map(Picture, range(3000)), Settings(keyframe_stride=4))
  for number, present in enumerate(stream):
    assert present.frame == 4 * number
    most = max(most, len(alive))
    assert len(stream.state.clips.placed) <= 8
    assert len(stream.state.people.tracks) == 1
  assert number == 749 and most <= 2
  assert stream.latencies.count == 750


def test_the_last_call_is_filled_up():
  detector = FakeDetector()
  found = list(Stream(detector, map(grey, range(20)), Settings(keyframe_stride=4, batch_size=3)))
  assert [p.frame for p in found] == [0, 4, 8, 12, 16]
  assert clip_of(found[-1]) == [14, 15, 16, 17]
  assert detector.batches == [3, 3, 3]  # one to compile, and two


def test_a_video_whose_size_changes():
  frames = [grey(n) for n in range(9)] + [grey(9, (6, 4))]
  found = []
  with pytest.raises(InputError) as caught:
    for present in Stream(FakeDetector(), frames, Settings(keyframe_stride=2)):
      found.append(present.frame)
  assert str(caught.value) == (
    'Frame 9 of the video is 6 x 4 (height x width) and those before it 4 x 6; cut the video where '
    'its size changes.'
  )
  assert found == [0, 2, 4, 6]  # frame 9 would have been the last of keyframe 8's clip


@pytest.mark.parametrize('live', [False, True])
@pytest.mark.parametrize(
  'frames, words',
  [
    ([], 'There is no picture in the video; give another one'),
    ([np.zeros((4, 6), np.uint8)], r'A frame of the video is uint8 of shape \(4, 6\); give uint8'),
    ([np.zeros((4, 6, 3))], r'A frame of the video is float64 of shape \(4, 6, 3\)'),
    ([np.zeros((4, 6, 4), np.uint8)], r'uint8 of shape \(4, 6, 4\)'),
  ],
)
def test_frames_that_cannot_be_used(live, frames, words):
  with pytest.raises(InputError, match=words):
    list(Stream(FakeDetector(), frames, Settings(live=live)))


@pytest.mark.parametrize(
  'settings, words',
  [
    (Settings(keyframe_stride=0), 'keyframe_stride=0 must be 1 or more'),
    (Settings(batch_size=0), 'batch_size=0 must be 1 or more'),
    (Settings(person_threshold=1.1), 'person_threshold=1.1 must be from 0 to 1'),
    (Settings(person_threshold=float('nan')), 'person_threshold=nan must be from 0 to 1'),
    (Settings(latency_budget=0.1), 'give both latency_budget and keep_rates, or neither'),
    (Settings(keep_rates=(1.0, 0.7)), 'give both latency_budget and keep_rates, or neither'),
    (Settings(keep_rates=(0.7,), latency_budget=0.0), 'latency_budget=0.0 must be above 0'),
    (Settings(keep_rates=(0.7,), latency_budget=float('nan')), 'latency_budget=nan must be above'),
    (Settings(keep_rates=(0.7, 7.0), latency_budget=1.0), r'keep_rates=\(0.7, 7.0\) must all be'),
  ],
)
def test_settings_that_cannot_be(settings, words):
  with pytest.raises(InputError, match=words):
    Stream(FakeDetector(), [], settings)


def test_a_slow_detector_skips_keyframes_and_not_frames():
  """Clips of k - 2 to k + 1 at keyframes 0, 2, 4, ...; frames come while a call runs.

  The first call compiles, before anything is waited for. While keyframe 0 is looked at, frames 2 to
  15 bring keyframes 2 to 14, of which the last waits; then 16 to 25 bring 16 to 24; then the source
  ends.
  """
  source, coming, counts = Source(), iter(range(2, 26)), iter([0, 14, 10])

  def during(rate):
    count = next(counts, None)
    if count is None:
      source.end()
    elif count:
      source.give(*(grey(number) for number in itertools.islice(coming, count)))

  source.offer(grey(0), grey(1))
  detector = FakeDetector(during=during)
  stream = Stream(detector, source, Settings(keyframe_stride=2, live=True))
  found = list(stream)
  assert [(p.frame, clip_of(p)) for p in found] == [
    (0, [0, 0, 0, 1]),
    (14, [12, 13, 14, 15]),
    (24, [22, 23, 24, 25]),
  ]
  assert stream.dropped == 13 - 3
  # Five keyframes may be missing: not the six before 14, but the four before 24.
  assert [p.ids.tolist() for p in found] == [[0], [1], [1]]
  assert stream.state.clips.count == 26 and stream.state.people.next_id == 2


def test_a_detector_that_keeps_up_skips_nothing():
  source = Source()
  stream = Stream(FakeDetector(), source, Settings(keyframe_stride=1, live=True))
  source.offer(grey(0), grey(1))
  found = []
  for present in stream:
    found.append((present.frame, clip_of(present)))
    if present.frame < 50:
      source.give(grey(present.frame + 2))
    else:
      source.end()
  assert (
    found == [(k, clip_frame_numbers(k, 52, 4, 1).tolist()) for k in range(52)]
    and stream.dropped == 0
  )


@pytest.mark.parametrize('live', [False, True])
def test_a_second_pass_is_the_first_again(live):
  """Also where the first stopped in the middle, and while it continues."""
  settings = Settings(keyframe_stride=2, batch_size=8 if live else 1, live=live)
  stream = Stream(FakeDetector(), [grey(n) for n in range(12)], settings)
  wanted = [(k, clip_frame_numbers(k, 12, 4, 1).tolist(), [0]) for k in range(0, 12, 2)]

  def seen(found):
    return [(p.frame, clip_of(p), p.ids.tolist()) for p in found]

  assert seen(stream) == seen(stream) == wanted
  assert stream.latencies.count == 6 and stream.state.clips.count == 12
  left = iter(stream)
  next(left)
  assert seen(stream) == wanted
  assert seen(left) == wanted[1:]
  both = list(zip(stream, stream, strict=True))
  assert seen([a for a, _ in both]) == seen([b for _, b in both]) == wanted


def test_an_iterator_is_not_read_twice():
  stream = Stream(FakeDetector(), map(grey, range(8)), Settings(keyframe_stride=4))
  assert len(list(stream)) == 2
  with pytest.raises(InputError, match='from an iterator that has already been read; give a list'):
    list(stream)


def test_whoever_stops_looking_stops_the_reading():
  stream = Stream(FakeDetector(), itertools.repeat(grey(0)), Settings(live=True))
  people_of = iter(stream)
  next(people_of)
  assert stream._pass.waiting._thread.is_alive()
  people_of.close()
  assert not stream._pass.waiting._thread.is_alive()


SECONDS = {1.0: 0.3, 0.7: 0.2, 0.5: 0.1}


@pytest.fixture
def clock(monkeypatch):
  """A fake clock; only calls of the detector take time."""
  now = SimpleNamespace(seconds=100.0)
  fake = SimpleNamespace(perf_counter=lambda: now.seconds)
  monkeypatch.setattr(streaming, 'time', fake)
  return now


def test_the_budget_picks_the_keep_rate(clock):
  """The table of test_keep_rate_choice: the machine is thrice as slow from the second call on."""
  loads = iter([20, 1, 20, 1, 20, 1, 1] + [3] * 4 + [1] * 20)  # compiling takes 20 times as long

  def during(rate):
    clock.seconds += SECONDS[rate] * next(loads)

  detector = FakeDetector(during=during)
  settings = Settings(keyframe_stride=2, keep_rates=(1.0, 0.7, 0.5), latency_budget=0.25)
  stream = Stream(detector, map(grey, range(40)), settings)
  rates = [stream.keep_rate for _ in stream]
  assert detector.rates[:6] == [1.0, 1.0, 0.7, 0.7, 0.5, 0.5]
  assert detector.rates[6:] == rates
  # Loads: 1, then 1.6 2.02 2.314 2.5198, then 2.06 1.74 1.52 1.36 1.26 1.18: 0.2 * 1.18 < 0.25.
  assert rates == [0.7, 0.7] + [0.5] * 9 + [0.7] * 9
  load = 1 + (2 - 2 * MEMORY**4) * MEMORY**15
  assert stream.state.choice.load == pytest.approx(load)


def test_without_a_budget_nothing_is_chosen(clock):
  def during(rate):
    clock.seconds += 0.5

  detector = FakeDetector(during=during)
  stream = Stream(detector, map(grey, range(4)), Settings(keyframe_stride=2))
  latencies = [stream.latencies.total for _ in stream]
  # A call before the first frame waits compiles, and counts for nothing.
  assert latencies == [0.5, 1.0]
  assert (stream.latencies.mean(), stream.latencies.largest) == (0.5, 0.5)
  assert stream.model_seconds == 1.0
  assert detector.rates == [0.7] * 3 and stream.state.choice is None
