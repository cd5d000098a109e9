"""Decoding: which picture is which frame, at the video's own pace and resampled by time."""

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from data_prep.common import frame_folder
from data_prep.common.frame_folder import find_folder
from evad_jax.errors import InputError
from evad_jax.video import decode, shown
from evad_jax.video.decode import VideoFile
from evad_jax.video.jpeg import encode_frame
from tests import external
from tests.video.tiny_videos import UNEVEN, break_metadata, picture_of, write_video

CLIPS = external.DATA / 'clips'
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason=external.missing(CLIPS))


def pictures(file: VideoFile, told: list | None = None) -> list[int]:
  """Which picture every frame shows."""
  report = decode.nobody if told is None else lambda kind, detail: told.append(kind)
  return [picture_of(frame.rgb()) for frame in file.frames(report)]


@pytest.mark.parametrize(
  ('rate', 'num_pictures', 'expected'),
  [
    (30, 7, [0, 1, 2, 3, 4, 5, 6]),
    # The times 0, 1/24, 2/24, ... are slots 0 1.25 2.5 3.75 5 6.25 7.5 8.75; .5 rounds up.
    (24, 8, [0, 1, 1, 2, 3, 4, 5, 5, 6, 7]),
    (25, 6, [0, 1, 2, 2, 3, 4, 5]),  # slots 0 1.2 2.4 3.6 4.8 6: nothing of slot 3's own
    (60, 8, [0, 2, 4, 6]),  # slots 0 .5 1 1.5 2 2.5 3 3.5, to 4: .5 rounds up, of two the later
    (10, 3, [0, 0, 0, 1, 1, 1, 2, 2, 2]),  # the last picture stays as long as the others
  ],
)
def test_resampling_to_30_frames_against_tables(tmp_path, rate, num_pictures, expected):
  told = []
  path = write_video(tmp_path / 'a.mp4', num_pictures, rate=rate)
  assert pictures(VideoFile(path, Fraction(30)), told) == expected
  assert pictures(VideoFile(path), told) == list(range(num_pictures))
  assert told == []


def test_a_variable_rate_is_told_and_taken_by_time(tmp_path):
  path, told = write_video(tmp_path / 'a.mp4', 10, times=UNEVEN), []
  assert pictures(VideoFile(path), told) == list(range(10))
  assert told == ['variable frame rate']
  # At 25 a second slots 0 to 5 are as above, 0.5 s is slot 12.5, which rounds to 13.
  assert pictures(VideoFile(path, Fraction(25)), told) == [0, 1, 2, 3, 4] + [5] * 8 + [6, 7, 8, 9]
  assert told == ['variable frame rate'] * 2


