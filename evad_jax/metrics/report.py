"""Metrics as tables for the terminal and as dictionaries for JSON files."""

import math
from collections.abc import Mapping, Sequence

from evad_jax import command_line
from evad_jax.metrics.error_breakdown import KINDS, SIZES, Breakdown
from evad_jax.metrics.frame_map import FrameMap
from evad_jax.metrics.video_map import VideoMap


def format_table(result: FrameMap, class_names: Sequence[str]) -> str:
  """Aligned lines: class, AP in per cent, ground-truth boxes, detections; then mean and person AP.

  A class without ground truth shows a dash and is not in the mean. Raises ValueError unless there
  is one name per class.
  """
  class_names = _names(result, class_names)
  threshold = f'{result.iou_threshold:g}'
  heads = ('class', f'AP@{threshold}', 'truth boxes', 'detections')
  rows = [
    (name, _percent(ap.value), f'{ap.num_truth:,}', f'{ap.num_detections:,}')
    for name, ap in zip(class_names, result.per_class, strict=True)
  ]
  num_labels = sum(ap.num_truth for ap in result.per_class)
  person = result.person
  scored = sum(ap.num_truth > 0 for ap in result.per_class)
  last = [
    (
      f'mean of {scored} classes',
      _percent(result.mean_ap),
      f'{num_labels:,}',
      f'{result.num_detections:,}',
    ),
    ('person', _percent(person.value), f'{person.num_truth:,}', f'{person.num_detections:,}'),
  ]
  counts = (
    f'{result.num_frames:,} frames, {result.num_truth_boxes:,} people; '
    f'{result.num_boxes:,} of {person.num_detections:,} proposals scored by {result.scoring}'
  )
  return '\n'.join([_table(heads, rows, last), counts])


