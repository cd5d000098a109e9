"""Reads the clip around one keyframe of a video, chosen by number or by time.

The video is read once, from its start to the end of the clip, and no more than the span of a clip
is held in memory.
"""

from typing import NamedTuple

import numpy as np

from evad_jax.data.clip_sampling import clip_frame_numbers
from evad_jax.errors import InputError
from evad_jax.video.clip_stream import Plan
from evad_jax.video.shown import Picture
from evad_jax.video.video_source import OpenSource


class VideoClip(NamedTuple):
  """A clip, and where it comes from."""

  frames: np.ndarray  # (T, H, W, 3) uint8 RGB
  numbers: np.ndarray  # (T,) frame numbers in the video, from 0; entry T // 2 is the keyframe
  seconds: float  # from the first frame to the keyframe


def read_clip(
  video: OpenSource,
  clip_frames: int,
  frame_stride: int,
  *,
  keyframe: int | None = None,
  seconds: float | None = None,
) -> VideoClip:
  """Reads the clip of a keyframe; beyond the ends of the video its first or last frame repeats.

  Args:
    video: an open video, of which nothing has been read.
    clip_frames: T.
    frame_stride: video frames from one frame of the clip to the next.
    keyframe: its number, from 0.
    seconds: time after the first frame at which the keyframe is shown, instead of its number.
      With neither, the keyframe is the middle frame by the header, the first if the header does not
      say, and the last if the header counts too many.

  Raises:
    InputError: the video has no such frame, cannot be decoded, or changes its size.
  """
  chosen = seconds is not None or keyframe is not None
  if not chosen:
    keyframe = (video.num_frames or 0) // 2
  if (keyframe or 0) < 0 or not (seconds or 0) >= 0:  # also rejects NaN
    wrong = f'frame {keyframe}' if seconds is None else f'{seconds} seconds'
    raise InputError(f'{video.name}: {wrong} is not a position in a video; give 0 or more.')
  plan = Plan(clip_frames, frame_stride, 1)
  held: dict[int, tuple[float, Picture]] = {}
  count = 0
  for number, (at, picture, _) in enumerate(video.pictures):
    count = number + 1
    if keyframe is None and at > seconds:
      keyframe = max(number - 1, 0)
    held[number] = at, picture
    if keyframe is None or number < keyframe:
      held.pop(number - plan.before() - 1, None)
    elif number >= keyframe + plan.after():
      break
  if not count:
    raise InputError(f'{video.name}: holds no picture; give another video.')
  if not chosen:
    keyframe = min(keyframe, count - 1)
  end = held[count - 1][0] + 1 / video.fps
  if keyframe is None and seconds < end:
    keyframe = count - 1  # the last one, which stays for one frame interval
  if keyframe is None or keyframe >= count:
    wrong = f'frame {keyframe}' if keyframe is not None else f'{seconds:g} seconds'
    raise InputError(
      f'{video.name}: {wrong} is past its end; it has {count} frames, counted from 0, and '
      f'{end:.2f} seconds; choose an earlier keyframe.'
    )
  numbers = clip_frame_numbers(keyframe, count, clip_frames, frame_stride)
  frames = {number: held[number][1].rgb() for number in np.unique(numbers).tolist()}
  sizes = {frame.shape[:2] for frame in frames.values()}
  if len(sizes) > 1:
    listed = ' and '.join(f'{h} x {w}' for h, w in sorted(sizes))
    raise InputError(
      f'{video.name}: its frames change size around frame {keyframe}: {listed} (height x width); '
      'choose another keyframe.'
    )
  return VideoClip(np.stack([frames[n] for n in numbers.tolist()]), numbers, held[keyframe][0])
