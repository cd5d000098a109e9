"""Checks a checkpoint, and a data set for it, in a minute, before a wrong mAP costs a day.

  python -m evad_jax.tools.verify converted/vit_b
  python -m evad_jax.tools.verify converted/vit_b --directory data/ava --split val

Of the checkpoint: the parameters are finite, fit the model, and are those that were converted; the
output for a generated clip equals the one stored at conversion; the modes that published weights
were trained with are set. Of the data: the checksum of every record, normalised boxes with x1 < x2
and y1 < y2, labels, the number of classes, and their order where they are AVA's.

Exit status 0 if all checks passed, 1 if one failed, 2 if the input cannot be used.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from evad_jax import command_line
from evad_jax.checkpoints import manager, model_settings
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.records import Record, RecordReader
from evad_jax.distributed.parameter_rules import by_path
from evad_jax.errors import InputError
from evad_jax.published import architectures, known_answers

SHOWN = 5  # examples per fault
# Some of AVA's 80 classes by their number from 0: weights trained on AVA need this order.
AVA_CLASSES = {0: 'bend', 10: 'sit', 11: 'stand', 16: 'carry', 58: 'touch', 78: 'talk', 79: 'watch'}


class Check(NamedTuple):
  """One line of the report."""

  passed: bool | None  # None: only a note
  what: str

  def line(self) -> str:
    """The check for people."""
    return f'{ {True: "ok", False: "FAIL", None: "note"}[self.passed]:5}{self.what}'


def check_checkpoint(directory: Path, step: int, settings: dict, params: Any) -> list[Check]:
  """Makes the checks that need no data."""
  source = settings.get('source')
  kind = source['kind'] if source else 'detector'
  if kind == 'detector':
    model = model_settings.saved_settings(settings, directory / str(step))
    model.pop('dtype')
  else:
    model = settings['model']
  checks = [Check(None, source['title'] if source else f'a run of evad_jax, step {step}')]
  checks.append(_check_names(directory, kind, model, params))
  arrays = by_path(params)
  wrong = [path for path, array in arrays.items() if not np.isfinite(array).all()]
  checks.append(Check(not wrong, f'{len(arrays)} arrays are finite' + _examples('not: ', wrong)))
  if not source:
    return [*checks, Check(None, 'only converted checkpoints have known answers')]
  same = known_answers.parameters_hash(params) == settings.get('parameters_sha256')
  checks.append(Check(same, 'the parameters are, bit for bit, those that were converted'))
  if not checks[1].passed or wrong:
    return checks
  checks += _check_answers(kind, model, params, settings.get('known_answers', {}))
  return checks + (_check_modes(model, source) if kind == 'detector' else [])


def _check_names(directory: Path, kind: str, model: dict[str, Any], params: Any) -> Check:
  try:
    architectures.tensors_of(directory, kind, model, params)
  except InputError as error:
    return Check(False, str(error))
  return Check(True, 'names and shapes fit its model')


def _check_answers(kind: str, model: dict[str, Any], params: Any, known: Any) -> list[Check]:
  errors = known_answers.errors(known, known_answers.answers(kind, model, params))
  return [
    Check(
      error <= known_answers.TOLERANCE,
      f'answer to a generated clip, {name}: differs by {error:.1e} '
      f'(tolerance {known_answers.TOLERANCE:.0e} of the largest)',
    )
    for name, error in errors.items()
  ]


def _check_modes(model: dict[str, Any], source: dict[str, Any]) -> list[Check]:
  """Checks the modes of published weights; weights that evad_jax wrote may have either."""
  modes = {key: model[key] for key in ('token_restoring', 'padding')}
  needed = {'padding': 'released'}
  if model['keep_rate'] != 1.0:  # nothing pruned, nothing to restore
    needed['token_restoring'] = 'released'
  what = ', '.join(f'{key}={value}' for key, value in modes.items())
  if not source.get('published', True):
    return [Check(None, f'{what}, as it was trained')]
  wrong = [f'{key}={value}' for key, value in needed.items() if modes[key] != value]
  return [Check(not wrong, what + (f'; these weights need {", ".join(wrong)}' if wrong else ''))]


def check_data(index: RecordIndex, settings: dict) -> list[Check]:
  """Checks every record of a split; settings: of the checkpoint that it is for."""
  checks = _check_classes(list(index.classes), settings)
  damaged, bad_boxes, bad_labels, unlabelled = [], [], [], []
  counts = np.zeros(len(index.classes), np.int64)
  boxes = 0
  reader = RecordReader(index)
  for number in tqdm(range(len(index.record_offset)), 'reading', unit='record', leave=False):
    try:
      record = reader.read_record(number)
    except InputError as error:
      damaged.append(str(error))
      continue
    boxes += len(record.boxes)
    bad_boxes += wrong_boxes(record)
    if not np.isin(record.labels, (0, 1)).all() or len(record.labels) != len(record.boxes):
      bad_labels.append(record.video)
      continue
    unlabelled += [record.video] * int((record.labels.sum(1) == 0).sum())
    counts += record.labels.sum(0, dtype=np.int64)
  reader.close()
  records = len(index.record_offset)
  return [
    *checks,
    Check(not damaged, f'checksums of {records} records' + _examples('damaged: ', damaged)),
    Check(
      boxes > 0 and not bad_boxes,
      f'{boxes} boxes are normalised, x1 < x2 and y1 < y2' + _examples('not ', bad_boxes),
    ),
    Check(not bad_labels, 'labels are 0 or 1, one row per box' + _examples('not in ', bad_labels)),
    Check(
      None if unlabelled else True,
      f'{boxes - len(unlabelled)} of {boxes} boxes have a label'
      + _examples('without: ', unlabelled),
    ),
    *_check_counts(index.classes, counts),
  ]


def wrong_boxes(record: Record) -> list[str]:
  """Finds boxes that are not normalised xyxy: pixels, xywh, swapped or empty ones."""
  x1, y1, x2, y2 = record.boxes.T
  good = (x1 >= 0) & (y1 >= 0) & (x2 <= 1) & (y2 <= 1) & (x1 < x2) & (y1 < y2)
  return [f'{record.video} {record.boxes[i].tolist()}' for i in np.flatnonzero(~good)]


def _check_classes(classes: list[str], settings: dict) -> list[Check]:
  """Checks the number of classes, and their order where the checkpoint or AVA gives it."""
  model, known = settings['model'], settings.get('classes')
  if 'num_actions' not in model:
    return [Check(None, f'{len(classes)} classes in the data; an encoder has none')]
  fits = len(classes) == model['num_actions']
  counts = f'{len(classes)} classes in the data, {model["num_actions"]} in the model'
  checks = [Check(fits, counts)]
  if known and fits:
    other = [
      f'{ours!r} was {was!r}' for ours, was in zip(classes, known, strict=True) if ours != was
    ]
    checks.append(Check(not other, 'classes are named as in training' + _examples('but: ', other)))
  elif fits and len(classes) == 80:
    other = [
      f'number {i} is {classes[i]!r} instead of {word!r}'
      for i, word in AVA_CLASSES.items()
      if word not in classes[i].lower()
    ]
    checks.append(Check(not other, "classes are in AVA's order" + _examples('but: ', other)))
  else:
    checks.append(
      Check(None, 'the checkpoint does not name its classes: their order is not checked')
    )
  return checks


def _check_counts(classes: list[str], counts: np.ndarray) -> list[Check]:
  """Counts the labels of every class; a class without any cannot be scored."""
  none = [name for name, count in zip(classes, counts, strict=True) if not count]
  order = np.argsort(-counts, kind='stable')[:SHOWN]
  most = ', '.join(f'{classes[i]} {counts[i]}' for i in order)
  checks = [Check(bool(counts.sum()), f'{counts.sum()} labels; most: {most}')]
  if none:
    checks.append(Check(None, f'{len(none)} classes have no label here: {", ".join(none)}'))
  return checks


def _examples(before: str, found: list[str]) -> str:
  if not found:
    return ''
  return f'; {len(found)} {before}' + '; '.join(found[:SHOWN]) + '; ...' * (len(found) > SHOWN)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """The command line's flags."""
  parser = command_line.Parser('evad_jax.tools.verify', __doc__)
  parser.add_argument('checkpoint', type=Path, help='directory of checkpoints, or one step in it')
  parser.add_argument('--directory', type=Path, help='prepared data set to check as well')
  parser.add_argument('--split', default='test', help='split of the data set (default test)')
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
  """The command line; returns the exit status."""
  args = parse_arguments(argv)
  command_line.keep_programs()
  directory, step = manager.locate(args.checkpoint)
  with manager.Checkpoints(directory, read_only=True) as checkpoints:
    step = checkpoints.choose(0) if step is None else step
    settings, params = checkpoints.settings(step), checkpoints.read_params(step)
  index = RecordIndex.open(args.directory, args.split) if args.directory else None
  checks = check_checkpoint(directory, step, settings, params)
  for check in checks:
    print(check.line(), flush=True)
  if index:
    found = check_data(index, settings)
    checks += found
    for check in found:
      print(check.line(), flush=True)
  failed = sum(check.passed is False for check in checks)
  print(f'{failed} checks failed' if failed else 'all checks passed')
  return 1 if failed else 0


if __name__ == '__main__':
  command_line.run(main)
