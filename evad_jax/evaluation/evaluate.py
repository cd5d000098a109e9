"""One pass over a split, every example exactly once: metrics, csv, contact sheet.

It always computes frame-mAP (over the classes that the data set scores) and person AP of the
annotated frames. It adds video-mAP if the data set has tubes and every frame of its videos is
evaluated. Boxes are scored in the units of the annotation files, and the csv has exactly the scored
rows in their order, so `evad_jax.tools.score` gives the same metrics.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from evad_jax import boxes as box_ops
from evad_jax.data import pipeline, tube_index
from evad_jax.data.records import RecordIndex
from evad_jax.data.unreadable import Unreadable, summary
from evad_jax.distributed import processes, sharding
from evad_jax.distributed.preemption import Interrupted
from evad_jax.distributed.profiling import Profile
from evad_jax.files import atomic_files
from evad_jax.formats import detections_csv, tube_csv
from evad_jax.inference.predict import predict
from evad_jax.metrics import frame_map, report, video_map
from evad_jax.model.evad import EVAD
from evad_jax.settings import from_config
from evad_jax.structures import Batch, Detections
from evad_jax.tubes.overlap import Tube
from evad_jax.tubes.rules import RULES
from evad_jax.visualization import contact_sheet

Params = Any
Predict = Callable[[Params, Batch], tuple[Detections, Batch]]

STRIP_FRAMES = 6  # of a clip, below its keyframe on the contact sheet


class Evaluation(NamedTuple):
  """The results of one pass."""

  result: frame_map.FrameMap
  video: video_map.VideoMap | None  # None if the split lacks tubes or frames
  detections: detections_csv.ScoredDetections
  tiles: list[contact_sheet.Tile]
  class_names: list[str]
  note: str = ''  # why there is no video-mAP, and what to do
  unreadable: str = ''  # which clips were skipped, in a sentence

  def metrics(self) -> dict:
    """Metrics per class and in total, as plain numbers."""
    figures = report.as_dictionary(self.result, self.class_names)
    if self.unreadable:
      figures['unreadable'] = self.unreadable
    if self.video:
      video = report.video_as_dictionary(self.video, self.class_names)
      figures |= {name: value for name, value in video.items() if name.startswith('video_mAP')}
      figures['video'] = video
    if self.note:
      figures['note'] = self.note
    return figures

  def table(self) -> str:
    """The same metrics as tables to read."""
    tables = [report.format_table(self.result, self.class_names)]
    if self.video:
      tables.append(report.format_video_table(self.video, self.class_names))
    return '\n\n'.join([*tables, *filter(None, [self.note, self.unreadable])])


def compile_predict(model: EVAD, mesh: Mesh) -> Predict:
  """jit of `predict`; detections and the batch, less its clips, come back replicated."""

  def call(params: Params, batch: Batch) -> tuple[Detections, Batch]:
    # The clips stay where they are: the sheet's images come from the local part of the batch.
    return predict(model, params, batch), batch._replace(clips=batch.index)

  return jax.jit(sharding.within(mesh, call), out_shardings=sharding.replicated(mesh))


def evaluate(
  config: ConfigDict,
  params: Params,
  index: RecordIndex,
  predict_fn: Predict,
  mesh: Mesh,
  interrupted: Callable[[], bool] = lambda: False,
  profile: Profile | None = None,
) -> Evaluation:
  """Evaluates `params` on all examples of `index`.

  interrupted: asked after every batch. profile: counts batches. Raises Interrupted if the former
  returns True, and InputError if a record cannot be read or a detection is non-finite.
  """
  batch_size = -(-config.eval.batch_size // mesh.shape['data']) * mesh.shape['data']
  settings = from_config.clip_settings(config, keyframe_only=config.eval.keyframe_only)
  state = frame_map.start((config.eval.scoring,), config.eval.person_threshold)
  tiles, missing = [], Unreadable(index)
  part, parts = sharding.part_of_process(mesh)
  shown = _spread(index.annotated_examples, config.eval.sheet_clips)
  batches = pipeline.eval_batches(
    index,
    settings,
    batch_size=batch_size,
    process_index=part,
    process_count=parts,
    **from_config.pipeline_settings(config),
  )
  with (
    batches,
    profile or contextlib.nullcontext(),
    tqdm(total=len(index), desc=f'evaluating {index.split}', unit='clip', **_bar()) as bar,
  ):
    for local, (detections, batch) in _computed(batches, params, predict_fn, mesh, profile):
      # Scored against the boxes as annotated: resizing and clipping would move them a little.
      targets = batch.targets._replace(boxes=batch.frame_boxes)
      state = frame_map.update(state, detections, targets, batch.example_mask, batch.index)
      own = Detections(*(x[part * len(local.index) :][: len(local.index)] for x in detections))
      tiles += _tiles(index, local, own, shown, config.eval.person_threshold)
      missing.note(batch.index)
      bar.update(int(batch.example_mask.sum()))
      if interrupted():
        raise Interrupted('evaluation')
  lost = list(missing.numbers)
  result, video = score(config, state, index, lost)
  tiles, told = processes.gather(tiles), summary(index, lost)
  found = scored_detections(config, state, index, lost)
  return Evaluation(result, video, found, tiles, list(index.classes), video_note(index), told)


def _computed(
  batches: Iterable[Batch],
  params: Params,
  predict_fn: Predict,
  mesh: Mesh,
  profile: Profile | None = None,
) -> Iterator[tuple[Batch, tuple[Detections, Batch]]]:
  """Local batches in order, each with the predictions on the global one, on the host.

  Devices predict a batch while the one before it is scored.
  """
  waiting: tuple[Batch, Any] | None = None
  for number, local in enumerate(batches, 1):
    if profile:
      profile.before(number)
    following = local, predict_fn(params, sharding.put_batch(local, mesh))
    if waiting:
      yield waiting[0], jax.device_get(waiting[1])
    waiting = following
    if profile:
      profile.after(number, waiting[1])
  if waiting:
    yield waiting[0], jax.device_get(waiting[1])


def score(
  config: ConfigDict, state: frame_map.State, index: RecordIndex, missing: Sequence[int] = ()
) -> tuple[frame_map.FrameMap, video_map.VideoMap | None]:
  """The metrics of a state that has all examples of `index`, each once, but for the missing.

  There is no video-mAP if the split has no tubes, or lacks frames of its videos: see `video_note`.
  """
  scoring, sizes = config.eval.scoring, index.annotated_sizes
  annotated = np.setdiff1d(index.annotated_examples, missing).astype(np.int64)
  scored = [index.classes.index(name) for name in index.scored_classes]
  result = frame_map.compute(
    state if len(annotated) == len(index) else frame_map.only(state, annotated.tolist()),
    annotated.tolist(),
    scoring,
    scored_classes=None if len(scored) == len(index.classes) else scored,
    max_per_frame=config.eval.max_per_frame or None,
    sizes=sizes[annotated],
  )
  truth = tube_index.read_tubes(index)
  if truth is None or not truth.every_frame:
    return result, None
  rule = RULES[config.eval.linking]
  numbers = np.delete(np.arange(len(index)), missing)
  pixels = _linking_sizes(index)[numbers]
  actions = frame_map.tables(state, numbers.tolist(), scoring, sizes=pixels).actions
  videos, keyframes = index.videos[numbers].tolist(), index.keyframes[numbers].tolist()
  places = list(zip(videos, keyframes, strict=True))
  linked = video_map.link_actions(actions, places, rule)
  total = len(set(index.record_video.tolist()))
  bar = tqdm(linked, desc='linking tubes', total=total, unit='video', **_bar())
  detected = dict(bar)
  true_tubes = _tubes_by_video(index, truth, pixels)
  return result, video_map.compute(
    detected, true_tubes, len(index.classes), rule, spatial_only=truth.trimmed
  )


def video_note(index: RecordIndex) -> str:
  """Why a split whose videos have tubes gets no video-mAP, and what to do; '' if it gets one."""
  truth = tube_index.read_tubes(index)
  if truth is None or truth.every_frame:
    return ''
  return (
    f'No video-mAP: of the videos of {index.split} in {index.directory}, only annotated frames are '
    'prepared, and tubes that go on beyond them would not be seen. Prepare all of them with '
    f'`{index.prepare_command} --every-test-frame --overwrite`, or give a csv of detections on all '
    'frames to `python -m evad_jax.tools.score --protocol video`.'
  )


def scored_detections(
  config: ConfigDict, state: frame_map.State, index: RecordIndex, missing: Sequence[int] = ()
) -> detections_csv.ScoredDetections:
  """The rows that `score` counts, by example, as written to a file."""
  read = np.delete(np.arange(len(index)), missing)  # indices of examples
  sizes = index.annotated_sizes[read]
  actions = frame_map.tables(state, read.tolist(), config.eval.scoring, sizes).actions
  example = read[actions.frame]
  if index.class_ids is not None:
    columns, times = detections_csv.COLUMNS, index.timestamps
    numbers = np.array(index.class_ids, np.int64)
  else:
    columns, times = tube_csv.DETECTION_COLUMNS, index.keyframes + 1
    numbers = np.arange(len(index.classes))
  return detections_csv.ScoredDetections(
    tuple(columns),
    index.videos[example],
    times[example],
    actions.boxes,
    numbers,
    actions.scores,
  )


def _bar() -> dict[str, bool]:
  """Settings of a progress bar: it disappears when done, and only one process shows it."""
  return {'leave': False, 'disable': not processes.is_first()}


def _linking_sizes(index: RecordIndex) -> np.ndarray:
  """(E, 2) height and width in which boxes are linked: some rules count pixels.

  Those of the annotation, or of the stored frames if the annotation is not in pixels.
  """
  sizes, stored = index.annotated_sizes, np.stack([index.heights, index.widths], axis=-1)
  return np.where((sizes <= 1).all(axis=1)[:, None], stored, sizes)


def _tubes_by_video(
  index: RecordIndex, truth: tube_index.TrueTubes, sizes: np.ndarray
) -> dict[str, list[Tube]]:
  """The true tubes of every evaluated video, in units of `sizes` (E, 2)."""
  size = dict(zip(index.videos.tolist(), sizes, strict=True))
  tubes: dict[str, list[Tube]] = {video: [] for video in index.record_video.tolist()}
  for video, label, frames, boxes in truth.tubes:
    pixels = box_ops.to_annotated(boxes, np.tile(size[video], (len(boxes), 1)))
    tubes[video].append(Tube(label, frames, pixels))
  return tubes


def write(evaluation: Evaluation, directory: Path, name: str) -> None:
  """Writes NAME.json, NAME_detections.csv and, with tiles, NAME_sheet.png."""
  directory.mkdir(parents=True, exist_ok=True)
  atomic_files.write_json(directory / f'{name}.json', evaluation.metrics())
  detections_csv.write_detections(directory / f'{name}_detections.csv', evaluation.detections)
  if evaluation.tiles:
    contact_sheet.write_contact_sheet(
      directory / f'{name}_sheet.png', evaluation.tiles, evaluation.class_names
    )


def _spread(examples: np.ndarray, count: int) -> set[int]:
  """`count` of the examples, spread evenly."""
  places = np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(int)
  return set(examples[places].tolist())


def _tiles(
  index: RecordIndex, local: Batch, own: Detections, shown: set[int], threshold: float
) -> list[contact_sheet.Tile]:
  """Tiles of those of this process's clips that are shown, with their detections."""
  chosen_mask = local.example_mask & np.isin(local.index, list(shown))
  if not chosen_mask.any():
    return []
  titles = [
    f'{index.videos[i]}  at {index.timestamps[i]}' if real else ''
    for i, real in zip(local.index, local.example_mask, strict=True)
  ]
  return contact_sheet.tiles_of_batch(
    local._replace(example_mask=chosen_mask), own, titles, threshold, STRIP_FRAMES
  )


def make_evaluator(
  config: ConfigDict, model: EVAD, index: RecordIndex, mesh: Mesh
) -> Callable[[Params], Evaluation]:
  """params -> Evaluation, compiled once and reused for every evaluation of a run."""
  return functools.partial(
    evaluate,
    config,
    index=index,
    predict_fn=compile_predict(model, mesh),
    mesh=mesh,
  )
