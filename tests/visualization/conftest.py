"""A fixture for the texts on pictures."""

import pytest
from PIL import ImageDraw


@pytest.fixture
def written(monkeypatch):
  """All texts that are drawn, each of which has to stay inside its picture."""
  texts, write = [], ImageDraw.ImageDraw.text

  def spy(self, xy, text, fill=None, font=None, anchor='la'):
    left, top, right, bottom = font.getbbox(text, anchor=anchor)
    texts.append(text)
    if text:
      assert 0 <= xy[0] + left and xy[0] + right <= self.im.size[0]
      assert 0 <= xy[1] + top and xy[1] + bottom <= self.im.size[1]
    write(self, xy, text, fill, font, anchor)

  monkeypatch.setattr(ImageDraw.ImageDraw, 'text', spy)
  return texts
