"""Text in pictures, each letter from the first font that has it.

In order: Pillow's font (Latin without accents), OpenCV's own (Latin, Greek, Cyrillic, Hebrew,
Arabic, Chinese, Japanese, Korean), and the fonts installed on this machine.
"""

import functools
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

OPENCV = 'OpenCV'  # stands for its font among file paths; '' is Pillow's
WEIGHT = 350  # of OpenCV's font, from 100 to 900: about that of Pillow's
NO_LETTER = '\U0010ffff'  # in no font: shows what a font draws for letters that it lacks
FOLDERS = {
  'linux': ('~/.local/share/fonts', '~/.fonts', '/usr/local/share/fonts', '/usr/share/fonts'),
  'darwin': ('~/Library/Fonts', '/Library/Fonts', '/System/Library/Fonts'),
  'win32': ('~/AppData/Local/Microsoft/Windows/Fonts', '%WINDIR%/Fonts'),
}
SUFFIXES = ('.ttf', '.otf', '.ttc')


class Run(NamedTuple):
  """Consecutive letters in one font."""

  font: str
  text: str


class Font:
  """Text of one size, in pixels."""

  def __init__(self, size: int):
    """size: of an em, pixels."""
    self.size = size

  def getmetrics(self) -> tuple[int, int]:
    """Pixels above and below the baseline."""
    return _free_type('', self.size).getmetrics()

  def getlength(self, text: str) -> float:
    """Pixels from the start of the text to its end."""
    return sum(self._length(run) for run in runs(text))

  def write(
    self,
    draw: ImageDraw.ImageDraw,
    xy: tuple[float, float],
    text: str,
    colour: str | tuple[int, ...],
    anchor: str = 'la',
  ) -> None:
    """Draws one line. anchor: as in Pillow; l, m or r across, and a, t, m, s or b down."""
    parts = runs(text)
    if all(run.font == '' for run in parts):
      whole = ''.join(run.text for run in parts)
      draw.text(xy, whole, colour, _free_type('', self.size), anchor)
      return
    above, below = self.getmetrics()
    x = xy[0] - {'l': 0, 'm': 0.5, 'r': 1}[anchor[0]] * self.getlength(text)
    y = xy[1] + {'a': above, 't': above, 'm': (above - below) / 2, 's': 0, 'b': -below}[anchor[1]]
    for run in parts:
      if run.font == OPENCV:
        draw.bitmap((round(x), round(y) - above), _opencv_mask(run.text, self.size, above), colour)
      else:
        draw.text((x, y), run.text, colour, _free_type(run.font, self.size), 'ls')
      x += self._length(run)

  def _length(self, run: Run) -> float:
    if run.font == OPENCV:
      return _opencv_length(run.text, self.size)
    return _free_type(run.font, self.size).getlength(run.text)


@functools.lru_cache(4096)
def runs(text: str) -> tuple[Run, ...]:
  """Splits the text where the font changes: between words, or within words that no font covers.

  Letters that no font has are reported once and drawn as question marks.
  """
  made: list[Run] = []
  lacking: list[str] = []
  text = unicodedata.normalize('NFC', text)
  text = ''.join(' ' if unicodedata.category(letter) == 'Cc' else letter for letter in text)
  for word in re.findall(r'\s+|\S+', text):
    if word.isspace() and made:
      parts = [Run(made[-1].font, word)]
    elif (font := _font_with(word)) is not None:
      parts = [Run(font, word)]
    else:
      clusters = _clusters(word)
      lacking += [letters for letters in clusters if _font_with(letters) is None]
      parts = [Run(_font_with(letters) or OPENCV, letters) for letters in clusters]
    for part in parts:
      if made and made[-1].font == part.font:
        part = Run(part.font, made.pop().text + part.text)
      made.append(part)
  if lacking:
    _tell(' '.join(lacking))
  return tuple(made)


def _clusters(word: str) -> list[str]:
  """Letters with their combining marks."""
  clusters: list[str] = []
  for letter in word:
    if clusters and unicodedata.category(letter) in ('Mn', 'Mc', 'Me', 'Cf'):
      clusters[-1] += letter
    else:
      clusters.append(letter)
  return clusters


@functools.cache
def _font_with(letters: str) -> str | None:
  """The first font that has all of the letters."""
  if _free_type_has('', letters):
    return ''
  if all(_opencv_has(letter) for letter in letters):
    return OPENCV
  return next((path for path in _installed() if _free_type_has(path, letters)), None)


@functools.cache
def _tell(letters: str) -> None:
  """Reports once which letters cannot be drawn."""
  print(
    f'No font on this machine has {letters}: question marks stand for them in pictures; install a '
    'font that has them, such as Noto Sans.',
    file=sys.stderr,
    flush=True,
  )


@functools.cache
def _installed() -> tuple[str, ...]:
  """Font files on this machine, upright and sans serif first."""
  found = []
  for folder in FOLDERS.get(sys.platform, FOLDERS['linux']):
    folder = Path(os.path.expandvars(os.path.expanduser(folder)))
    found += [path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES]

  def order(path: Path) -> tuple:
    name = path.name.lower()
    styled = [word in name for word in ('bold', 'italic', 'oblique', 'serif', 'mono')]
    return sum(styled), name, str(path)

  return tuple(str(path) for path in sorted(found, key=order))


@functools.cache
def _free_type(path: str, size: int) -> ImageFont.FreeTypeFont:
  return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _free_type_has(path: str, letters: str) -> bool:
  try:
    font = _free_type(path, 16)
    lacks = _pixels(font, NO_LETTER)
    return all(_pixels(font, letter) != lacks for letter in letters)
  except (OSError, ValueError):  # not a font, or one of fixed sizes
    return False


def _pixels(font: ImageFont.FreeTypeFont, letter: str) -> tuple:
  mask = font.getmask(letter)
  return mask.size, bytes(mask)


@functools.cache
def _opencv_has(letter: str) -> bool:
  lacks = _opencv_mask(NO_LETTER, 16, 16).tobytes()
  return letter == '?' or _opencv_mask(letter, 16, 16).tobytes() != lacks


@functools.lru_cache(4096)
def _opencv_length(text: str, size: int) -> int:
  """Width of the text in OpenCV's font, pixels."""
  nowhere = np.zeros((1, 1), np.uint8)
  end, _ = cv2.putText(nowhere, text, (0, 0), 255, cv2.FontFace('sans'), size, WEIGHT)
  return int(end[0])


def _opencv_mask(text: str, size: int, above: int) -> Image.Image:
  """The text in white on black, its baseline `above` pixels below the top."""
  mask = np.zeros((above + size, _opencv_length(text, size) + size), np.uint8)
  cv2.putText(mask, text, (0, above), 255, cv2.FontFace('sans'), size, WEIGHT)
  return Image.fromarray(mask)
