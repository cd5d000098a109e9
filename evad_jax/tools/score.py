"""Scores detection files: AVA's mAP, or frame-mAP or video-mAP as for UCF101-24 and JHMDB.

  python -m evad_jax.tools.score --protocol ava --labels LIST.pbtxt --groundtruth GT.csv \\
    --detections DET.csv --excluded EXCLUDED.csv --json OUT.json --plot OUT.png
  python -m evad_jax.tools.score --protocol frame --groundtruth JHMDB-GT.pkl --split 1 2 3 \\
    --detections runs/jhmdb1 runs/jhmdb2 runs/jhmdb3
  python -m evad_jax.tools.score --protocol video --linking greedy --groundtruth UCF101v2-GT.pkl \\
    --detections DET.csv

Detections are csv files, or directories of runs, whose evaluation wrote one; the metrics
equal those of the evaluation. Columns, which a header line may also name in any order:

  ava, ground truth            video,second,x1,y1,x2,y2,action_id[,person_id]
  ava, detections              video,second,x1,y1,x2,y2,action_id,score
  frame, video, ground truth   video,frame,x1,y1,x2,y2,label,tube_id; or annotation pickles, or JSON
                               in ACT's layout
  frame, video, detections     video,frame,x1,y1,x2,y2,label,score

AVA's boxes are normalised by width and height. The others are in pixels; frames count from 1,
labels from 0. The command needs no accelerator library.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from evad_jax import command_line
from evad_jax.errors import InputError
from evad_jax.files import atomic_files
from evad_jax.formats import (
  ava_files,
  class_lists,
  detections_csv,
  ground_truth,
  tube_csv,
  video_lists,
)
from evad_jax.formats.box_table import BoxTable, Counted
from evad_jax.formats.tube_csv import VideoTruth
from evad_jax.metrics import ava_map, error_breakdown, report, scored_boxes, video_map
from evad_jax.tubes.rules import RULES
from evad_jax.visualization import charts

ANNOTATION_SUFFIXES = ('.pkl', '.pickle', '.json')
# Flags without a meaning for a protocol; giving one is an error.
FOREIGN = {
  'ava': ('all_frames', 'linking', 'spatial_only', 'split', 'videos'),
  'frame': ('linking', 'spatial_only'),
  'video': ('all_frames', 'errors'),
}


class Scoring(NamedTuple):
  """The result of one pair of files."""

  results: dict  # for JSON
  tables: list[str]


def main(arguments: Sequence[str] | None = None) -> None:
  """The command line."""
  run(_parser().parse_args(arguments))


def run(options: argparse.Namespace) -> dict:
  """Scores, prints and writes as the flags say; returns what --json saves.

  Raises InputError for files that cannot be used and for flags that do not go together.
  """
  _check(options)
  if options.protocol == 'ava':
    scorings = [_score_ava(options)]
  else:
    splits = options.split or [1]
    scorings = [
      _score_videos(options, _file_of(path, split), split)
      for path, split in zip(options.detections, splits, strict=True)
    ]
  for scoring in scorings:
    print('\n\n'.join(scoring.tables), end='\n\n')
  results = [scoring.results for scoring in scorings]
  result = report.average(results) if len(results) > 1 else results[0]
  for key, value in result.items():
    if '@' in key:
      print(f'{key} {"-" if value is None else f"{value:.12f}"}')
  _write(options, result)
  return result


def _score_ava(options: argparse.Namespace) -> Scoring:
  names = ava_files.read_label_map(options.labels)
  truth = ava_files.read_truth(options.groundtruth)
  detections, lines = detections_csv.read_with_lines(_file_of(options.detections[0]))
  ava_map.check_detections(detections, lines, truth, list(names))
  excluded = ava_files.read_exclusions(options.excluded) if options.excluded else set()
  chosen = ava_map.select(truth, detections, list(names), excluded, options.max_per_frame)
  class_names = class_lists.distinct(list(names.values()), list(names))
  return _score_boxes(options, chosen, class_names, 'mAP')


def _score_videos(options: argparse.Namespace, detections: Path, split: int) -> Scoring:
  truth = _read_truth(options, split)
  class_names = _class_names(options, truth)
  rows = tube_csv.read_detections(detections, list(truth.tubes), len(class_names), truth.num_frames)
  if options.excluded:
    truth, rows = tube_csv.exclude(truth, rows, ava_files.read_exclusions(options.excluded))
  if options.max_per_frame is not None:
    rows = rows.select(rows.highest_per_frame(options.max_per_frame))
  if options.protocol == 'video':
    return _score_tubes(options, truth, rows, class_names)
  chosen = tube_csv.frame_set(truth, rows, options.all_frames)
  return _score_boxes(options, chosen, class_names, 'frame_mAP')


def _score_boxes(
  options: argparse.Namespace, chosen: Counted, class_names: list[str], figure: str
) -> Scoring:
  threshold = _one_threshold(options.iou)
  result = scored_boxes.compute(
    chosen.detections, chosen.truth, len(class_names), chosen.num_frames, threshold
  )
  results = {'protocol': options.protocol, **report.as_dictionary(result, class_names, figure)}
  results['counts'] |= chosen.left_out
  tables = [report.format_table(result, class_names)]
  if options.errors:
    errors = error_breakdown.of_rows(chosen.detections, chosen.truth, len(class_names), threshold)
    results['errors'] = report.errors_as_dictionary(errors, class_names)
    tables.append(report.format_errors(errors))
  return Scoring(results, tables)


def _score_tubes(
  options: argparse.Namespace, truth: VideoTruth, rows: BoxTable, class_names: list[str]
) -> Scoring:
  rule = RULES[options.linking or 'greedy']
  linked = video_map.link_rows(rows, list(truth.tubes), rule)
  total = len(set(rows.video.tolist()))
  tubes = dict(tqdm(linked, desc='linking', total=total, unit='video', leave=False))
  result = video_map.compute(
    tubes,
    truth.tubes,
    len(class_names),
    rule,
    options.iou or video_map.FIGURES,
    options.spatial_only,
  )
  results = {'protocol': 'video', **report.video_as_dictionary(result, class_names)}
  results['counts'] |= {
    'truth_boxes': sum(len(tube.frames) for some in truth.tubes.values() for tube in some),
    'detections': len(rows.frame),
    'frames_with_detections': len(np.unique(rows.frame_of_all)),
  }
  return Scoring(results, [report.format_video_table(result, class_names)])


def _file_of(path: Path, split: int | None = None) -> Path:
  """Returns the detection file of a path; in a run's directory, the one its evaluation wrote.

  Raises InputError where a directory has none, or several of which none is for the split.
  """
  if not path.is_dir():
    return path
  found = {file.name: file for file in sorted(path.glob('eval_*_detections.csv'))}
  mine = found.get(f'eval_test{split}_detections.csv')
  if mine is None:  # the file of a split without a number; other numbers are other splits
    other = re.compile(r'eval_(test\d+|.*_keyframe_only)_detections\.csv')
    unnumbered = [file for name, file in found.items() if not other.fullmatch(name)]
    mine = unnumbered[0] if len(unnumbered) == 1 else None
  if mine is None:
    raise InputError(
      f'{path}: eval_test{split or ""}_detections.csv was looked for, but there are: '
      f'{", ".join(found) or "none"}; evaluate the run (python -m evad_jax.main --mode=eval), or '
      'give the file itself.'
    )
  return mine


def _read_truth(options: argparse.Namespace, split: int) -> VideoTruth:
  if options.groundtruth.suffix in ANNOTATION_SUFFIXES:
    truth = ground_truth.read(options.groundtruth, split)
  elif options.split:
    raise InputError(f'{options.groundtruth} has no splits; leave --split out.')
  else:
    truth = tube_csv.read_truth(options.groundtruth)
  if not options.videos:
    return truth
  listed = video_lists.read(options.videos, truth.tubes)
  truth = ground_truth.only(truth, listed, options.videos)
  if listed.others:  # UCF101's own lists have 101 classes, of which 24 are annotated
    print(
      f'{options.videos}: {len(listed.others)} of its videos have no ground truth and are left '
      f'out; the first is {listed.others[0]}\n'
    )
  return truth


def _class_names(options: argparse.Namespace, truth: VideoTruth) -> list[str]:
  """Class names by label: from --labels, else from the ground truth, else numbers."""
  last = max([tube.label for some in truth.tubes.values() for tube in some], default=-1)
  if options.labels:
    names = class_lists.by_label(options.labels)
  elif truth.class_names is not None:
    names = list(truth.class_names)
  else:
    names = [f'class {label}' for label in range(last + 1)]
  if last >= len(names):
    raise InputError(
      f'{options.groundtruth} has label {last}, but there are {len(names)} class names; '
      'give the --labels that belong to it.'
    )
  return class_lists.distinct(names, range(len(names)))


def _one_threshold(figures: Sequence[str] | None) -> float:
  figures = figures or ['0.5']
  thresholds = video_map.thresholds(figures[0])
  if len(figures) > 1 or len(thresholds) > 1:
    raise InputError('give one --iou threshold; ranges belong to --protocol video.')
  return thresholds[0]


def _check(options: argparse.Namespace) -> None:
  charts.check_installed(options.plot)
  for name in FOREIGN[options.protocol]:
    if getattr(options, name):
      flag = '--' + name.replace('_', '-')
      raise InputError(f'{flag} means nothing to --protocol {options.protocol}; leave it out.')
  if options.protocol == 'ava' and not options.labels:
    raise InputError('--protocol ava needs --labels: the list of the scored classes.')
  if options.max_per_frame is not None and options.max_per_frame < 1:
    raise InputError(f'--max-per-frame is {options.max_per_frame}; give at least 1.')
  pairs = 1 if options.protocol == 'ava' else len(options.split or [1])
  if len(options.detections) != pairs:
    raise InputError(
      f'{len(options.detections)} detection files were given for {pairs} '
      f'{"split" if pairs == 1 else "splits"}; give one for each.'
    )


def _write(options: argparse.Namespace, result: dict) -> None:
  try:
    if options.json:
      options.json.parent.mkdir(parents=True, exist_ok=True)
      atomic_files.write_json(options.json, result, allow_nan=False)
    if options.plot:
      _plot(options, result)
  except OSError as error:
    raise InputError(
      f'{error.filename} cannot be written ({error.strerror}); give another path.'
    ) from error


def _plot(options: argparse.Namespace, result: dict) -> None:
  figures = [key for key in result if 'mAP@' in key]
  shown = next((key for key in figures if key.endswith('@0.5')), figures[0])
  threshold = shown.split('@')[1]
  bars = [
    charts.Bar(name, entry[f'AP@{threshold}'], entry.get('truth_boxes', entry.get('truth_tubes')))
    for name, entry in result['per_class'].items()
  ]
  mean = result[shown] or 0.0
  title = f'{shown} {100 * mean:.2f}   {", ".join(path.name for path in options.detections)}'
  charts.write(options.plot, charts.bar_chart(title, mean, bars))


def _parser() -> argparse.ArgumentParser:
  parser = command_line.Parser('evad_jax.tools.score', __doc__)
  add = parser.add_argument
  add('--protocol', required=True, choices=('ava', 'frame', 'video'), help='what to compute')
  add('--groundtruth', required=True, type=Path, help='csv, or an annotation pickle or JSON file')
  add(
    '--detections',
    required=True,
    type=Path,
    nargs='+',
    help='csv, or directory of a run; one per --split, averaged over splits (JHMDB: 3)',
  )
  add(
    '--labels',
    type=Path,
    help='action list (.pbtxt); frame and video: also a class name per line, in label order',
  )
  add('--excluded', type=Path, help='csv of video,second (or video,frame) to leave out')
  add(
    '--max-per-frame',
    type=int,
    metavar='N',
    help="count only the N highest scores of a frame, as AVA's challenge server does with 50",
  )
  add(
    '--iou',
    nargs='+',
    metavar='T',
    help='IoU threshold (0.5); for video several, and ranges such as 0.5:0.95 '
    f'({" ".join(video_map.FIGURES)})',
  )
  add('--errors', action='store_true', help='also report how much each kind of error costs')
  add(
    '--all-frames',
    action='store_true',
    help='frame: also count detections on frames without ground truth',
  )
  add('--linking', choices=tuple(RULES), help='video: how boxes are linked to tubes (greedy)')
  add(
    '--spatial-only',
    action='store_true',
    help='video: ignore the temporal overlap; for videos trimmed to the action, as in JHMDB',
  )
  add('--split', type=int, nargs='+', metavar='N', help='of the annotations, from 1 (default 1)')
  add('--videos', type=Path, help='list of the videos to score, one per line (testlist01.txt)')
  add('--json', type=Path, help='write all metrics to this file')
  add('--plot', type=Path, help='plot the average precision of every class, as PNG')
  return parser


if __name__ == '__main__':
  command_line.run(main)
