"""A frame-mAP as a table for the terminal and as a dictionary for a JSON file."""

import math
from collections.abc import Sequence

from evad_jax.metrics.average_precision import AveragePrecision
from evad_jax.metrics.frame_map import FrameMap


def format_table(result: FrameMap, class_names: Sequence[str]) -> str:
  """Aligned lines: class, AP in per cent, ground-truth boxes, detections; then mean and person AP.

  A class without ground truth shows a dash and is not in the mean. Raises ValueError unless there
  is one name a class.
  """
  _check_names(result, class_names)
  threshold = f'{result.iou_threshold:g}'
  heads = ('class', f'AP@{threshold}', 'truth boxes', 'detections')
  rows = [
    _row(name, ap.value, ap.num_truth, ap.num_detections)
    for name, ap in zip(class_names, result.per_class, strict=True)
  ]
  num_labels = sum(ap.num_truth for ap in result.per_class)
  person = result.person
  scored = sum(ap.num_truth > 0 for ap in result.per_class)
  last = [
    _row(f'mean of {scored} classes', result.mean_ap, num_labels, result.num_detections),
    _row('person', person.value, person.num_truth, person.num_detections),
  ]
  widths = [max(len(row[i]) for row in (heads, *rows, *last)) for i in range(len(heads))]
  rule = '-' * (sum(widths) + 2 * (len(widths) - 1))
  lines = [_align(heads, widths), rule, *(_align(row, widths) for row in rows), rule]
  return '\n'.join([*lines, *(_align(row, widths) for row in last), _counts_line(result)])


def as_dictionary(result: FrameMap, class_names: Sequence[str]) -> dict:
  """What a JSON file keeps: plain numbers in [0, 1], None where a class has no ground truth."""
  _check_names(result, class_names)
  threshold = f'{result.iou_threshold:g}'
  return {
    f'frame_mAP@{threshold}': _json_number(result.mean_ap),
    f'person_AP@{threshold}': _json_number(result.person.value),
    'scoring': result.scoring,
    'per_class': {
      name: {
        f'AP@{threshold}': _json_number(ap.value),
        'truth_boxes': ap.num_truth,
        'detections': ap.num_detections,
      }
      for name, ap in zip(class_names, result.per_class, strict=True)
    },
    'counts': {
      'frames': result.num_frames,
      'truth_boxes': result.num_truth_boxes,
      'truth_labels': sum(ap.num_truth for ap in result.per_class),
      'detected_boxes': result.num_boxes,
      'detections': result.num_detections,
      'proposals': result.person.num_detections,
    },
  }


def _check_names(result: FrameMap, class_names: Sequence[str]) -> None:
  if len(class_names) != len(result.per_class):
    raise ValueError(
      f'{len(class_names)} class names were given for {len(result.per_class)} classes.'
    )
  if len(set(class_names)) != len(class_names):
    raise ValueError('two classes have the same name.')


def _row(name: str, value: float, num_truth: int, num_detections: int) -> tuple[str, ...]:
  figure = '-' if math.isnan(value) else f'{100 * value:.2f}'
  return name, figure, f'{num_truth:,}', f'{num_detections:,}'


def _json_number(value: float) -> float | None:
  return None if math.isnan(value) else value  # NaN is no JSON


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
  first, *numbers = (
    cell.ljust(width) if i == 0 else cell.rjust(width)
    for i, (cell, width) in enumerate(zip(row, widths, strict=True))
  )
  return '  '.join([first, *numbers])


def _counts_line(result: FrameMap) -> str:
  ap: AveragePrecision = result.person
  return (
    f'{result.num_frames:,} frames, {result.num_truth_boxes:,} people; '
    f'{result.num_boxes:,} of {ap.num_detections:,} proposals scored by {result.scoring}'
  )
