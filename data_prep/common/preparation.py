"""Writes a planned data set, shard by shard, and resumes where a killed process stopped.

A shard holds consecutive videos of a split. One thread writes it under a temporary name and renames
it once complete, with its part of the index and its problems beside it. Started again with the same
plan, a preparation keeps the complete shards and makes the others. In the end, every file has the
bytes that it would have had without the interruption. Plans are the same if their fingerprints are:
settings, annotations, names and sizes of the source files, versions of decoders and encoders. The
manifest is written last.
"""

import collections
import errno
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.common.clip_records import Source, Stopped, video_records
from data_prep.common.plan import Plan, Shard, cut_into_shards, digest, fingerprint
from evad_jax.data import data_set_directory, record_writer, tube_index
from evad_jax.data.data_set_directory import differences
from evad_jax.data.record_index import MANIFEST, RecordIndex, read_manifest
from evad_jax.data.records import Record
from evad_jax.errors import InputError
from evad_jax.formats.problems import Problems

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def prepare(
  plan: Plan, directory: Path, problems: Problems, *, workers: int = 2, overwrite: bool = False
) -> None:
  """Writes a data set, or the missing part of it.

  Args:
    plan: what to write.
    directory: new, empty, or with part or all of the same plan.
    problems: found so far; those found while decoding are added.
    workers: threads, one shard each.
    overwrite: replace the data set there once the new one is complete.

  Raises:
    InputError: the directory holds something else, a split has nothing to prepare, the disk is
      full, or a problem was found and `problems` is strict.
  """
  for split, sources in plan.splits.items():
    if not sources:
      raise _nothing_to_prepare(split, problems)
  print_of_plan = fingerprint(plan)
  with data_set_directory.alone_in(directory, plan.name) as settled:
    if settled:  # completed the work of a killed process
      manifest = read_manifest(directory, f'python -m data_prep.{plan.name} --overwrite')
      overwrite &= bool(differences(manifest, print_of_plan))
    if not overwrite and _is_complete(directory, plan, print_of_plan):
      data_set_directory.tidy(directory)
      problems.extend(read_manifest(directory, '')['problems'])
      print(f'{directory}: is already prepared with the same plan; nothing to do')
      return
    place = data_set_directory.claim(directory, plan.name, print_of_plan, overwrite)
    shards = cut_into_shards(plan, place)
    try:
      _make_missing(shards, plan, digest(print_of_plan), problems, workers)
      _finish(place, shards, plan, print_of_plan, problems)
    except OSError as error:
      if error.errno not in _DISK_FULL:
        raise
      raise InputError(
        f'{directory}: the disk is full; make room and run the same command again, which keeps '
        'the complete shards'
      ) from error
    data_set_directory.finish(directory, plan.name)


def _is_complete(directory: Path, plan: Plan, print_of_plan: dict) -> bool:
  """Whether the plan is carried out, with all its shards.

  Raises:
    InputError: another plan of this data set is, or a shard is gone.
  """
  if not (directory / MANIFEST).is_file():
    return False
  command = f'python -m data_prep.{plan.name} --overwrite'
  different = differences(read_manifest(directory, command), print_of_plan)
  if different:
    raise InputError(
      f'{directory}: holds a prepared data set of another plan ({different}); pass --overwrite to '
      'replace it, or choose another output directory'
    )
  for split in plan.splits:
    RecordIndex.open(directory, split, command)
  return True


def _make_missing(
  shards: list[Shard], plan: Plan, plan_digest: str, problems: Problems, workers: int
) -> None:
  """Makes the incomplete shards; the first error stops all threads."""
  missing = [shard for shard in shards if not _is_whole(shard, plan_digest)]
  videos, left = (sum(len(shard.sources) for shard in some) for some in (shards, missing))
  if len(missing) < len(shards):
    print(
      f'resuming: {len(shards) - len(missing)} of {len(shards)} shards are complete', flush=True
    )
  stop, lock = threading.Event(), threading.Lock()
  with tqdm(total=videos, initial=videos - left, desc=plan.name, unit='video') as bar:

    def count_video() -> None:
      with lock:
        bar.update()

    make = functools.partial(_make_shard, plan, plan_digest, problems, stop.is_set, count_video)
    with ThreadPoolExecutor(workers) as pool:
      futures = [pool.submit(make, shard) for shard in missing]
      try:
        wait(futures, return_when=FIRST_EXCEPTION)
      finally:
        stop.set()  # without an error, no thread is left to see it
        pool.shutdown(cancel_futures=True)
  for future in futures:
    if not future.cancelled():
      future.result()


def _is_whole(shard: Shard, plan_digest: str) -> bool:
  part = record_writer.read_part(shard.path)
  return part is not None and part[1].get('plan') == plan_digest


def _make_shard(
  plan: Plan,
  plan_digest: str,
  problems: Problems,
  stopped: Callable[[], bool],
  count_video: Callable[[], None],
  shard: Shard,
) -> None:
  found, counts, lengths = problems.part(), _Counts(len(plan.classes)), {}
  try:
    with record_writer.ShardWriter([shard.path], len(plan.classes)) as writer:
      for source in shard.sources:
        report = functools.partial(_report, found, source.name)
        for record in video_records(source, plan.settings, shard.path.parent, report, stopped):
          writer.write(record)
          counts.add(record)
          lengths[record.video] = record.num_frames
        count_video()
  except Stopped:
    return
  about = {'plan': plan_digest, 'problems': found.entries, 'counts': counts.as_json()}
  record_writer.write_part(shard.path, writer.columns(), about | {'num_frames': lengths})


