"""Shows which tokens of a clip a detector keeps, and why: two pictures and an animation.

  python -m evad_jax.tools.visualize walk.mp4 --checkpoint runs/demo --output pictures
  python -m evad_jax.tools.visualize walk.mp4 --checkpoint runs/demo --output pictures \\
    --time 3.5 --keep-rate 0.6

It writes to the directory --output:

  pruning.png     the frames of the clip, and below them the same after every pruning block, with
                  the dropped tokens dimmed
  importance.png  a heat map of the attention that every token gets in these blocks, which decides
                  which tokens are dropped
  pruning.gif     the clip, playing beside itself after every pruning block

Blocks and frames count from 0. A column of the pictures is a time step of the token grid, shown by
the first of its frames. The keyframe's tokens are always kept.
"""

import argparse
from pathlib import Path

import jax

from evad_jax import command_line
from evad_jax.errors import InputError
from evad_jax.inference.detector import Detector
from evad_jax.video import video_source
from evad_jax.video.video_clip import VideoClip, read_clip
from evad_jax.visualization.drawing import write_animation, write_picture
from evad_jax.visualization.pruning_animation import pruning_animation
from evad_jax.visualization.pruning_sheets import PrunedClip, importance_sheet, pruning_sheet
from evad_jax.visualization.pruning_trace import of_clip, trace_pruning


def check_prunes(detector: Detector, checkpoint: Path) -> None:
  """Raises InputError for a detector that keeps every token."""
  if any(rate != 1 for rate in detector.model.block_keep_rates()):
    return
  if not detector.model.prune_blocks:
    raise InputError(
      f'{checkpoint}: none of its blocks prunes, so there is nothing to see; give another.'
    )
  raise InputError(
    f'{checkpoint}: keeps every token (keep rate {detector.model.keep_rate}), so there is nothing '
    'to see; give --keep-rate below 1, for example 0.7.'
  )


def look(detector: Detector, clip: VideoClip, title: str) -> PrunedClip:
  """Runs the detector on a clip and returns what the pictures show."""
  model = detector.model
  clips, sizes = detector.place(clip.frames[None])
  with jax.default_matmul_precision('highest'):
    stages = jax.jit(trace_pruning, static_argnums=0)(model, detector.params, clips, sizes)
  height, width = sizes[0].tolist()
  return PrunedClip(
    frames=clips[0, :, :height, :width],
    stages=of_clip(stages, 0),
    patch=model.patch,
    tubelet=model.tubelet,
    title=title,
    frame_numbers=clip.numbers.tolist(),
  )


def write_all(clip: PrunedClip, directory: Path) -> list[Path]:
  """Draws and writes the three files; returns their paths.

  Raises InputError where one cannot be written.
  """
  paths = [directory / name for name in ('pruning.png', 'importance.png', 'pruning.gif')]
  try:
    write_picture(paths[0], pruning_sheet(clip))
    write_picture(paths[1], importance_sheet(clip))
    write_animation(paths[2], pruning_animation(clip))
  except OSError as error:
    raise InputError(
      f'{directory}: cannot be written to ({error.strerror}); choose another --output.'
    ) from error
  return paths


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = command_line.Parser('evad_jax.tools.visualize', __doc__)
  add = parser.add_argument
  add('video', metavar='IN', help='a video of any format and size')
  add('--checkpoint', type=Path, required=True, help="a run's directory, or a converted checkpoint")
  add('--output', type=Path, required=True, help='directory to write to')
  place = parser.add_mutually_exclusive_group()
  place.add_argument('--keyframe', type=int, metavar='N', help='frame number (default: middle)')
  place.add_argument('--time', type=float, metavar='SECONDS', help='time of the frame, instead')
  add(
    '--keep-rate',
    type=float,
    nargs='+',
    metavar='R',
    help="overrides the checkpoint's; one for all pruning blocks, or one for each",
  )
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  command_line.keep_programs()
  source = video_source.find(args.video)
  rates = args.keep_rate and (args.keep_rate[0] if len(args.keep_rate) == 1 else args.keep_rate)
  detector = Detector.from_checkpoint(args.checkpoint, keep_rate=rates)
  check_prunes(detector, args.checkpoint)
  keyframe = args.keyframe
  if keyframe is None and args.time is None:
    keyframe = video_source.middle(source)
  with video_source.opened(source) as video:
    clip = read_clip(
      video,
      detector.clip_frames,
      detector.frame_stride,
      keyframe=keyframe,
      seconds=args.time,
    )
  keyframe = clip.numbers[len(clip.numbers) // 2]
  rate = detector.model.keep_rate
  title = f'{Path(source.name).name}, keyframe {keyframe} at {clip.seconds:.2f} s, keep rate {rate}'
  pruned = look(detector, clip, title)
  print(title)
  for path in write_all(pruned, args.output):
    print(f'  {path}')


if __name__ == '__main__':
  command_line.run(main)