def test_a_part_is_sought_not_decoded_from_the_start(tmp_path, monkeypatch):
  """400 seconds at 5 a second, with a key picture every 12: second 300 is picture 1500."""
  path = write_video(tmp_path / 'a.mp4', 2000, rate=5, size=(32, 32))
  made = []
  picture = shown.Picture

  def count(frame, *how):
    made.append(frame.pts)
    return picture(frame, *how)

  monkeypatch.setattr(shown, 'Picture', count)
  frames = [picture_of(f.rgb()) for f in VideoFile(path, Fraction(10), 300, 3).frames()]
  assert frames == [(1500 + slot // 2) % 44 for slot in range(30)]
  assert len(made) < 12 + 15 + 10
  assert pictures(VideoFile(path, Fraction(10), 398)) == [(1990 + s // 2) % 44 for s in range(20)]
  assert pictures(VideoFile(path, Fraction(10), 500)) == []


def test_a_broken_timestamp_is_refused(tmp_path):
  path = write_video(tmp_path / 'a.mkv', 4, times=[0, 0.04, 0.08, 4000])
  with pytest.raises(InputError, match='a.mkv: its timestamps jump by 4000 seconds'):
    pictures(VideoFile(path, Fraction(30)))


def test_a_header_without_a_count_is_told(tmp_path):
  path, told = write_video(tmp_path / 'a.mkv', 6, options={'live': '1'}), []
  assert pictures(VideoFile(path), told) == [0, 1, 2, 3, 4, 5]
  assert told == ['header without frame count']
  assert decode.duration(path) is None
  usual = write_video(tmp_path / 'b.mkv', 6)  # Matroska never has a count, but a duration
  assert pictures(VideoFile(usual), told) == [0, 1, 2, 3, 4, 5]
  assert told == ['header without frame count']
  assert decode.duration(usual) == pytest.approx(0.24)


def test_broken_metadata_are_told(tmp_path):
  path = write_video(tmp_path / 'a.avi', 5, metadata={'title': 'cafebar'})
  break_metadata(path)
  told = []
  assert pictures(VideoFile(path), told) == [0, 1, 2, 3, 4]
  assert told == ['broken metadata']
  assert decode.frames_per_second(path) == 25


@needs_clips
def test_real_clips_with_broken_headers():
  told = []
  turnk = CLIPS / 'hmdb_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi'
  frames = list(VideoFile(turnk).frames(lambda kind, detail: told.append(kind)))
  assert len(frames) == 83 and told == ['broken metadata']
  # It states when pictures are decoded, from the third thirtieth on: the clock starts there.
  race = CLIPS / 'hmdb_RATRACE_wave_f_nm_np1_fr_goo_37.avi'
  raw = [frame.rgb() for frame in VideoFile(race).frames()]
  resampled = [frame.rgb() for frame in VideoFile(race, Fraction(30)).frames()]
  assert len(raw) == 72
  np.testing.assert_array_equal(raw, resampled)


def test_a_phone_held_upright_gives_upright_pictures(tmp_path):
  """The header's matrix asks for a quarter turn clockwise: the left side becomes the top."""
  path = write_video(tmp_path / 'a.mp4', 2, size=(32, 64))
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('mpeg4', rate=25, bit_rate=4_000_000)
    stream.width, stream.height, stream.pix_fmt = 64, 32, 'yuv420p'
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, :32] = 255
    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
    container.mux(stream.encode())
  data = bytearray(path.read_bytes())
  straight = struct.pack('>9i', 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
  turned = struct.pack('>9i', 0, 1 << 16, 0, -1 << 16, 0, 0, 32 << 16, 0, 1 << 30)
  place = data.index(straight, data.index(b'tkhd'))
  data[place : place + len(turned)] = turned
  path.write_bytes(data)
  (frame,) = VideoFile(path).frames()
  assert frame.rgb().shape == (64, 32, 3)
  assert frame.rgb()[:28].mean() > 240 and frame.rgb()[36:].mean() < 15


def test_videos_that_cannot_be_read_are_named(tmp_path):
  (tmp_path / 'bad.avi').write_bytes(b'no video')
  with pytest.raises(InputError, match='bad.avi: cannot be decoded'):
    next(VideoFile(tmp_path / 'bad.avi').frames())
  with pytest.raises(InputError, match='cannot be opened'):
    decode.frames_per_second(tmp_path / 'bad.avi')
  with pytest.raises(InputError, match='no such directory'):
    decode.find_videos(tmp_path / 'nowhere')
  whole = write_video(tmp_path / 'cut.mp4', 20)
  whole.write_bytes(whole.read_bytes()[:-400])  # the index is at the end
  with pytest.raises(InputError, match='cut.mp4: cannot be decoded'):
    pictures(VideoFile(whole))


# Folders of pictures


def grey(number: int, size=(32, 48)) -> np.ndarray:
  return np.full((*size, 3), 10 * number, np.uint8)


def test_a_folder_counts_from_file_1_and_keeps_the_bytes(tmp_path):
  made = {}
  for number in (1, 2, 3, 5):
    made[number] = encode_frame(grey(number), None, 80)
    (tmp_path / f'v2_{number:06d}.jpg').write_bytes(made[number])
  (tmp_path / 'notes.txt').write_text('no picture')
  folder = find_folder(tmp_path, 30.0)
  frames = list(folder.frames())
  assert folder.fps() == 30 and len(frames) == 5
  for index in (0, 1, 2, 4):
    assert frames[index].jpeg(None, 95) == made[index + 1]
    assert frames[index].jpeg(32, 95) == made[index + 1]
  with pytest.raises(InputError, match='4.jpg: cannot be read'):
    frames[3].jpeg(None, 95)
  smaller = simplejpeg.decode_jpeg(frames[4].jpeg(16, 95))
  assert smaller.shape == (16, 24, 3) and abs(smaller.mean() - 50) < 1


def test_a_cut_picture_is_refused_and_an_appended_byte_is_not(tmp_path):
  data = encode_frame(np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8), None, 95)
  for number, content in enumerate((data[:-100], data + b'\n', b'', b'GIF89a'), start=1):
    (tmp_path / f'{number}.jpg').write_bytes(content)
  frames = list(find_folder(tmp_path).frames())
  assert frames[1].jpeg(None, 95) == data + b'\n'
  for frame in (frames[0], frames[2], frames[3]):
    with pytest.raises(InputError, match=f'{frame.path.name}: is not a complete picture'):
      frame.jpeg(None, 95)


def test_png_pictures_keep_their_colours(tmp_path):
  picture = np.zeros((32, 48, 3), np.uint8)
  picture[..., 0] = 200  # red
  cv2.imwrite(str(tmp_path / '00001.png'), picture[..., ::-1])
  (frame,) = find_folder(tmp_path).frames()
  decoded = simplejpeg.decode_jpeg(frame.jpeg(None, 95)).reshape(-1, 3).mean(0)
  np.testing.assert_allclose(decoded, [200, 0, 0], atol=4)
  (tmp_path / '00002.png').write_bytes(b'\x89PNG cut')
  with pytest.raises(InputError, match='00002.png: is not a complete picture'):
    list(find_folder(tmp_path).frames())[1].jpeg(None, 95)


def test_folders_that_cannot_be_numbered(tmp_path):
  assert find_folder(tmp_path / 'nowhere') is None
  assert find_folder(tmp_path) is None
  (tmp_path / '0001.jpg').write_bytes(b'')
  before = find_folder(tmp_path).identity()
  (tmp_path / '0001.jpg').write_bytes(b'x')
  assert find_folder(tmp_path).identity() != before
  for name in ('1.png', '0000.jpg'):
    (tmp_path / name).write_bytes(b'')
    with pytest.raises(InputError, match='numbered from 1, each once'):
      frame_folder.find_folder(tmp_path)
    (tmp_path / name).unlink()
