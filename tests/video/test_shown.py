"""What a player shows, and when: streams, turns, pixels, clocks; by content and by FFmpeg."""

import io
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from data_prep.common import frame_folder
from evad_jax.errors import InputError
from evad_jax.video import decode, orientation, resample, shown, video_source
from evad_jax.video.decode import VideoFile
from evad_jax.video.orientation import EXIF, UPRIGHT
from evad_jax.video.video_clip import read_clip
from tests import ffmpeg
from tests.video import numbered
from tests.video.tiny_videos import picture_of, write_video
from tests.video.turned_videos import CORNERS, MATRICES, differ, with_matrix, write_pictures

# Which way round


@pytest.mark.parametrize('name', MATRICES)
def test_display_matrices(tmp_path, name):
  entries, turn = MATRICES[name]
  path = with_matrix(write_pictures(tmp_path / 'a.mp4', [CORNERS]), entries)
  (frame,) = VideoFile(path).frames()
  expected = turn(CORNERS)
  assert frame.size == expected.shape[:2]
  found = cv2.resize(frame.rgb(), expected.shape[1::-1])  # some matrices make pixels wide
  assert differ(found, expected) < 12
  assert differ(turn(CORNERS[..., ::-1]), expected) > 40  # it could fail
  theirs = ffmpeg.pictures(path, expected.shape[:2])
  assert differ(found, theirs[0]) < 4


def test_a_turn_that_is_no_right_angle_is_the_one_of_ffmpeg(tmp_path):
  half = 0.5**0.5
  path = with_matrix(write_pictures(tmp_path / 'a.mp4', [CORNERS]), (half, half, -half, half))
  (frame,) = VideoFile(path).frames()
  assert differ(frame.rgb(), ffmpeg.pictures(path, (64, 96))[0]) < 6
  assert differ(CORNERS, ffmpeg.pictures(path, (64, 96))[0]) > 40


@pytest.mark.parametrize('matrix', [(0, 0, 0, 0), (1, 1, 0, 0)])
def test_a_matrix_that_maps_to_a_line_is_none(tmp_path, matrix):
  path = with_matrix(write_pictures(tmp_path / 'a.mp4', [CORNERS]), matrix)
  (frame,) = VideoFile(path).frames()
  assert differ(frame.rgb(), CORNERS) < 6


@pytest.mark.parametrize('form', ['jpg', 'png'])
@pytest.mark.parametrize('value', [1, *EXIF])
def test_exif_is_read_as_pillow_and_opencv_do(tmp_path, form, value):
  tags = Image.Exif()
  tags[0x0112] = value
  path = tmp_path / f'a_000001.{form}'
  Image.fromarray(CORNERS).save(path, exif=tags, **({'quality': 95} if form == 'jpg' else {}))
  upright = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
  if form == 'png':
    upright = orientation.turn(CORNERS, EXIF.get(value, UPRIGHT))
  (frame,) = frame_folder.find_folder(tmp_path).frames()
  assert frame.size == upright.shape[:2]
  data = frame.jpeg(None, 95)
  with Image.open(io.BytesIO(data)) as stored:
    assert stored.getexif().get(0x0112, 1) == 1
    assert differ(np.array(stored), upright) < 6
  if form == 'jpg' and value == 1:
    assert data == path.read_bytes()  # as it is
  # As a video of one picture: the same.
  with video_source.opened(video_source.find(str(path))) as opened:
    (timed,) = opened.pictures
    assert differ(timed.picture.rgb(), upright) < 6 and timed.picture.size == upright.shape[:2]


@pytest.mark.parametrize(
  'block', [b'', b'II*\0', b'MM\0*\xff\xff\xff\xff', b'II*\0\x08\0\0\0\xff\xff' + b'\x01' * 40]
)
def test_exif_that_breaks_off_says_nothing(block):
  assert orientation.of_exif(b'\xff\xd8\xff\xe1\0\x20Exif\0\0' + block) == UPRIGHT


# Pixels that are not square


