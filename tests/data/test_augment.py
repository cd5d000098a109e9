"""Preprocessing against the reference's numbers and hand-worked tables."""

import re

import numpy as np
import pytest
import simplejpeg

from evad_jax.data.augment import Resize, decode_frame, draw_frame, plan_resize, transform_boxes
from evad_jax.errors import InputError
from tests import external

GOLDEN = external.GOLDEN / 'units.npz'
WIDE = (512, 1024)


def _random_frame(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('case', [0, 1, 2])
def test_equals_the_reference(case):
  if not GOLDEN.is_file():
    pytest.skip(external.missing(GOLDEN))
  golden = np.load(GOLDEN, allow_pickle=False)
  frames = golden[f'prep{case}/frames_bgr'][..., ::-1]  # (T, h, w, 3) RGB
  short_side, max_long = golden[f'prep{case}/short_max'].tolist()
  height, width = frames.shape[1:3]
  resize = plan_resize(height, width, canvas=WIDE, short_side=short_side, max_long=max_long)

  expected = golden[f'prep{case}/clip']  # (3, T, H, W), normalised
  assert (resize.height, resize.width) == expected.shape[2:]
  for t, frame in enumerate(frames):
    picture = np.zeros((*WIDE, 3), np.uint8)
    draw_frame(np.ascontiguousarray(frame), resize, False, picture)
    levels = (expected[:, t].transpose(1, 2, 0) * 0.225 + 0.45) * 255
    ours = picture[: resize.height, : resize.width]
    assert (ours == np.rint(levels)).all()
    np.testing.assert_allclose(
      (ours / 255 - 0.45) / 0.225, expected[:, t].transpose(1, 2, 0), atol=1e-6
    )

  boxes = transform_boxes(golden[f'prep{case}/boxes_in'], height, width, resize, False)
  np.testing.assert_allclose(boxes, golden[f'prep{case}/boxes_out'], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
  ('size', 'canvas', 'short_side', 'max_long', 'expected'),
  [
    ((240, 320), WIDE, 288, 1333, (1.2, 288, 384)),
    ((320, 240), WIDE, 288, 1333, (1.2, 384, 288)),
    ((100, 333), WIDE, 288, 500, (500 / 333, 150, 500)),  # the long side rules
    ((120, 201), WIDE, 60, 1333, (0.5, 60, 101)),  # 100.5 is rounded up
    ((240, 320), (96, 96), None, 1333, (0.3, 72, 96)),
    ((320, 240), (96, 96), None, 1333, (0.3, 96, 72)),
    ((48, 64), (96, 256), None, 1333, (2.0, 96, 128)),
  ],
)
def test_picture_sizes(size, canvas, short_side, max_long, expected):
  resize = plan_resize(*size, canvas=canvas, short_side=short_side, max_long=max_long)
  assert resize == pytest.approx(expected)


def test_a_picture_that_fits_inside_never_exceeds_the_canvas():
  for height in range(1, 700, 7):
    for width in range(1, 700, 11):
      resize = plan_resize(height, width, canvas=(96, 160), short_side=None, max_long=1333)
      assert resize.height == 96 or resize.width == 160
      assert min(resize.height, resize.width) >= 1


# Frame 100 x 200 (height x width), scale 0.5: picture 50 x 100.
BOXES = np.array(
  [[0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0.99, 0.5, 1, 0.992]], np.float32
)  # pixels: (0, 0, 200, 100), (20, 20, 60, 40), (198, 50, 200, 99.2)
PLAIN = [[0, 0, 99, 49], [10, 10, 30, 20], [99, 25, 99, 49]]
MIRRORED = [[0, 0, 99, 49], [69.5, 10, 89.5, 20], [0, 25, 0.5, 49]]


@pytest.mark.parametrize(('flip', 'expected'), [(False, PLAIN), (True, MIRRORED)])
def test_boxes_by_hand(flip, expected):
  """Clipped to [0, 199] x [0, 99], mirrored to 199 - x, halved, clipped to [0, 99] x [0, 49]."""
  ours = transform_boxes(BOXES, 100, 200, Resize(0.5, 50, 100), flip)
  np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_no_boxes():
  ours = transform_boxes(np.zeros((0, 4), np.float32), 100, 200, Resize(0.5, 50, 100), True)
  assert ours.shape == (0, 4)


def test_flipping_twice_is_the_identity():
  size = Resize(1.0, 30, 41)
  frame = _random_frame(30, 41)
  once, twice = np.zeros((2, 30, 41, 3), np.uint8)
  draw_frame(frame, size, True, once)
  draw_frame(once, size, True, twice)
  assert (once == frame[:, ::-1]).all() and (twice == frame).all()

  boxes = np.array([[0.1, 0.2, 0.5, 0.6], [0.3, 0.1, 0.9, 0.9]])
  mirrored = transform_boxes(boxes, 30, 41, size, True) / [41, 30, 41, 30]
  again = transform_boxes(mirrored, 30, 41, size, True) / [41, 30, 41, 30]
  np.testing.assert_allclose(again, boxes, atol=1e-12)


def test_mirrored_boxes_follow_their_pixels():
  frame = np.zeros((20, 40, 3), np.uint8)
  frame[5:10, 4:13] = 255  # pixels 4..12, so the box from 4 to 12 in pixel centres
  boxes = np.array([[4 / 40, 5 / 20, 12 / 40, 9 / 20]])
  picture = np.zeros_like(frame)
  draw_frame(frame, Resize(1.0, 20, 40), True, picture)
  ys, xs = np.nonzero(picture[..., 0])
  box = transform_boxes(boxes, 20, 40, Resize(1.0, 20, 40), True)[0]
  np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max(), ys.max()])


