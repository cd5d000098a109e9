"""A video that cannot be read to its end."""

from evad_jax.errors import InputError
from evad_jax.video import video_source


def break_off(monkeypatch, number):
  """Every video fails at the picture of this number."""
  counted = video_source._counted

  def broken(*arguments):
    for at, timed in enumerate(counted(*arguments)):
      if at == number:
        raise InputError('a.mp4: breaks off')
      yield timed

  monkeypatch.setattr(video_source, '_counted', broken)