@pytest.mark.parametrize(
  'pixel, size', [('2/1', (64, 192)), ('1/2', (128, 96)), ('64/45', (64, 137)), ('1/1', (64, 96))]
)
def test_pixels_become_square_and_sizes_stay_the_files(tmp_path, pixel, size):
  path = write_pictures(tmp_path / 'a.mp4', [CORNERS], pixel=Fraction(pixel))
  (frame,) = VideoFile(path).frames()
  assert frame.size == (64, 96) and frame.rgb().shape[:2] == size
  assert differ(frame.rgb(), cv2.resize(CORNERS, size[::-1])) < 8


def test_pixels_are_turned_with_the_picture(tmp_path):
  path = write_pictures(tmp_path / 'a.mp4', [CORNERS], pixel=Fraction(2))
  (frame,) = VideoFile(with_matrix(path, (0, 1, -1, 0))).frames()
  assert frame.size == (96, 64) and frame.rgb().shape[:2] == (192, 64)


def test_a_shape_of_pixels_that_cannot_be_is_ignored():
  assert orientation.square_size((64, 96), Fraction(1, 5000)) == (64, 96)
  assert orientation.square_size((64, 96), None) == (64, 96)


# Which stream


def mux(path: Path, *streams) -> Path:
  """Streams of (codec, size, grey), of 12 pictures each."""
  with av.open(str(path), 'w') as container:
    made = []
    for codec, size, grey in streams:
      stream = container.add_stream(codec, rate=25)
      stream.height, stream.width = size
      stream.pix_fmt = 'yuv420p'
      made.append((stream, np.full((*size, 3), grey, np.uint8)))
    for _ in range(12):
      for stream, picture in made:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
    for stream, _ in made:
      container.mux(stream.encode())
  return path


@pytest.mark.parametrize('suffix', ['mp4', 'mkv'])
def test_the_largest_of_several(tmp_path, suffix):
  streams = ('mpeg4', (32, 48), 40), ('mpeg4', (64, 96), 120), ('mpeg4', (48, 64), 200)
  path = mux(tmp_path / f'a.{suffix}', *streams)
  with decode.open_container(path) as container:
    # MP4 files flag the first stream as the default: FFmpeg prefers it, however small.
    defaults = [s.index for s in container.streams.video if s.disposition & Disposition.default]
    expected = defaults[0] if defaults else 1
    assert shown.choose_stream(container, path).index == expected
  _, size, grey = streams[expected]
  frames = list(VideoFile(path).frames())
  assert len(frames) == 12 and abs(frames[0].rgb().mean() - grey) < 6
  assert abs(ffmpeg.pictures(path, size)[0].mean() - grey) < 6


def test_a_cover_is_no_video(tmp_path):
  cover, path = tmp_path / 'cover.jpg', write_video(tmp_path / 'a.mp4', 5)
  Image.fromarray(np.full((300, 400, 3), 250, np.uint8)).save(cover)
  both, song = tmp_path / 'both.mp4', tmp_path / 'song.mp3'
  streams = ('-map', '1', '-map', '0', '-c', 'copy', '-disposition:v:0', 'attached_pic')
  ffmpeg.run('-v', 'error', '-i', path, '-i', cover, *streams, both)
  with av.open(str(both)) as container:  # the cover is there, and larger
    assert sorted(s.width for s in container.streams.video) == [96, 400]
  assert [picture_of(frame.rgb()) for frame in VideoFile(both).frames()] == [0, 1, 2, 3, 4]
  sound = ('-f', 'lavfi', '-i', 'sine=d=1', '-i', cover, '-map', '0', '-map', '1')
  ffmpeg.run('-v', 'error', *sound, '-disposition:v', 'attached_pic', '-c:v', 'copy', song)
  with pytest.raises(InputError, match='song.mp3: holds a cover picture but no video') as caught:
    list(VideoFile(song).frames())
  assert '\n' not in str(caught.value)


