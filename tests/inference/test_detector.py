"""The detector from Python: equal to the model itself, and clear errors for bad input."""

import json

import cv2
import jax
import numpy as np
import pytest

from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data.clips import empty_batch
from evad_jax.errors import InputError
from evad_jax.inference.detector import Detector
from evad_jax.inference.predict import predict
from evad_jax.model.evad import EVAD
from tests import micro_checkpoint, micro_evad
from tests.micro_checkpoint import CLASSES, CLIP
from tests.micro_evad import PROPOSALS, micro_model

# 60 x 90 pixels become 32 x 48, and 60 x 88 become 32 x 47, on one canvas, 32 x 48.
WHOLE, PADDED = (60, 90), (60, 88)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  return micro_checkpoint.write(tmp_path_factory.mktemp('detector') / 'run' / 'checkpoints')


@pytest.fixture(scope='module')
def detector(directory):
  return Detector.from_checkpoint(directory)


def random_clips(count, size=WHOLE, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, 8, *size, 3), np.uint8)


def expected(clips, width, **changes):
  """The outputs of the model itself, for clips resized to 32 x width by hand."""
  canvas = np.zeros((len(clips), 8, 32, 48, 3), np.uint8)
  for out, clip in zip(canvas, clips, strict=True):
    for picture, frame in zip(out, clip, strict=True):
      picture[:, :width] = cv2.resize(frame, (width, 32), interpolation=cv2.INTER_LINEAR)
  sizes = np.tile(np.array([32, width], np.int32), (len(clips), 1))
  params = micro_evad.random_parameters(micro_model())
  with jax.default_matmul_precision('highest'):
    batch = empty_batch(canvas, 1, 1)._replace(sizes=sizes)
    return jax.jit(predict, static_argnums=0)(micro_model(**changes), params, batch)


def assert_same(found, wanted):
  for ours, theirs in zip(found, wanted, strict=True):
    assert isinstance(ours, np.ndarray)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('size, width', [(WHOLE, 48), (PADDED, 47)])
def test_a_clip_is_seen_as_by_the_model_itself(detector, size, width):
  clips = random_clips(1, size)
  found = detector(clips[0])
  assert_same(found, [x[0] for x in expected(clips, width)])


def test_several_clips_are_one_by_one(detector):
  clips = random_clips(4)
  together = detector(clips)
  assert together.boxes.shape == (4, PROPOSALS, 4)
  for place in range(4):
    assert_same([x[place] for x in together], detector(clips[place]))
  assert np.abs(together.boxes[0] - together.boxes[1]).max() > 1e-3


def test_another_keep_rate_is_a_model_with_that_rate(detector, directory):
  (clip,) = clips = random_clips(1)
  wanted = [x[0] for x in expected(clips, 48, keep_rate=1.0)]
  assert_same(detector(clip, 1.0), wanted)
  other = Detector.from_checkpoint(directory, keep_rate=1.0)
  assert other.model.keep_rate == 1.0
  assert_same(other(clip), wanted)
  # And the detector's own is as it was.
  assert detector.model.keep_rate == 0.7
  assert np.abs(detector(clip).action_scores - wanted[2]).max() > 1e-3


@pytest.mark.parametrize(
  'height, width, picture, canvas',
  [
    (60, 90, (32, 48), (32, 48)),
    (60, 88, (32, 47), (32, 48)),  # 46.9
    (90, 60, (48, 32), (48, 32)),
    (32, 32, (32, 32), (32, 32)),
    (16, 400, (32, 800), (32, 800)),
    (10, 1000, (13, 1333), (16, 1344)),  # 32 x 3200 would be too long
  ],
)
def test_pictures_and_canvases(detector, height, width, picture, canvas):
  resize, found = detector.picture(height, width)
  assert resize[1:] == picture and found == canvas


def test_where_checkpoints_are_found(directory, tmp_path):
  for path in (directory, directory.parent, directory / '0', str(directory)):
    assert Detector.from_checkpoint(path).classes == CLASSES
  several = micro_checkpoint.write(tmp_path / 'a', step=3, classes=list('abcde'))
  micro_checkpoint.write(several, step=7, classes=list('vwxyz'))
  for path, step, first in ((several, 0, 'v'), (several, 3, 'a'), (several / '3', 0, 'a')):
    assert Detector.from_checkpoint(path, step=step).classes[0] == first


def test_settings_of_clips(directory, tmp_path):
  detector = Detector.from_checkpoint(directory, frame_stride=3, short_side=48)
  assert (detector.clip_frames, detector.frame_stride) == (8, 3)
  assert detector.picture(60, 90)[1] == (48, 80)  # 48 x 72
  bare = micro_checkpoint.write(tmp_path / 'bare', clip={})
  detector = Detector.from_checkpoint(bare, clip_frames=8, frame_stride=2, short_side=32)
  assert (detector.clip_frames, detector.frame_stride) == (8, 2)
  # Without a short side the picture is as large as the first canvas allows.
  fitted = micro_checkpoint.write(tmp_path / 'fitted', clip=CLIP | {'short_side': None})
  assert Detector.from_checkpoint(fitted).picture(60, 90)[0][1:] == (21, 32)


