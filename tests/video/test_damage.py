"""Damaged videos: no picture moves, losses are counted and reported, and nothing crashes.

Seeded damages of every container. A picture that FFmpeg conceals may look like another one: then
the time that FFmpeg gives it decides.
"""

import collections
import random
from fractions import Fraction

import numpy as np
import pytest
import simplejpeg

from data_prep.common.frame_folder import find_folder
from evad_jax.errors import InputError
from evad_jax.video import decode, shown, video_source
from evad_jax.video.decode import VideoFile
from evad_jax.video.shown import Lost
from tests.video import numbered

COUNT = 60
KINDS = {  # by a name that ends as the file does: options of the container
  'end.mp4': {},
  'front.mp4': {'movflags': 'faststart'},
  'a.mkv': {},
  'a.avi': {},
  'a.webm': {},
  'a.ts': {},
}


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  """Kind -> the bytes, and the offsets where the first packet begins and the last ends."""
  directory = tmp_path_factory.mktemp('whole')
  found = {}
  for name, options in KINDS.items():
    path = numbered.write(directory / name, COUNT, options=options)
    places = numbered.packets(path)
    known = [(at, at + size) for at, size in places if at is not None]
    data = path.read_bytes()
    found[name] = data, min(at for at, _ in known), min(max(end for _, end in known), len(data))
  return found


def damaged(data: bytes, start: int, end: int, seed: int) -> tuple[bytes, str]:
  """Bytes between two offsets overwritten, cut off or dropped; returns which of these, too."""
  draw = random.Random(seed)
  changed, at = bytearray(data), draw.randrange(start, end)
  length, how = draw.choice([1, 20, 300, 2000]), draw.choice(['over', 'over', 'cut', 'drop'])
  if how == 'over':
    length = min(length, end - at)
    changed[at : at + length] = draw.randbytes(length)
  else:
    del changed[at : None if how == 'cut' else at + length]
  return bytes(changed), how


def look(path):
  """What is shown at every index (a number, None or 'lost') with its time; and the notes."""
  with decode.decoding(path), decode.open_container(path) as container:
    reader = shown.Reader(container, shown.choose_stream(container, path))
    found = []
    for place in reader:
      lost = isinstance(place.picture, Lost)
      seen = 'lost' if lost else numbered.number_of(place.picture.rgb())
      found.append((seen, place.ticks / reader.pace))
    return found, reader.notes()


def check_payload(found, notes, how, name):
  """Every picture is at the index that its time has in the intact file."""
  kinds = [kind for kind, _ in notes]
  lost = [place for place, (seen, _) in enumerate(found) if seen == 'lost']
  for place, (seen, time) in enumerate(found):
    assert seen in ('lost', None, place) or round(time) == place, (place, seen, time)
  if lost:
    (detail,) = [detail for kind, detail in notes if kind == 'lost pictures']
    assert detail.startswith(f'{len(lost)} of {len(found)} ')
  assert ('lost pictures' in kinds) == bool(lost)
  # Nothing in a broadcast stream, or a cut file without a table, says how long it was.
  if how == 'cut' and name.endswith(('.ts', '.avi')):
    assert len(found) <= COUNT
  else:
    assert len(found) == COUNT


def damage_payload(sources, tmp_path, seeds):
  refused = collections.Counter()
  for seed in seeds:
    for name, (data, start, end) in sources.items():
      path = tmp_path / name
      changed, how = damaged(data, start, end, seed)
      path.write_bytes(changed)
      try:
        found, notes = look(path)
      except InputError as error:
        # An MP4 file whose table comes last is lost where bytes before it are gone.
        assert name == 'end.mp4' and how != 'over', (name, seed, error)
        assert '\n' not in str(error) and str(path) in str(error)
        refused[name] += 1
        continue
      check_payload(found, notes, how, name)
  return refused


def damage_heads(sources, tmp_path, seeds):
  read = 0
  for seed in seeds:
    for name, (data, start, end) in sources.items():
      path = tmp_path / name
      span = (0, start) if seed % 2 or end >= len(data) - 8 else (end, len(data))
      path.write_bytes(damaged(data, *span, seed)[0])
      try:
        found, notes = look(path)
      except InputError as error:
        assert '\n' not in str(error) and str(path) in str(error)
        continue
      read += 1
      wrong = [place for place, (seen, _) in enumerate(found) if seen not in ('lost', None, place)]
      if found and (wrong or len(found) != COUNT):
        assert notes or name.endswith('.avi'), (name, seed, found)
  return read


