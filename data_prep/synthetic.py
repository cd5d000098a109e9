"""Makes a small data set of moving people, so that training and evaluation run without downloads.

  python -m data_prep.synthetic --output data/synthetic

One record is one clip with one keyframe in its middle. One to three people (stick_figures.py) move
before a softly textured, slowly drifting grey background (synthetic_clips.py); the labels are their
motions, which one frame alone does not tell. A clip's randomness depends on the seed, the split and
the clip's number only: the files are the same bytes whatever the number of workers.
"""

import argparse
from pathlib import Path

from evad_jax.errors import exit_on_input_error
from evad_jax.synthetic import data_set


def _size(text: str) -> tuple[int, int]:
  """'64x80' -> (64, 80), height and width."""
  height, _, width = text.partition('x')
  if not (height.isdecimal() and width.isdecimal()):
    raise argparse.ArgumentTypeError(f'{text!r} is not HEIGHTxWIDTH, for example 64x64')
  return int(height), int(width)


def main() -> None:
  """The command line."""
  default = data_set.Settings()
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', type=Path, required=True, help='directory to write to')
  parser.add_argument('--size', type=_size, default=(default.height, default.width), metavar='HxW')
  for name in ('train', 'test', 'clip_frames', 'frame_stride', 'seed', 'workers'):
    flag = '--' + name.replace('_', '-')
    parser.add_argument(flag, type=int, default=getattr(default, name), metavar='N')
  parser.add_argument('--hard', action='store_true', help='busier background, more, smaller people')
  parser.add_argument('--overwrite', action='store_true', help='replace what is in --output')
  flags = vars(parser.parse_args())
  output, overwrite = flags.pop('output'), flags.pop('overwrite')
  height, width = flags.pop('size')
  with exit_on_input_error():
    data_set.generate(
      output, data_set.Settings(height=height, width=width, **flags), overwrite=overwrite
    )


if __name__ == '__main__':
  main()