def test_names_of_classes(directory, tmp_path):
  assert Detector.from_checkpoint(directory, classes=list('abcde')).classes == list('abcde')
  nameless = micro_checkpoint.write(tmp_path / 'a', classes=[])
  names = ['action 1', 'action 2', 'action 3', 'action 4', 'action 5']
  assert Detector.from_checkpoint(nameless).classes == names


def test_settings_that_are_older_or_newer(tmp_path):
  model = json.loads(json.dumps(micro_evad.MODEL))
  del model['decoder_drop_path']  # has the default
  older = micro_checkpoint.write(tmp_path / 'older', model=model)
  default = EVAD.__dataclass_fields__['decoder_drop_path'].default
  assert Detector.from_checkpoint(older).model.decoder_drop_path == default
  newer = micro_checkpoint.write(tmp_path / 'newer', model=model | {'memory': 4})
  with pytest.raises(InputError, match='newer/0: the checkpoint has the model settings memory'):
    Detector.from_checkpoint(newer)


@pytest.mark.parametrize(
  'arguments, words',
  [
    ({'classes': ['sit', 'stand']}, '2 class names were given, but the checkpoint has 5'),
    ({'keep_rate': 1.5}, r'keep_rate=1.5 must be in \(0, 1\]'),
    ({'keep_rate': 0.0}, r'keep_rate=0.0 must be in \(0, 1\]'),
    ({'keep_rate': (0.7, 0.7, 0.7)}, r'keep_rate=\(0.7, 0.7, 0.7\) has 3 rates for 2 prune_blocks'),
    ({'dtype': 'float8'}, "dtype='float8' is not one of float32, bfloat16"),
    (
      {'frame_strid': 2},
      'frame_strid is not a clip setting; choose from clip_frames, frame_stride',
    ),
    ({'frame_stride': 0}, 'frame_stride=0 must be at least 1'),
    ({'clip_frames': 0}, 'clip_frames=0 must be at least 1'),
    ({'short_side': -32}, 'short_side=-32 must be at least 1'),
    ({'step': 5}, r'there is no checkpoint of step 5 .*give one of \[0\]'),
    ({'step': -1}, 'there is no checkpoint of step -1'),
  ],
)
def test_arguments_that_do_not_fit(directory, arguments, words):
  with pytest.raises(InputError, match=words) as caught:
    Detector.from_checkpoint(directory, **arguments)
  assert '\n' not in str(caught.value)


def test_checkpoints_that_cannot_be_used(tmp_path):
  with pytest.raises(InputError, match='nowhere: there is no such checkpoint directory'):
    Detector.from_checkpoint(tmp_path / 'nowhere')
  with Checkpoints(tmp_path / 'encoder') as checkpoints:
    source = {'kind': 'encoder', 'title': 'VideoMAE encoder'}
    model = {key: 8 for key in ('width', 'depth', 'num_heads', 'patch', 'tubelet', 'pretrain_size')}
    settings = {'model': model, 'clip': {}, 'classes': [], 'source': source}
    checkpoints.save(0, {'params': {'encoder': {'x': np.zeros(3)}}}, settings, {}, None)
  with pytest.raises(InputError, match='0: holds an encoder without a detector .VideoMAE encoder'):
    Detector.from_checkpoint(tmp_path / 'encoder')
  bare = micro_checkpoint.write(tmp_path / 'bare', clip={})
  with pytest.raises(InputError, match='bare/0: .* give clip_frames and frame_stride'):
    Detector.from_checkpoint(bare)
  with pytest.raises(InputError, match='bare/0: .* states no picture size; give short_side'):
    Detector.from_checkpoint(bare, clip_frames=8, frame_stride=1)
  sizeless = micro_checkpoint.write(tmp_path / 'none', clip={'clip_frames': 8})
  with pytest.raises(InputError, match='none/0: .* cut; give frame_stride'):
    Detector.from_checkpoint(sizeless)


@pytest.mark.parametrize(
  'frames, words',
  [
    (np.zeros((7, 60, 90, 3), np.uint8), r'uint8 of shape \(7, 60, 90, 3\); give .* \(8, height'),
    (np.zeros((8, 60, 90), np.uint8), r'shape \(8, 60, 90\)'),
    (np.zeros((8, 60, 90, 4), np.uint8), r'shape \(8, 60, 90, 4\)'),
    (np.zeros((8, 60, 90, 3), np.float32), 'frames is float32 of shape'),
    (np.zeros((60, 90, 3), np.uint8), r'shape \(60, 90, 3\)'),
    ([], r'shape \(0,\)'),
  ],
)
def test_frames_that_are_no_clip(detector, frames, words):
  with pytest.raises(InputError, match=words):
    detector(frames)


def test_a_keep_rate_of_a_call_that_does_not_fit(detector):
  (clip,) = random_clips(1)
  with pytest.raises(InputError, match=r'keep rate of block 1 is 1.5; it must be in \(0, 1\]'):
    detector(clip, 1.5)
  with pytest.raises(InputError, match='keep rate of 0.1 at block 1 would drop .* the keyframe'):
    detector(clip, 0.1)