def as_dictionary(result: FrameMap, class_names: Sequence[str], figure: str = 'frame_mAP') -> dict:
  """The content of a JSON file: plain numbers in [0, 1], None for a class without ground truth.

  `figure` is the name of the mean metric: AVA's is `mAP`.
  """
  class_names = _names(result, class_names)
  threshold = f'{result.iou_threshold:g}'
  return {
    f'{figure}@{threshold}': _json_number(result.mean_ap),
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


def format_video_table(result: VideoMap, class_names: Sequence[str]) -> str:
  """Aligned lines: class, AP in per cent at every threshold, truth tubes, tubes; then the mean."""
  per_class = list(zip(*result.figures.values(), strict=True))
  _check_names(len(per_class), class_names)
  heads = ('class', *(f'AP@{figure}' for figure in result.figures), 'truth tubes', 'tubes')
  rows = [
    (
      name,
      *(_percent(ap.value) for ap in aps),
      f'{aps[0].num_truth:,}',
      f'{_tubes(aps):,}',
    )
    for name, aps in zip(class_names, per_class, strict=True)
  ]
  scored = sum(aps[0].num_truth > 0 for aps in per_class)
  last = (
    f'mean of {scored} classes',
    *(_percent(result.mean_ap(figure)) for figure in result.figures),
    f'{result.num_truth_tubes:,}',
    f'{result.num_tubes:,}',
  )
  counts = f'{result.num_videos:,} videos; boxes linked by the rule {result.rule}'
  return '\n'.join([_table(heads, rows, [last]), counts])


def video_as_dictionary(result: VideoMap, class_names: Sequence[str]) -> dict:
  """The content of a JSON file for video-mAP, as `as_dictionary` for frame-mAP."""
  per_class = list(zip(*result.figures.values(), strict=True))
  _check_names(len(per_class), class_names)
  means = {f'video_mAP@{figure}': _json_number(result.mean_ap(figure)) for figure in result.figures}
  return {
    **means,
    'linking': result.rule,
    'per_class': {
      name: {
        **{
          f'AP@{figure}': _json_number(ap.value)
          for figure, ap in zip(result.figures, aps, strict=True)
        },
        'truth_tubes': aps[0].num_truth,
        'tubes': _tubes(aps),
      }
      for name, aps in zip(class_names, per_class, strict=True)
    },
    'counts': {
      'videos': result.num_videos,
      'truth_tubes': result.num_truth_tubes,
      'tubes': result.num_tubes,
    },
  }


def format_errors(errors: Breakdown) -> str:
  """A small table: what each kind of error costs and how many there are, in total and by size."""
  heads = ('error', 'mAP points', 'errors', *SIZES)
  rows = [
    (
      kind,
      _percent(errors.costs[i]),
      f'{errors.counts[:, i].sum():,}',
      *(f'{count:,}' for count in errors.size_counts[:, i]),
    )
    for i, kind in enumerate(KINDS)
  ]
  truth, found = errors.size_truth, errors.size_found
  last = [
    ('truth labels', '', f'{truth.sum():,}', *(f'{count:,}' for count in truth)),
    ('found', '', f'{found.sum():,}', *(f'{count:,}' for count in found)),
  ]
  return _table(heads, rows, last)


def errors_as_dictionary(errors: Breakdown, class_names: Sequence[str]) -> dict:
  """The content of a JSON file for the errors: costs in [0, 1], counts, by class and by size."""
  _check_names(len(errors.counts), class_names)
  return {
    'kinds': _by_kind(errors.costs, errors.counts.sum(axis=0)),
    'per_class': {
      name: _by_kind(costs, counts)
      for name, costs, counts in zip(class_names, errors.class_costs, errors.counts, strict=True)
    },
    'per_size': {
      size: {
        **dict(zip(KINDS, errors.size_counts[i].tolist(), strict=True)),
        'truth_labels': int(errors.size_truth[i]),
        'found': int(errors.size_found[i]),
      }
      for i, size in enumerate(SIZES)
    },
    'size_limits': errors.size_limits.tolist(),
  }


def _by_kind(costs: Sequence[float], counts: Sequence[int]) -> dict:
  return {
    kind: {'cost': _json_number(cost), 'count': int(count)}
    for kind, cost, count in zip(KINDS, costs, counts, strict=True)
  }


def average(results: Sequence[Mapping]) -> dict:
  """The mean of several dictionaries of one protocol: JHMDB's metrics are means over its splits.

  Metrics, in total and per class, are means over the results that have them. Counts are sums, and
  `splits` keeps the results. Raises ValueError for results of different kinds.
  """
  first = results[0]
  if any(list(result) != list(first) for result in results):
    raise ValueError('only results of one protocol and the same options can be averaged.')
  figures = [key for key, value in first.items() if '@' in key]
  mean = {key: _mean([result[key] for result in results]) for key in figures}
  names = dict.fromkeys(name for result in results for name in result['per_class'])
  per_class = {
    name: _average_class([result['per_class'].get(name, {}) for result in results])
    for name in names
  }
  counts = {key: sum(result['counts'][key] for result in results) for key in first['counts']}
  kept = {key: first[key] for key in ('protocol', 'scoring', 'linking') if key in first}
  return {**kept, **mean, 'per_class': per_class, 'counts': counts, 'splits': list(results)}


def _average_class(entries: Sequence[Mapping]) -> dict:
  keys = dict.fromkeys(key for entry in entries for key in entry)
  return {
    key: _mean([entry.get(key) for entry in entries])
    if '@' in key
    else sum(entry.get(key, 0) for entry in entries)
    for key in keys
  }


def _mean(values: Sequence[float | None]) -> float | None:
  known = [value for value in values if value is not None]
  return math.fsum(known) / len(known) if known else None


def _names(result: FrameMap, class_names: Sequence[str]) -> list[str]:
  """One name for each class of the result, which may have fewer classes than there are names."""
  if result.classes is not None:
    class_names = [class_names[number] for number in result.classes]
  _check_names(len(result.per_class), class_names)
  return list(class_names)


def _check_names(num_classes: int, class_names: Sequence[str]) -> None:
  if len(class_names) != num_classes:
    raise ValueError(f'{len(class_names)} class names were given for {num_classes} classes.')
  if len(set(class_names)) != len(class_names):
    raise ValueError('two classes have the same name.')


def _tubes(aps: Sequence) -> int:
  return aps[0].num_detections


def _percent(value: float) -> str:
  return '-' if math.isnan(value) else f'{100 * value:.2f}'


def _json_number(value: float) -> float | None:
  return None if math.isnan(value) else float(value)  # JSON has no NaN


def _table(
  heads: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[Sequence[str]]
) -> str:
  """Aligned rows between two rules, the first column to the left, then the rows that sum up."""
  head, *lines = command_line.aligned([heads, *rows, *last])
  rule = '-' * len(head)
  return '\n'.join([head, rule, *lines[: len(rows)], rule, *lines[len(rows) :]])