def _report(problems: Problems, name: str, kind: str, detail: str) -> None:
  problems.report(kind, name, detail)


def _finish(
  directory: Path, shards: list[Shard], plan: Plan, print_of_plan: dict, problems: Problems
) -> None:
  """Joins the shards' parts: writes the indices, the metadata, and finally the manifest."""
  counts = {split: _Counts(len(plan.classes)) for split in plan.splits}
  for split, mine in counts.items():
    parts = [record_writer.read_part(shard.path) for shard in shards if shard.split == split]
    for _, about in parts:
      problems.extend(about['problems'])
      mine.join(about['counts'])
    if not mine.totals['keyframes']:
      raise _nothing_to_prepare(split, problems)
    sources = {source.name: source for source in plan.splits[split]}
    columns = [columns | _annotated(columns, sources) for columns, _ in parts]
    record_writer.join_shards(directory, split, columns)
    tubes = list(_true_tubes(plan.splits[split], columns))
    if tubes:
      lengths = {name: frames for _, about in parts for name, frames in about['num_frames'].items()}
      every = all(
        len(sources[name].keyframes_until(frames)) == frames for name, frames in lengths.items()
      )
      tube_index.write_tubes(directory, split, tubes, plan.manifest.get('trimmed', False), every)
  extra = plan.manifest | print_of_plan | _counted(counts, plan.classes)
  extra |= {
    'missing_videos': problems.names('missing video'),
    'problem_counts': problems.counts(),
    'problems': problems.entries,
  }
  clip, stride = plan.settings.clip_frames, plan.settings.frame_stride
  record_writer.write_dataset_metadata(
    directory, plan.name, list(plan.classes), extra, clip_frames=clip, frame_stride=stride
  )
  for split, mine in counts.items():
    print(f'{split}: ' + ', '.join(f'{count} {what}' for what, count in mine.totals.items()))


def _annotated(columns: dict[str, np.ndarray], sources: dict[str, Source]) -> dict[str, np.ndarray]:
  """Columns of a shard's index that come from the annotation, not from the records."""
  videos = columns['record_video'].tolist()
  sizes = np.array([sources[name].size for name in videos], np.int64).reshape(-1, 2)
  there = np.zeros(len(columns['keyframes']), bool)
  for record, name in enumerate(videos):
    mine = columns['example_record'] == record
    there[mine] = np.isin(columns['keyframes'][mine], sources[name].keyframes)
  return {'record_annotated_size': sizes, 'annotated': there}


def _true_tubes(
  sources: list[Source], parts: list[dict[str, np.ndarray]]
) -> Iterator[tube_index.TrueTube]:
  """Yields the tubes of the prepared videos, on the frames that decoding found."""
  keyframes = collections.defaultdict(list)
  for part in parts:
    videos = part['record_video'][part['example_record']].tolist()
    for video, keyframe in zip(videos, part['keyframes'].tolist(), strict=True):
      keyframes[video].append(keyframe)
  for source in sources:
    for tube in source.tubes:
      there = np.isin(tube.frames, keyframes[source.name])
      if there.any():
        yield tube_index.TrueTube(
          source.name, tube.label, tube.frames[there], tube.boxes[there].astype(np.float32)
        )


class _Counts:
  """Counts of a shard or a split."""

  def __init__(self, num_classes: int):
    self.totals: collections.Counter = collections.Counter(keyframes=0, boxes=0, frames=0)
    self.boxes_per_keyframe: collections.Counter = collections.Counter()
    self.labels = np.zeros(num_classes, np.int64)

  def add(self, record: Record) -> None:
    per_keyframe = np.bincount(record.box_keyframe, minlength=len(record.keyframes))
    self.boxes_per_keyframe.update(per_keyframe.tolist())
    self.labels += record.labels.sum(0, dtype=np.int64)
    self.totals['keyframes'] += len(record.keyframes)
    self.totals['boxes'] += len(record.boxes)
    self.totals['frames'] += len(record.frames)

  def as_json(self) -> dict:
    per_keyframe = sorted(self.boxes_per_keyframe.items())
    labels = self.labels.tolist()
    return {'totals': dict(self.totals), 'boxes_per_keyframe': per_keyframe, 'labels': labels}

  def join(self, other: dict) -> None:
    """Adds another's counts, from its `as_json`."""
    self.totals.update(other['totals'])
    self.boxes_per_keyframe.update(dict(other['boxes_per_keyframe']))
    self.labels += np.array(other['labels'], np.int64)


def _counted(counts: dict[str, _Counts], classes: tuple[str, ...]) -> dict[str, dict]:
  """The counts of every split in the form of the manifest."""
  manifest = {'splits': {}, 'label_counts': {}, 'boxes_per_keyframe': {}}
  for split, mine in counts.items():
    per_keyframe = sorted(mine.boxes_per_keyframe.items())
    manifest['splits'][split] = dict(mine.totals)
    manifest['label_counts'][split] = dict(zip(classes, mine.labels.tolist(), strict=True))
    manifest['boxes_per_keyframe'][split] = {str(boxes): n for boxes, n in per_keyframe}
  return manifest


def _nothing_to_prepare(split: str, problems: Problems) -> InputError:
  told = 'its list is empty'
  if problems.entries:
    first = problems.entries[0]
    told = (
      f'{len(problems.entries)} problems were found, the first with {first["name"]}: '
      f'{first["kind"]}: {first["detail"]}'
    )
  return InputError(
    f'split {split!r}: none of its videos can be prepared ({told}); correct that, or leave the '
    'split out'
  )
