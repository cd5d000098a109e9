"""Selects the frames of a keyframe's clip (EVAD, arXiv 2304.08451, section 4.1), or of any clip.

T frames at a fixed stride, with the keyframe at index T // 2. Beyond either end of the video, its
first or last frame is repeated. Frames count from 0.

Pre-training takes any clip of T frames that a record holds (VideoMAE, arXiv 2203.12602).
"""

import numpy as np

from evad_jax.errors import InputError


def clip_frame_numbers(
  keyframe: int | np.ndarray, num_frames: int, clip_frames: int, stride: int
) -> np.ndarray:
  """Returns the frame numbers of the clip around a keyframe.

  Args:
    keyframe: frame number in [0, num_frames), or an array (K,) of them.
    num_frames: of the video.
    clip_frames: T.
    stride: between neighbouring clip frames, in frames of the video.

  Returns:
    (T,) or (K, T) int64, non-decreasing, in [0, num_frames); entry T // 2 is the keyframe.

  Raises:
    InputError: the keyframe is not a frame of the video.
  """
  keyframe = np.asarray(keyframe, np.int64)
  if not ((keyframe >= 0) & (keyframe < num_frames)).all():
    raise InputError(
      f'keyframe {keyframe} is not in a video of {num_frames} frames; '
      'correct the annotation and prepare the data again'
    )
  offsets = (np.arange(clip_frames, dtype=np.int64) - clip_frames // 2) * stride
  return np.clip(keyframe[..., None] + offsets, 0, num_frames - 1)


def stored_positions(needed: np.ndarray, stored: np.ndarray, video: str) -> np.ndarray:
  """Finds each needed frame among the stored ones.

  Args:
    needed: (T,) frame numbers.
    stored: (F,) frame numbers, increasing.
    video: for the message.

  Returns:
    (T,) int64, indices in `stored`.

  Raises:
    InputError: a needed frame is not stored.
  """
  positions = np.searchsorted(stored, needed)
  found = positions < len(stored)
  found[found] = stored[positions[found]] == needed[found]
  if not found.all():
    raise InputError(
      f'video {video!r}: frame {needed[~found][0]} of a clip is not stored in its record; '
      'use the clip_frames and frame_stride that the data were prepared with, or prepare them again'
    )
  return positions


def stored_clips(
  stored: np.ndarray, num_frames: int, clip_frames: int, stride: int, video: str
) -> np.ndarray:
  """Lists the clips that stored frames hold, whatever keyframes they were stored for.

  A clip starts at a stored frame and takes every stride-th one; T * stride frames of the video have
  to follow from its start. Where no clip is complete (the video is shorter, or its keyframe is near
  an end), the only clip is the first of the longest; its last frame repeats.

  Args:
    stored: (F,) frame numbers, increasing.
    num_frames: of the video.
    clip_frames: T.
    stride: between neighbouring clip frames, in frames of the video.
    video: for the message.

  Returns:
    (clips, T) int64, indices in `stored`, by increasing start.

  Raises:
    InputError: the frames were stored for another stride: they hold less than half a clip, where
      the video has more.
  """
  numbers = stored[:, None] + np.arange(clip_frames, dtype=np.int64) * stride
  positions = np.minimum(np.searchsorted(stored, numbers), len(stored) - 1)
  lengths = np.cumprod(stored[positions] == numbers, axis=1).sum(axis=1)
  complete = (lengths == clip_frames) & (stored + clip_frames * stride <= num_frames)
  if complete.any():
    return positions[complete]
  first = int(lengths.argmax())
  if lengths[first] < min(clip_frames // 2, (num_frames - 1) // stride):
    raise InputError(
      f'video {video!r}: its record holds no clip of {clip_frames} frames, {stride} apart; '
      'use the clip_frames and frame_stride that the data were prepared with, or prepare them again'
    )
  return positions[first, np.minimum(np.arange(clip_frames), lengths[first] - 1)][None]