def test_the_largest_of_a_playlist(tmp_path):
  """An HLS master playlist, whose first variant is the smallest."""
  sizes = ('-s:v:0', '48x32', '-s:v:1', '192x128', '-s:v:2', '96x64')
  source = ('-v', 'error', '-i', numbered.write(tmp_path / 'a.mkv', 30), *('-map', '0') * 3, *sizes)
  form = ('-f', 'hls', '-master_pl_name', 'master.m3u8', '-var_stream_map', 'v:0 v:1 v:2')
  ffmpeg.run(*source, '-c:v', 'libx264', *form, tmp_path / 'part%v.m3u8')
  numbers = []
  with video_source.opened(video_source.find(str(tmp_path / 'master.m3u8'))) as opened:
    for one in opened.pictures:
      assert one.picture.size == (128, 192)
      numbers.append(numbered.number_of(cv2.resize(one.picture.rgb(), (128, 96))))
  assert numbers == list(range(30))


# Time


def read(path, rate=None):
  """Numbers and seconds, and the notes."""
  with video_source.opened(video_source.find(str(path)), rate) as opened:
    timed = [(numbered.number_of(one.picture.rgb()), one.seconds) for one in opened.pictures]
    return [number for number, _ in timed], [seconds for _, seconds in timed], opened.notes()


def test_avi_with_b_frames_starts_at_its_first_picture(tmp_path):
  """Its header states 0, and the first picture shown is the second one decoded."""
  made, path = numbered.write(tmp_path / 'a.mkv', 40), tmp_path / 'a.avi'
  ffmpeg.run('-v', 'error', '-i', made, '-c:v', 'mpeg4', '-bf', '2', '-q:v', '2', path)
  with av.open(str(path)) as container:
    assert next(container.decode(video=0)).dts > 0
  told = []
  frames = [
    numbered.number_of(f.rgb()) for f in VideoFile(path).frames(lambda *what: told.append(what))
  ]
  at_rate = [numbered.number_of(f.rgb()) for f in VideoFile(path, Fraction(25)).frames()]
  assert frames == at_rate == list(range(40)) and told == []
  numbers, seconds, notes = read(path)
  assert numbers == list(range(40)) and notes == []
  assert seconds == pytest.approx([n / 25 for n in range(40)])


def test_a_clock_that_starts_again(tmp_path):
  parts = [numbered.write(tmp_path / f'{n}.ts', 40, first=40 * n) for n in range(2)]
  path = tmp_path / 'ab.ts'
  path.write_bytes(b''.join(part.read_bytes() for part in parts))
  for rate in (None, Fraction(25)):
    numbers, seconds, notes = read(path, rate)
    assert numbers == list(range(80))
    assert seconds == pytest.approx([n / 25 for n in range(80)], abs=1e-4)
    assert [note for note in notes if note.startswith('clock starts again: its times jump by -1.6')]
  told = []
  frames = VideoFile(path).frames(lambda *what: told.append(what[0]))
  assert [numbered.number_of(frame.rgb()) for frame in frames] == list(range(80))
  assert told == ['clock starts again']


@pytest.mark.parametrize('suffix', ['mp4', 'mkv'])
def test_a_long_pause_stays(tmp_path, suffix):
  times = [*(n / 25 for n in range(10)), *(600 + n / 25 for n in range(10))]
  path = write_video(tmp_path / f'a.{suffix}', 20, times=times)
  with video_source.opened(video_source.find(str(path))) as opened:
    assert [one.seconds for one in opened.pictures] == pytest.approx(times, abs=1e-3)
    assert not [note for note in opened.notes() if 'lost' in note]
  slots = [picture_of(frame.rgb()) for frame in VideoFile(path, Fraction(1)).frames()]
  assert slots == [9] * 600 + [19] or slots[1:599] == [9] * 598


def test_an_edit_list_hides_pictures_and_the_middle_is_that_of_the_others(tmp_path):
  whole = numbered.write(tmp_path / 'whole.mp4', 100, codec={'bf': '0', 'sc_threshold': '0'})
  path = tmp_path / 'cut.mp4'
  ffmpeg.run('-v', 'error', '-ss', '2.2', '-i', whole, '-c', 'copy', path)
  with av.open(str(path)) as container:
    stated = container.streams.video[0].frames
  numbers, seconds, notes = read(path)
  assert numbers == list(range(55, 100)) and stated > 45 and seconds[0] == 0
  assert any(note.startswith('hidden pictures') for note in notes)
  source = video_source.find(str(path))
  assert video_source.middle(source) == 22
  with video_source.opened(source) as opened:
    assert opened.num_frames == 45
    clip = read_clip(opened, 4, 1)
  assert numbered.number_of(clip.frames[2]) == 55 + 22
  with video_source.opened(source) as opened:  # a header that states too many: the last one
    clip = read_clip(opened._replace(num_frames=160), 4, 1)
  assert clip.numbers[2] == 44 and clip.seconds == pytest.approx(44 / 25)


