"""Letters of all scripts in pictures, recognised by the number and position of their parts."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from evad_jax.visualization import charts, contact_sheet, draw_people, lettering
from evad_jax.visualization.lettering import OPENCV, Font


def drawn(text, size=40, anchor='la', xy=(20, 20)):
  picture = Image.new('L', (40 * len(text) + 60, 100))
  Font(size).write(ImageDraw.Draw(picture), xy, text, 255, anchor)
  return np.asarray(picture)


@pytest.fixture
def nothing_installed(monkeypatch):
  monkeypatch.setattr(lettering, '_installed', lambda: ())
  for cached in (lettering.runs, lettering._font_with, lettering._tell):
    cached.cache_clear()
  yield
  for cached in (lettering.runs, lettering._font_with, lettering._tell):
    cached.cache_clear()


@pytest.mark.parametrize(
  ('letter', 'parts'),
  [
    *(('u', 1), ('\u00fc', 3), ('\u00ef', 3), ('\u00e9', 2), ('\u0151', 3)),  # accents
    *(('\u039e', 3), ('\u044b', 2), ('\u0451', 3)),  # Greek Xi, Cyrillic yery and io
    *(('\u4e8c', 2), ('\u4e09', 3), ('\u516b', 2)),  # Chinese two, three and eight
    *(('\u3044', 2), ('\uc774', 2), ('\u05d4', 2), ('\u062a', 3)),  # i, i, he, ta
  ],
)
def test_letters_have_their_parts(nothing_installed, letter, parts):
  """The box of a missing glyph has one part."""
  assert ndimage.label(drawn(letter) > 100)[1] == parts


def test_plain_text_is_drawn_as_before():
  picture = Image.new('L', (300, 100))
  ImageDraw.Draw(picture).text((20, 20), 'walk 0.82', 255, ImageFont.load_default(40))
  np.testing.assert_array_equal(drawn('walk 0.82')[:, :300], np.asarray(picture))
  assert Font(40).getlength('walk 0.82') == ImageFont.load_default(40).getlength('walk 0.82')


def test_letters_in_two_ways_of_writing_are_one():
  np.testing.assert_array_equal(drawn('na\u00efve'), drawn('nai\u0308ve')[:, : 40 * 5 + 60])


@pytest.mark.parametrize('text', ['geh\u00fcpft 0.5', '\u8d70\u8def', 'walk \u8d70'])
def test_texts_end_where_their_length_says(text):
  length = Font(40).getlength(text)
  columns = np.flatnonzero(drawn(text).max(axis=0))
  assert 20 - 1 <= columns[0] <= 24 and 20 + length - 5 <= columns[-1] <= 20 + length + 1
  right = np.flatnonzero(drawn(text, anchor='ra', xy=(20 + length, 20)).max(axis=0))
  assert abs(right[0] - columns[0]) <= 1 and abs(right[-1] - columns[-1]) <= 1


def test_words_stand_on_one_line():
  """The lower edges of an a of the one font and of the other."""
  edges = [np.flatnonzero(drawn(text).max(axis=1))[-1] for text in ('a', '\u00e4', '\u043e')]
  assert max(edges) - min(edges) <= 1


def test_letters_that_no_font_has_are_told_once(nothing_installed, capsys):
  text, letter = '\u091a \u0e01 0.5', '\u091a \u0e01'
  assert [run.font for run in lettering.runs(text)] == [OPENCV, '']
  lettering.runs('\u091a \u0e01 0.7')
  told = capsys.readouterr().err
  assert told.count('\n') == 1 and f'No font on this machine has {letter}: question marks' in told
  np.testing.assert_array_equal(drawn('\u091a'), drawn('\u0e01'))
  assert ndimage.label(drawn('\u091a') > 100)[1] == 2  # a question mark


def test_fonts_of_the_machine_are_asked_last(monkeypatch):
  fonts = [path for path in lettering._installed() if lettering._free_type_has(path, '\u00fc')]
  if not fonts:
    pytest.skip('no font is installed on this machine.')
  for cached in (lettering.runs, lettering._font_with):
    cached.cache_clear()
  monkeypatch.setattr(lettering, '_opencv_has', lambda letter: False)
  try:
    assert [run.font for run in lettering.runs('a \u00fc')] == ['', fonts[0]]
    assert ndimage.label(drawn('\u00fc') > 100)[1] == 3
  finally:
    for cached in (lettering.runs, lettering._font_with):
      cached.cache_clear()


def pictures(name):
  """A frame, a tile and a row of a chart that have the name of a class on them."""
  frame = np.full((240, 320, 3), 90, np.uint8)
  figure = draw_people.Figure(3, np.array([0.2, 0.3, 0.6, 0.9]), (f'{name} 0.50',))
  box, scores = np.array([[0.2, 0.3, 0.6, 0.9]]), np.array([[0.5]])
  tile = contact_sheet.Tile(frame, box, np.ones((1, 1)), box, scores)
  sheet = contact_sheet.contact_sheet([tile], [name])
  return [draw_people.annotate(frame, [figure]), np.asarray(sheet), charts._lettering(name)]


@pytest.mark.parametrize('name', ['\u8d70\u8def', '\u00fc\u00ef', '\u0445\u043e', '\u05d9\u05d4'])
def test_names_of_classes_in_every_picture(nothing_installed, capsys, name):
  """Boxes of missing glyphs would be the same in another order."""
  for one, other in zip(pictures(name), pictures(name[::-1]), strict=True):
    assert one.shape != other.shape or (one != other).any()
  assert capsys.readouterr().err == ''
