"""Writes the detections of a video as csv and JSON lines while it is being read.

    PREFIX_detections.csv    one row per person, keyframe and action
    PREFIX_detections.jsonl  one line per keyframe
    PREFIX_tubes.csv         one row per person and keyframe: who was where when
    PREFIX_tubes.jsonl       one line per person, written once they are gone

Frames count from 1, labels from 0; boxes are xyxy pixels of the video, so `evad_jax.tools.score`
reads the detections as they are. A detector trained with a label map adds its action_id. Every
line is complete, so an interrupted run keeps all of them.
"""

import contextlib
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evad_jax import boxes as box_ops
from evad_jax.errors import InputError
from evad_jax.formats import class_lists
from evad_jax.formats.video_lists import VIDEO_SUFFIXES
from evad_jax.inference.person_tracks import People

DETECTIONS = 'video,frame,seconds,person_id,x1,y1,x2,y2,person_score,label,action,score'.split(',')
TUBES = 'video,person_id,frame,seconds,x1,y1,x2,y2,person_score'.split(',')
NAMES = ('detections.csv', 'detections.jsonl', 'tubes.csv', 'tubes.jsonl')


class Tube(NamedTuple):
  """What is kept of a person who may return; sums, so that memory does not grow."""

  first: tuple[int, float]  # frame from 1, and seconds
  last: tuple[int, float]
  count: int  # keyframes
  person_score: float  # sum
  action_scores: np.ndarray  # (A,) float64, sums
  highest: np.ndarray  # (A,)


def prefix_of(output: Path) -> Path:
  """The prefix of the file names: the output's name without a video suffix.

  Other dots belong to the name: cam.1 and cam.2 are two outputs.
  """
  return output.with_suffix('') if output.suffix.lower() in VIDEO_SUFFIXES else output


def paths(prefix: Path) -> list[Path]:
  """The files written for a prefix."""
  return [prefix.with_name(f'{prefix.name}_{name}') for name in NAMES]


class DetectionFiles(contextlib.AbstractContextManager):
  """The four files; close them, or use as a context manager."""

  def __init__(
    self,
    prefix: Path,
    video: str,
    classes: Sequence[str],
    lowest_score: float,
    class_ids: Sequence[int] | None = None,
  ):
    """lowest_score: actions below it are left out; 0 keeps all, as scoring requires.

    class_ids: ids of the classes in their label map, if they have one.

    Raises InputError if they cannot be written.
    """
    self._video, self._lowest = video, lowest_score
    self._classes = class_lists.distinct(classes, class_ids or range(len(classes)))
    self._class_ids = class_ids
    self._tubes: dict[int, Tube] = {}
    self.num_people, self.num_keyframes = 0, 0
    self._paths = paths(prefix)
    try:
      prefix.parent.mkdir(parents=True, exist_ok=True)
      # Line buffered, so that a killed program loses nothing.
      self._files = [
        path.open('w', encoding='utf-8', newline='', buffering=1) for path in self._paths
      ]
    except OSError as error:
      raise InputError(f'{prefix}: the results cannot be written ({error}).') from error
    self._detections, self._tube_rows = (
      csv.writer(self._files[i], lineterminator='\n') for i in (0, 2)
    )
    self._detections.writerow(DETECTIONS + ['action_id'] * bool(class_ids))
    self._tube_rows.writerow(TUBES)

  def add(self, people: People, seconds: float, size: tuple[int, int]) -> None:
    """Writes the people of a keyframe; size: height and width of the video's frames, pixels."""
    frame, seconds = people.frame + 1, round(seconds, 4)
    pixels = box_ops.to_pixels(people.boxes.astype(np.float64), size)
    listed = []
    for place, person in enumerate(people.ids.tolist()):
      box = pixels[place].round(2).tolist()
      score = _digits(people.person_scores[place])
      actions = people.action_scores[place]
      named = {
        label: _digits(actions[label])
        for label in np.argsort(-actions, kind='stable').tolist()
        if actions[label] >= self._lowest
      }
      for label, action_score in named.items():
        name = self._classes[label]
        row = [self._video, frame, seconds, person, *box, score, label, name, action_score]
        self._detections.writerow(row + [self._class_ids[label]] if self._class_ids else row)
      self._tube_rows.writerow([self._video, person, frame, seconds, *box, score])
      self._continue(person, frame, seconds, score, actions)
      by_name = {self._classes[label]: value for label, value in named.items()}
      listed.append({'id': person, 'box': box, 'score': score, 'actions': by_name})
    self.num_keyframes += 1
    self._write_line(1, {'frame': frame, 'seconds': seconds, 'people': listed})
    for person in people.ended:
      self._end(person)

  def _continue(
    self, person: int, frame: int, seconds: float, score: float, actions: np.ndarray
  ) -> None:
    actions, now = actions.astype(np.float64), (frame, seconds)
    tube = self._tubes.get(person)
    if tube is None:
      self.num_people += 1
      self._tubes[person] = Tube(now, now, 1, score, actions, actions)
    else:
      self._tubes[person] = Tube(
        tube.first,
        now,
        tube.count + 1,
        tube.person_score + score,
        tube.action_scores + actions,
        np.maximum(tube.highest, actions),
      )

  def _end(self, person: int) -> None:
    """Writes the line of a person who cannot return."""
    tube = self._tubes.pop(person)
    mean = tube.action_scores / tube.count
    order = [i for i in np.argsort(-mean, kind='stable').tolist() if mean[i] >= self._lowest]
    summary = {
      'id': person,
      'first_frame': tube.first[0],
      'last_frame': tube.last[0],
      'first_seconds': tube.first[1],
      'last_seconds': tube.last[1],
      'keyframes': tube.count,
      'score': _digits(tube.person_score / tube.count),
      'actions': {
        self._classes[i]: {'mean': _digits(mean[i]), 'highest': _digits(tube.highest[i])}
        for i in order
      },
    }
    self._write_line(3, summary)

  def _write_line(self, file: int, content: dict[str, Any]) -> None:
    self._files[file].write(json.dumps({'video': self._video} | content, ensure_ascii=False) + '\n')

  def close(self) -> None:
    """Ends the remaining tubes and closes the files."""
    if self._files:
      for person in sorted(self._tubes):
        self._end(person)
    for file in self._files:
      file.close()
    self._files = []

  def __exit__(self, kind: type[BaseException] | None, *exception: Any) -> None:
    """Closes the files; removes them if bad input left them empty."""
    self.close()
    if kind is not None and issubclass(kind, InputError) and not self.num_keyframes:
      for path in self._paths:
        path.unlink(missing_ok=True)


def _digits(score: float) -> float:
  """The fewest digits that identify a float32 score: fewer would create ties."""
  return float(str(np.float32(score)))
