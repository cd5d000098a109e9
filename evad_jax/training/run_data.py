"""Identifies the data of a run: checkpoints store it, so that a run resumes on the same data."""

import hashlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evad_jax.checkpoints import model_settings
from evad_jax.data.record_index import RecordIndex
from evad_jax.distributed.processes import tell
from evad_jax.errors import InputError

POLICIES = ('refuse', 'accept')
# These decide the order of clips too: each clip goes to the canvas that suits it.
SIZES = ('canvases', 'short_side', 'max_long')


def describe(config: ConfigDict, index: RecordIndex) -> dict[str, Any]:
  """What must not change during a run, as JSON; index: of the training split.

  Of the evaluated split only the name: it may be prepared again, with more frames.
  """
  examples = hashlib.sha256()
  for column in (index.record_video, index.record_size, index.example_record, index.keyframes):
    examples.update(repr(column.tolist()).encode())
  return {
    'data set': index.name,
    'classes': list(index.classes),
    'ids of classes': index.class_ids,
    'training split': config.data.train_split,
    'evaluated split': config.data.eval_split,
    'sizes of clips': {key: model_settings.plain(config.clip[key]) for key in SIZES},
    'examples': f'{len(index)} keyframes of {len(set(index.record_video.tolist()))} videos',
    'digest of examples': examples.hexdigest(),
    'digest of records': hashlib.sha256(np.asarray(index.record_crc).tobytes()).hexdigest(),
  }


def check(config: ConfigDict, index: RecordIndex, settings: dict[str, Any], where: Any) -> None:
  """Raises InputError where a run would resume on other data than its `settings` name.

  settings: of its newest checkpoint, which `where` names; those of older versions have classes and
  sizes alone. With config.data.if_changed='accept' the differences are printed instead.
  """
  policy = config.data.if_changed
  if policy not in POLICIES:
    raise InputError(f'config.data.if_changed={policy!r} is not one of {", ".join(POLICIES)}.')
  ours, theirs = describe(config, index), settings.get('data')
  if theirs is None:
    theirs = {key: settings[key] for key in ('classes',) if settings.get(key)}
    clip = settings.get('clip', {})
    if all(key in clip for key in SIZES):
      theirs['sizes of clips'] = {key: clip[key] for key in SIZES}
  different = [key for key in ours if key in theirs and _differ(ours[key], theirs[key])]
  if not different:
    return
  told = '; '.join(_difference(key, theirs[key], ours[key]) for key in different)
  if policy == 'accept':
    tell(f'Warning: resuming on other data than {where} was trained on: {told}')
    return
  raise InputError(
    f'{where}: the run was trained on other data than it would resume on: {told}. Give the data '
    'and settings that it was started with, or another --workdir; if the change is intended, add '
    '--config.data.if_changed=accept.'
  )


def _differ(ours: Any, theirs: Any) -> bool:
  if isinstance(ours, dict):
    ours, theirs = list(ours.values()), list(theirs.values())
  return model_settings.plain(ours) != model_settings.plain(theirs)


def _difference(key: str, then: Any, now: Any) -> str:
  if key == 'digest of examples':
    return 'the keyframes or their order differ'
  if key == 'digest of records':
    return 'the contents of the records differ (frames, boxes or labels)'
  if isinstance(then, dict):
    parts = [part for part in now if _differ(now[part], then[part])]
    then, now = ({part: side[part] for part in parts} for side in (then, now))
  then, now = (', '.join(map(str, x)) if isinstance(x, list) else x for x in (then, now))
  return f'{key}: {then} then; {now} now'
