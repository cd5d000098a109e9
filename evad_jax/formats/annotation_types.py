"""What every annotation file becomes: tubes of boxes, video by video."""

from typing import NamedTuple

import numpy as np

from evad_jax import limits
from evad_jax.errors import InputError
from evad_jax.formats.problems import Problems, complain

NO_FRAMES = np.zeros(0, np.int64)


class Tube(NamedTuple):
  """One person doing one action, over n frames."""

  label: int
  frames: np.ndarray  # (n,) int64, 0-based, increasing
  boxes: np.ndarray  # (n, 4) float xyxy in pixels of the annotation's own resolution


class VideoAnnotation(NamedTuple):
  """All that is annotated in a video.

  Pixels are those of a frame of height x width; 1 x 1 where boxes are normalised, and 0 x 0 where
  the file does not say, so that they are pixels of the video itself.
  """

  num_frames: int  # 0 where the file does not say
  height: int  # of the annotation's resolution, pixels
  width: int
  tubes: list[Tube]
  single_boxes: tuple[Tube, ...] = ()  # of one frame each, of people who are not followed
  empty_frames: np.ndarray = NO_FRAMES  # (n,) int64, where somebody looked and saw nobody
  fps: float | None = None  # frames are numbered at this rate; None: as they are decoded
  file: str | None = None  # of the video, below the directory of all videos


class Annotations(NamedTuple):
  """A whole annotation file."""

  videos: dict[str, VideoAnnotation]  # by 'Class/video_name'
  classes: tuple[str, ...] | None  # in label order; None where the file has no names
  train_videos: list[list[str]] | None  # one list a split; None where the file has no splits
  test_videos: list[list[str]] | None
  splits: dict[str, list[str]] | None = None  # all splits by their names, where they have names


def video_annotation(
  name: str, num_frames: int, height: int, width: int, tubes: list[Tube]
) -> VideoAnnotation:
  """The same, of the numbers that a file has; InputError where there are no such videos."""
  for what, number, most in (
    ('frames', num_frames, limits.LARGEST_FRAME),
    ('rows of pixels', height, limits.LARGEST_SIDE),
    ('columns of pixels', width, limits.LARGEST_SIDE),
  ):
    if not 0 <= int(number) <= most:
      raise InputError(f'{name}: has {number} {what}, not 0 to {most}')
  return VideoAnnotation(int(num_frames), int(height), int(width), tubes)


def numbered(name: str, first: int, end: int, boxes: np.ndarray) -> np.ndarray:
  """The frames from `first` to before `end`, one a box; InputError where they are not as many."""
  first, end = int(first), int(end)
  if end - first != len(boxes):
    raise InputError(f'{name}: bad tube: frames {first} to {end - 1} have {len(boxes)} boxes')
  return np.arange(first, end)


def checked_tube(
  name: str,
  label: int,
  frames: np.ndarray,  # (n,) numbers from 0
  boxes: np.ndarray,  # (n, 4) numbers
  problems: Problems | None,
  num_classes: int = limits.LARGEST_CLASS + 1,
) -> list[Tube]:
  """The tube, of every frame its first row; or none, if it is beyond repair."""
  fault = ''
  if not 0 <= label < num_classes:
    fault = f'there is no class {label}; they go from 0 to {num_classes - 1}'
  elif boxes.shape != (len(frames), 4):
    fault = f'{len(frames)} frames have boxes of shape {boxes.shape}'
  elif not (np.abs(boxes) <= limits.LARGEST_COORDINATE).all():
    fault = 'a box is not finite, or beyond any picture'
  elif not np.isfinite(frames).all() or (frames % 1 != 0).any():
    fault = 'its frames are no whole numbers'
  elif len(frames) and (frames[0] < 0 or (np.diff(frames) < 0).any()):
    fault = 'its frames do not increase from 0'
  elif len(frames) and frames[-1] > limits.LARGEST_FRAME:
    fault = f'no video has a frame {frames[-1]:.0f}'
  if fault:
    complain(problems, 'bad tube', name, fault, 'left out')
    return []
  first = np.diff(frames, prepend=-1) > 0
  if not first.all():
    fault = f'{(~first).sum()} rows repeat a frame of their tube'
    complain(problems, 'duplicate row', name, fault, 'left out')
  return [Tube(label, frames[first].astype(np.int64), boxes[first])]
