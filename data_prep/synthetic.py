"""Makes a small data set of moving people, so that training and evaluation run without downloads.

  python -m data_prep.synthetic --output data/synthetic

A record is one clip with one keyframe in its middle. One to three people (stick figures) move in
front of a softly textured, slowly drifting grey background. The labels are their motions, which a
single frame does not show. A clip depends only on the seed, the split and its number: the files are
the same bytes whatever the number of workers.
"""

from pathlib import Path

from evad_jax import command_line
from evad_jax.synthetic import data_set


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  default = data_set.Settings()
  parser = command_line.Parser('data_prep.synthetic', __doc__)
  add = parser.add_argument
  add('--output', type=Path, required=True, help='directory to write to')
  size = (default.height, default.width)
  add('--size', type=command_line.size, default=size, metavar='HxW', help='frame size (64x64)')
  for name, what in (
    ('train', 'training clips'),
    ('test', 'test clips'),
    ('clip_frames', 'frames of a clip, an even number'),
    ('frame_stride', 'step between frames of a clip'),
    ('seed', 'another seed gives other clips'),
    ('workers', 'drawing processes'),
  ):
    flag, value = '--' + name.replace('_', '-'), getattr(default, name)
    add(flag, type=int, default=value, metavar='N', help=f'{what} (default {value})')
  add('--hard', action='store_true', help='busier background; more and smaller people')
  add('--overwrite', action='store_true', help='replace the data set in --output')
  flags = vars(parser.parse_args(argv))
  output, overwrite = flags.pop('output'), flags.pop('overwrite')
  height, width = flags.pop('size')
  settings = data_set.Settings(height=height, width=width, **flags)
  data_set.generate(output, settings, overwrite=overwrite)


if __name__ == '__main__':
  command_line.run(main)
