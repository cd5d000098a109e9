"""One pass over a split, every example exactly once: frame-mAP, person AP, CSV, contact sheet."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from evad_jax import contact_sheet, from_config, sharding
from evad_jax.data import pipeline
from evad_jax.data.records import RecordIndex
from evad_jax.metrics import detections_csv, frame_map, report
from evad_jax.model.evad import EVAD
from evad_jax.predict import predict
from evad_jax.structures import Batch, Detections

Params = Any
Predict = Callable[[Params, Batch], tuple[Detections, Batch]]

STRIP_FRAMES = 6  # of a clip, below its keyframe on the contact sheet


class Evaluation(NamedTuple):
  """What one pass found."""

  result: frame_map.FrameMap
  detections: list[detections_csv.DetectionTable]  # one a batch
  tiles: list[contact_sheet.Tile]
  class_names: list[str]

  def metrics(self) -> dict:
    """Figures per class and in all, as plain numbers."""
    return report.as_dictionary(self.result, self.class_names)

  def table(self) -> str:
    """The same for reading."""
    return report.format_table(self.result, self.class_names)


def compile_predict(model: EVAD, mesh: Mesh) -> Predict:
  """jit of `predict`; detections and what belongs to them come back whole on every process."""

  def call(params: Params, batch: Batch) -> tuple[Detections, Batch]:
    # The clips stay where they are: pictures of the sheet come from the local part.
    return predict(model, params, batch), batch._replace(clips=batch.index)

  return jax.jit(call, out_shardings=sharding.replicated(mesh))


def evaluate(
  config: ConfigDict,
  params: Params,
  index: RecordIndex,
  predict_fn: Predict,
  mesh: Mesh,
) -> Evaluation:
  """Evaluates `params` on all examples of `index`.

  Raises InputError where a record cannot be read, or a detection is not finite.
  """
  batch_size = -(-config.eval.batch_size // mesh.shape['data']) * mesh.shape['data']
  settings = from_config.clip_settings(config, keyframe_only=config.eval.keyframe_only)
  state = frame_map.start((config.eval.scoring,), config.eval.person_threshold)
  tables, tiles = [], []
  shown = _spread(len(index), config.eval.sheet_clips)
  batches = pipeline.eval_batches(
    index,
    settings,
    batch_size=batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    **from_config.pipeline_settings(config),
  )
  with (
    batches,
    tqdm(total=len(index), desc=f'evaluating {index.split}', unit='clip', leave=False) as bar,
  ):
    for local in batches:
      detections, batch = jax.device_get(predict_fn(params, sharding.put_batch(local, mesh)))
      # Scored against the boxes as annotated: resizing and clipping would move them a little.
      targets = batch.targets._replace(boxes=batch.frame_boxes)
      state = frame_map.update(state, detections, targets, batch.example_mask, batch.index)
      tables.append(_table(index, detections, batch, config.eval.person_threshold))
      tiles += _tiles(index, local, detections, shown, config.eval.person_threshold)
      bar.update(int(batch.example_mask.sum()))
  result = frame_map.compute(state, range(len(index)), config.eval.scoring)
  return Evaluation(result, tables, tiles, list(index.classes))


def write(evaluation: Evaluation, directory: Path, name: str) -> None:
  """Writes NAME.json, NAME_detections.csv and, with tiles, NAME_sheet.png."""
  directory.mkdir(parents=True, exist_ok=True)
  (directory / f'{name}.json').write_text(json.dumps(evaluation.metrics(), indent=2) + '\n')
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
  index: RecordIndex, local: Batch, detections: Detections, shown: set[int], threshold: float
) -> list[contact_sheet.Tile]:
  """Tiles of this process's clips that are to be shown."""
  chosen_mask = local.example_mask & np.isin(local.index, list(shown))
  if not chosen_mask.any():
    return []
  start = jax.process_index() * len(local.index)
  own = Detections(*(x[start : start + len(local.index)] for x in detections))
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