def test_transport_streams_are_sought_from_earlier_key_pictures(tmp_path):
  """A single key picture: decoding cannot start after the position that is sought."""
  path = write_video(tmp_path / 'a.mkv', 250, stream_options={'g': '600'})
  ts = tmp_path / 'a.ts'
  ffmpeg.run('-v', 'error', '-i', path, '-c:v', 'libx264', '-g', '600', '-crf', '10', ts)
  slots = [picture_of(frame.rgb()) for frame in VideoFile(ts, Fraction(25), 9).frames()]
  assert slots == [n % 44 for n in range(225, 250)]


def test_pictures_too_far_apart_for_a_rate(tmp_path):
  path = write_video(tmp_path / 'a.mkv', 4, times=[0, 0.04, 0.08, 4000])
  with pytest.raises(InputError, match='a.mkv: its timestamps jump by 4000 seconds, which no rate'):
    list(VideoFile(path, Fraction(30)).frames())
  assert resample.slots(None, Fraction(30)) is None
  assert resample.slots(901, Fraction(30)) == 27030


def test_a_recording_that_starts_between_key_pictures(tmp_path):
  whole, path = numbered.write(tmp_path / 'whole.mkv', 40), tmp_path / 'a.mkv'
  with av.open(str(whole)) as source, av.open(str(path), 'w') as target:
    stream = target.add_stream_from_template(source.streams.video[0])
    packets = [packet for packet in source.demux(video=0) if packet.size][3:]
    for packet in packets:
      packet.stream = stream
      target.mux(packet)
  first = next(number for number, packet in enumerate(packets) if packet.is_keyframe)
  numbers, seconds, notes = read(path)
  assert numbers == list(range(numbers[0], 40)) and 3 < numbers[0] <= 12 and seconds[0] == 0
  (note,) = [note for note in notes if note.startswith('starts between key pictures')]
  assert 0 < int(note.split()[4]) <= first


# Folders


@pytest.mark.parametrize('names', [['IMG_20240101123000.jpg'], ['00001.png', 'cam_1700000000.png']])
def test_time_stamps_are_no_frame_numbers(tmp_path, names):
  for name in names:
    Image.fromarray(CORNERS).save(tmp_path / name)
  with pytest.raises(InputError, match=f'{names[-1]}: is no frame number among {len(names)} files'):
    frame_folder.find_folder(tmp_path)


def test_a_folder_that_was_thinned_out_is_one(tmp_path):
  for number in range(30, 3001, 30):
    Image.fromarray(CORNERS).save(tmp_path / f'{number:06d}.png')
  assert sum(1 for _ in frame_folder.find_folder(tmp_path).frames()) == 3000


def test_colours_of_print_and_other_names(tmp_path):
  """A JPEG file in CMYK, and a PNG file called .jpg, as JPEG files of their colours."""
  Image.fromarray(CORNERS).convert('CMYK').save(tmp_path / '1.jpg', 'JPEG', quality=95)
  Image.fromarray(CORNERS).save(tmp_path / '2.jpg', 'PNG')
  for frame in frame_folder.find_folder(tmp_path).frames():
    with Image.open(io.BytesIO(frame.jpeg(None, 95))) as stored:
      assert stored.mode == 'RGB' and differ(np.array(stored), CORNERS) < 12


def test_a_damaged_png_is_found(tmp_path):
  path = tmp_path / '1.png'
  noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
  Image.fromarray(noise).save(path)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 8
  path.write_bytes(data)
  (frame,) = frame_folder.find_folder(tmp_path).frames()
  with pytest.raises(InputError, match='1.png: is not a complete picture'):
    frame.jpeg(None, 95)