@pytest.mark.parametrize('scale', [0.5, 1.0])
def test_only_the_picture_is_written(scale):
  clip = np.full((2, 32, 48, 3), 7, np.uint8)
  resize = plan_resize(20, 30, canvas=(32, 48), short_side=int(20 * scale), max_long=1333)
  draw_frame(_random_frame(20, 30) // 2 + 100, resize, False, clip[1])
  assert (clip[0] == 7).all()
  assert (clip[1, : resize.height, : resize.width] >= 100).all()
  assert (clip[1, resize.height :] == 7).all() and (clip[1, :, resize.width :] == 7).all()


def test_decodes_rgb():
  frame = np.zeros((16, 16, 3), np.uint8)
  frame[...] = (200, 100, 30)
  decoded = decode_frame(
    simplejpeg.encode_jpeg(frame, 95, 'RGB', '444'), video='v', frame=0, size=(16, 16)
  )
  assert np.abs(decoded.astype(int) - frame).max() <= 3


@pytest.mark.parametrize('damage', ['cut', 'empty', 'not a JPEG', 'zeros inside'])
def test_a_corrupt_jpeg_names_its_video_and_frame(damage):
  whole = simplejpeg.encode_jpeg(_random_frame(48, 64))
  middle = len(whole) // 2
  jpeg = {
    'cut': whole[:middle],
    'empty': b'',
    'not a JPEG': b'RIFF' * 20,
    'zeros inside': whole[:middle] + bytes(40) + whole[middle + 40 :],
  }[damage]
  with pytest.raises(InputError, match=re.escape("video 'v_1': the JPEG of frame 12 is corrupt")):
    decode_frame(jpeg, video='v_1', frame=12, size=(48, 64))


def test_a_jpeg_of_another_size_is_refused():
  jpeg = simplejpeg.encode_jpeg(_random_frame(48, 64))
  message = "video 'v_1': frame 12 is 48 x 64 where its record says 48 x 60"
  for out in (None, np.zeros((48, 60, 3), np.uint8)):
    with pytest.raises(InputError, match=message):
      decode_frame(jpeg, video='v_1', frame=12, size=(48, 60), out=out)


def test_decoding_in_place_gives_the_same_pixels():
  jpeg = simplejpeg.encode_jpeg(_random_frame(48, 64))
  clip = np.zeros((2, 50, 64, 3), np.uint8)
  decode_frame(jpeg, video='v', frame=0, size=(48, 64), out=clip[1, :48])
  assert (clip[1, :48] == decode_frame(jpeg, video='v', frame=0, size=(48, 64))).all()
  assert not clip[0].any() and not clip[1, 48:].any()


@pytest.mark.parametrize(
  ('size', 'least', 'expected'),
  [
    ((96, 128), (48, 64), (48, 64)),  # a half
    ((96, 128), (40, 50), (48, 64)),  # the codec has eighths: 5/8 is not a half, 4/8 is enough
    ((96, 128), (49, 60), (96, 128)),  # a half would be too low
    ((96, 128), (24, 20), (24, 32)),  # a quarter
  ],
)
def test_reduced_decoding_never_goes_below_what_is_asked(size, least, expected):
  frame = np.zeros((*size, 3), np.uint8)
  frame[:, : size[1] // 2] = 200
  jpeg = simplejpeg.encode_jpeg(frame, 95)
  reduced = decode_frame(jpeg, video='v', frame=0, size=size, least=least)
  assert reduced.shape[:2] == expected
  third = expected[1] // 3
  assert abs(reduced[:, :third].mean() - 200) < 3 and reduced[:, -third:].mean() < 3