def test_damaged_payloads(sources, tmp_path):
  damage_payload(sources, tmp_path, [*range(4), 100])  # 100: an AVI file lacks bytes of two packets


def test_damaged_heads(sources, tmp_path):
  assert damage_heads(sources, tmp_path, range(3)) >= len(KINDS)


@pytest.mark.slow
def test_many_damaged_payloads(sources, tmp_path):
  """250, with the folders below."""
  assert damage_payload(sources, tmp_path, range(100, 139)).total() < 30


@pytest.mark.slow
def test_many_damaged_heads(sources, tmp_path):
  assert damage_heads(sources, tmp_path, range(100, 109)) >= 3 * len(KINDS)


def test_folders_of_damaged_pictures(tmp_path):
  """Preparation finds pictures that the decoder complains about; the others stay unchanged."""
  for number in range(1, 41):
    data = simplejpeg.encode_jpeg(numbered.picture(number), 95, 'RGB', '420')
    whole = tmp_path / f'{number:05d}.jpg'
    whole.write_bytes(data if number % 2 else damaged(data, len(data) // 3, len(data), number)[0])
  found = 0
  for number, frame in enumerate(find_folder(tmp_path).frames(), 1):
    try:
      data = frame.jpeg(None, 95)
    except InputError as error:
      assert number % 2 == 0 and f'{number:05d}.jpg: is not a complete picture' in str(error)
      found += 1
    else:
      assert numbered.number_of(simplejpeg.decode_jpeg(data)) in (number, None)
  assert found >= 12  # a byte among others may give another picture without a complaint


@pytest.mark.parametrize('name', ['front.mp4', 'a.webm'])
def test_threads_of_a_decoder_lose_no_more_at_a_cut_end(sources, tmp_path, name):
  data, start, end = sources[name]
  path = tmp_path / name
  for seed in range(4):
    path.write_bytes(data[: random.Random(seed).randrange((start + end) // 2, end)])
    places = [seen == 'lost' for seen, _ in look(path)[0]]
    with video_source.opened(video_source.find(str(path))) as opened:  # by several threads
      assert [one.lost for one in opened.pictures] == places and len(places) == COUNT


@pytest.mark.parametrize('name', ['front.mp4', 'a.mkv', 'a.avi'])
def test_one_lost_packet(tmp_path, name):
  """The last packet before a key picture, which no other needs: all others are unchanged."""
  codec = {} if name.endswith('.avi') else {'bf': '0'}
  path = numbered.write(tmp_path / name, COUNT, options=KINDS[name], codec=codec)
  hit = []

  def chosen(number, keys):
    hit[:] = [keys.index(True, 9) - 1]
    return number == hit[0]

  assert numbered.overwrite(path, chosen) == 1
  (hit,) = hit
  told = []
  frames = list(VideoFile(path).frames(lambda *what: told.append(what)))
  seen = [isinstance(frame, Lost) or numbered.number_of(frame.rgb()) for frame in frames]
  assert seen == [*range(hit), True, *range(hit + 1, COUNT)]
  assert [(kind, detail[:48]) for kind, detail in told if kind == 'lost pictures'] == [
    ('lost pictures', '1 of 60 are damaged or missing, the first is num')
  ]
  with pytest.raises(InputError, match=f'picture {hit} is damaged or missing in the file'):
    frames[hit].jpeg(None, 95)
  with video_source.opened(video_source.find(str(path))) as opened:
    timed = list(opened.pictures)
    assert [note for note in opened.notes() if note.startswith('lost pictures: 1 of 60 ')]
  assert [place for place, one in enumerate(timed) if one.lost] == [hit]
  assert numbered.number_of(timed[hit].picture.rgb()) == hit - 1  # it stays
  np.testing.assert_allclose(
    [one.seconds for one in timed], np.arange(COUNT) / numbered.RATE, atol=1e-3
  )
  slots = list(VideoFile(path, Fraction(numbered.RATE)).frames())
  assert [isinstance(slot, Lost) for slot in slots] == [n == hit for n in range(COUNT)]


def test_nothing_that_decodes(tmp_path):
  path = numbered.write(tmp_path / 'a.mkv', 12)
  assert numbered.overwrite(path, lambda n, keys: True) == 12
  with pytest.raises(InputError, match='a.mkv: not one picture of it can be decoded'):
    list(VideoFile(path).frames())
