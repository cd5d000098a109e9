"""The form that every annotation file is read into: tubes of boxes, video by video."""

from typing import NamedTuple

import numpy as np

NO_FRAMES = np.zeros(0, np.int64)


class Tube(NamedTuple):
  """One person doing one action, over n frames."""

  label: int
  frames: np.ndarray  # (n,) int64, 0-based, increasing
  boxes: np.ndarray  # (n, 4) float xyxy in pixels of the annotation's own resolution


class VideoAnnotation(NamedTuple):
  """All annotations of a video.

  Pixels are those of a frame of height x width: 1 x 1 where boxes are normalised, and 0 x 0 where
  the file does not say, so that they are pixels of the video itself.
  """

  num_frames: int  # 0 if the file does not say
  height: int  # of the annotation's resolution, pixels
  width: int
  tubes: list[Tube]
  single_boxes: tuple[Tube, ...] = ()  # of one frame each, of people who are not tracked
  empty_frames: np.ndarray = NO_FRAMES  # (n,) int64, annotated as empty
  fps: float | None = None  # frames are numbered at this rate; None: as they are decoded
  file: str | None = None  # path of the video, below the directory of all videos


class Annotations(NamedTuple):
  """The content of an annotation file."""

  videos: dict[str, VideoAnnotation]  # by 'Class/video_name'
  classes: tuple[str, ...] | None  # in label order; None if the file has no names
  train_videos: list[list[str]] | None  # one list per split; None if the file has no splits
  test_videos: list[list[str]] | None
  splits: dict[str, list[str]] | None = None  # all splits by name, if they have names
