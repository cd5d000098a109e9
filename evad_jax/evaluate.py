"""One pass over a split, every example exactly once: the figures, CSV, contact sheet.

Frame-mAP (over the classes that the data set scores) and person AP always; video-mAP where the data
set has tubes, that is, where every annotated frame of a video is evaluated.
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

from evad_jax import contact_sheet, distributed, from_config, sharding
from evad_jax.data import pipeline, tube_index, whole_files
from evad_jax.data.records import RecordIndex
from evad_jax.data.unreadable import Unreadable, summary
from evad_jax.errors import InputError
from evad_jax.metrics import detections_csv, frame_map, report, video_map
from evad_jax.model.evad import EVAD
from evad_jax.predict import predict
from evad_jax.preemption import Interrupted
from evad_jax.profiling import Profile
from evad_jax.structures import Batch, Detections
from evad_jax.tubes.overlap import Tube
from evad_jax.tubes.rules import RULES

Params = Any
Predict = Callable[[Params, Batch], tuple[Detections, Batch]]

STRIP_FRAMES = 6  # of a clip, below its keyframe on the contact sheet


class Evaluation(NamedTuple):
  """What one pass found."""

  result: frame_map.FrameMap
  video: video_map.VideoMap | None  # None where the split has no tubes
  detections: list[detections_csv.DetectionTable]  # one a batch
  tiles: list[contact_sheet.Tile]
  class_names: list[str]
  unreadable: str = ''  # which clips were skipped, in a sentence

  def metrics(self) -> dict:
    """Figures per class and in all, as plain numbers."""
    figures = report.as_dictionary(self.result, self.class_names)
    if self.unreadable:
      figures['unreadable'] = self.unreadable
    if self.video:
      video = report.video_as_dictionary(self.video, self.class_names)
      figures |= {name: value for name, value in video.items() if name.startswith('video_mAP')}
      figures['video'] = video
    return figures

  def table(self) -> str:
    """The same for reading."""
    tables = [report.format_table(self.result, self.class_names)]
    if self.video:
      tables.append(report.format_video_table(self.video, self.class_names))
    return '\n\n'.join([*tables, *filter(None, [self.unreadable])])


def compile_predict(model: EVAD, mesh: Mesh) -> Predict:
  """jit of `predict`; detections and what belongs to them come back whole on every process."""

  def call(params: Params, batch: Batch) -> tuple[Detections, Batch]:
    # The clips stay where they are: pictures of the sheet come from the local part.
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

  interrupted: asked after every batch. profile: counts batches. Raises Interrupted where the former
  says so, and InputError where a record cannot be read, a detection is not finite, or config.eval
  asks for a scoring or linking that does not exist.
  """
  if config.eval.linking not in RULES:
    raise InputError(
      f'config.eval.linking={config.eval.linking!r} is not one of {", ".join(RULES)}.'
    )
  batch_size = -(-config.eval.batch_size // mesh.shape['data']) * mesh.shape['data']
  settings = from_config.clip_settings(config, keyframe_only=config.eval.keyframe_only)
  state = frame_map.start((config.eval.scoring,), config.eval.person_threshold)
  tables, tiles, missing = [], [], Unreadable(index)
  part, parts = sharding.part_of_process(mesh)
  shown = _spread(len(index), config.eval.sheet_clips)
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
      tables.append(_table(index, detections, batch, config.eval.person_threshold))
      own = Detections(*(x[part * len(local.index) :][: len(local.index)] for x in detections))
      tiles += _tiles(index, local, own, shown, config.eval.person_threshold)
      missing.note(batch.index)
      bar.update(int(batch.example_mask.sum()))
      if interrupted():
        raise Interrupted('evaluation')
  result, video = score(config, state, index, list(missing.numbers))
  tiles, told = distributed.gather(tiles), summary(index, list(missing.numbers))
  return Evaluation(result, video, tables, tiles, list(index.classes), told)


def _computed(
  batches: Iterable[Batch],
  params: Params,
  predict_fn: Predict,
  mesh: Mesh,
  profile: Profile | None = None,
) -> Iterator[tuple[Batch, tuple[Detections, Batch]]]:
  """Local batches in order, each with what was predicted on the global one, on the host.

  A batch is predicted by the devices while the one before it is scored.
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
  """The figures of a state that has all examples of `index`, each once, but for the missing."""
  scoring, numbers = config.eval.scoring, np.delete(np.arange(len(index)), missing).tolist()
  scored = [index.classes.index(name) for name in index.scored_classes]
  result = frame_map.compute(
    state,
    numbers,
    scoring,
    scored_classes=None if len(scored) == len(index.classes) else scored,
    max_per_frame=config.eval.max_per_frame or None,
  )
  truth = tube_index.read_tubes(index)
  if truth is None:
    return result, None
  rule = RULES[config.eval.linking]
  actions = frame_map.tables(state, numbers, scoring).actions
  videos, keyframes = index.videos[numbers].tolist(), index.keyframes[numbers].tolist()
  places = list(zip(videos, keyframes, strict=True))
  linked = video_map.link_actions(actions, places, rule, _frame_sizes(index)[numbers])
  total = len(set(index.record_video.tolist()))
  bar = tqdm(linked, desc='linking tubes', total=total, unit='video', **_bar())
  detected = dict(bar)
  true_tubes = _tubes_by_video(index, truth)
  return result, video_map.compute(
    detected, true_tubes, len(index.classes), rule, spatial_only=truth.trimmed
  )


def _bar() -> dict[str, bool]:
  """Settings of a progress bar: it goes when it is done, and only one process shows it."""
  return {'leave': False, 'disable': not distributed.is_first()}


def _frame_sizes(index: RecordIndex) -> np.ndarray:
  """(E, 2) height and width: some rules of linking count pixels."""
  return np.stack([index.heights, index.widths], axis=-1)


def _tubes_by_video(index: RecordIndex, truth: tube_index.TrueTubes) -> dict[str, list[Tube]]:
  """The true tubes of every evaluated video, in pixels of its stored frames."""
  size = dict(zip(index.record_video.tolist(), index.record_size.tolist(), strict=True))
  tubes: dict[str, list[Tube]] = {video: [] for video in size}
  for video, label, frames, boxes in truth.tubes:
    height, width = size[video]
    pixels = boxes.astype(np.float64) * [width, height, width, height]
    tubes[video].append(Tube(label, frames, pixels))
  return tubes


def write(evaluation: Evaluation, directory: Path, name: str) -> None:
  """Writes NAME.json, NAME_detections.csv and, with tiles, NAME_sheet.png."""
  directory.mkdir(parents=True, exist_ok=True)
  whole_files.write_json(directory / f'{name}.json', evaluation.metrics())
  detections_csv.write_detections(directory / f'{name}_detections.csv', evaluation.detections)
  if evaluation.tiles:
    contact_sheet.write_contact_sheet(
      directory / f'{name}_sheet.png', evaluation.tiles, evaluation.class_names
    )


def _spread(length: int, count: int) -> set[int]:
  """`count` example numbers spread evenly over a split."""
  return set(np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist())


def _table(
  index: RecordIndex, detections: Detections, batch: Batch, threshold: float
) -> detections_csv.DetectionTable:
  """The rows of a batch: the proposals that are scored, with all their action scores."""
  passing = frame_map.passing_proposals(detections.person_scores, threshold)
  row, proposal = np.nonzero(passing & batch.example_mask[:, None])
  example = batch.index[row]
  return detections_csv.table_of_boxes(
    index.videos[example],
    index.timestamps[example],
    detections.boxes[row, proposal],
    detections.action_scores[row, proposal],
  )


def _tiles(
  index: RecordIndex, local: Batch, own: Detections, shown: set[int], threshold: float
) -> list[contact_sheet.Tile]:
  """Tiles of this process's clips, and of what was detected on them, that are to be shown."""
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
