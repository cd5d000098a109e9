"""From one annotated video to its records: which frames are kept, which boxes, as what bytes.

A record holds up to `RUN` keyframes of one video and every frame that one of their clips needs,
once; neighbouring clips share most of their frames, so this takes a small part of what one record
a keyframe would take.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from data_prep import video
from data_prep.annotations import VideoAnnotation
from evad_jax.data.clip_sampling import clip_frame_numbers
from evad_jax.data.records import Record

RUN = 32  # keyframes a record


class Settings(NamedTuple):
  """What decides the frames of a record and their bytes."""

  clip_frames: int = 16
  frame_stride: int = 4
  short_side: int | None = None  # pixels; None keeps the video's own size
  jpeg_quality: int = 95


class Boxes(NamedTuple):
  """The boxes of a video, by frame; M rows."""

  frames: np.ndarray  # (M,) int64, 0-based, never falling
  boxes: np.ndarray  # (M, 4) float32 xyxy in [0, 1]
  labels: np.ndarray  # (M,) int64


class Run(NamedTuple):
  """The plan of one record."""

  keyframes: np.ndarray  # (K,) int64
  frame_numbers: np.ndarray  # (F,) int64


def normalised_boxes(annotation: VideoAnnotation) -> tuple[Boxes, dict[str, int]]:
  """All boxes of a video, clipped to the frame, those without an area dropped.

  Returns:
    The boxes, and how many were 'box outside the frame' and 'box without area'.
  """
  tubes = annotation.tubes
  frames = np.concatenate([tube.frames for tube in tubes] or [np.zeros(0, np.int64)])
  labels = np.concatenate([np.full(len(tube.frames), tube.label) for tube in tubes] or [[]])
  pixels = np.concatenate([tube.boxes for tube in tubes] or [np.zeros((0, 4))])
  size = np.array([annotation.width, annotation.height] * 2, np.float32)
  exact = pixels.astype(np.float32) / size
  clipped = np.clip(exact, 0, 1)
  real = (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
  order = np.argsort(frames[real], kind='stable')
  found = {
    'box outside the frame': int((real & (exact != clipped).any(axis=1)).sum()),
    'box without area': int((~real).sum()),
  }
  kept = (column[real][order] for column in (frames, clipped, labels.astype(np.int64)))
  return Boxes(*kept), found


def plan_runs(keyframes: np.ndarray, num_frames: int, settings: Settings) -> list[Run]:
  """Cuts increasing keyframes into runs and lists the frames that each run needs."""
  runs = []
  for start in range(0, len(keyframes), RUN):
    mine = keyframes[start : start + RUN]
    clip, stride = settings.clip_frames, settings.frame_stride
    needed = [clip_frame_numbers(int(k), num_frames, clip, stride) for k in mine]
    runs.append(Run(mine, np.unique(np.concatenate(needed))))
  return runs


def keyframes_of(boxes: Boxes, every: int, num_frames: int) -> np.ndarray:
  """Every n-th frame of those that exist and have a box."""
  return np.unique(boxes.frames[boxes.frames < num_frames])[::every]


def encode_frame(frame: np.ndarray, settings: Settings) -> bytes:
  """(H, W, 3) uint8 RGB -> JPEG; made smaller first if it is larger than the short side allows."""
  height, width = frame.shape[:2]
  side = settings.short_side
  if side is not None and min(height, width) > side:
    scale = side / min(height, width)
    size = (round(width * scale), round(height * scale))
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
  # 4:2:0, as the videos themselves are stored.
  return simplejpeg.encode_jpeg(
    np.ascontiguousarray(frame), settings.jpeg_quality, colorspace='RGB', colorsubsampling='420'
  )


def video_records(
  name: str, path: Path, boxes: Boxes, num_frames: int, every: int, classes: int, settings: Settings
) -> tuple[list[Record], int]:
  """Decodes a video and makes its records.

  Args:
    name: of the video, kept in the records.
    path: of the file.
    boxes: of the video, from `normalised_boxes`.
    num_frames: as annotated; where decoding counts another number, that number is right.
    every: step between keyframes, in annotated frames.
    classes: A.
    settings: see there.

  Returns:
    The records, in order, and the number of decoded frames.

  Raises:
    InputError: the video cannot be decoded.
  """
  runs = plan_runs(keyframes_of(boxes, every, num_frames), num_frames, settings)
  encoded, decoded = _encode_needed(path, runs, settings)
  if decoded != num_frames and decoded > 0:  # other frames are needed at the end: once more
    runs = plan_runs(keyframes_of(boxes, every, decoded), decoded, settings)
    encoded, decoded = _encode_needed(path, runs, settings)
  records = []
  if runs and decoded:
    height, width, _, _ = simplejpeg.decode_jpeg_header(next(iter(encoded.values())))
    rate = video.frames_per_second(path)
    head = (name, rate, decoded, height, width)
    records = [_record(head, run, encoded, boxes, classes) for run in runs]
  return records, decoded


def _encode_needed(path: Path, runs: list[Run], settings: Settings) -> tuple[dict[int, bytes], int]:
  """The JPEG bytes of every frame that a run needs, by number, and the count of all frames."""
  needed = {int(number) for run in runs for number in run.frame_numbers}
  encoded, decoded = {}, 0
  for number, frame in enumerate(video.decode(path)):
    decoded = number + 1
    if number in needed:
      encoded[number] = encode_frame(frame, settings)
  return encoded, decoded


def _record(head: tuple, run: Run, encoded: dict, boxes: Boxes, classes: int) -> Record:
  mine = np.isin(boxes.frames, run.keyframes)
  return Record(
    *head,
    frames=[encoded[int(number)] for number in run.frame_numbers],
    frame_numbers=run.frame_numbers,
    keyframes=run.keyframes,
    boxes=boxes.boxes[mine],
    box_keyframe=np.searchsorted(run.keyframes, boxes.frames[mine]),
    labels=np.eye(classes, dtype=np.uint8)[boxes.labels[mine]],
  )
