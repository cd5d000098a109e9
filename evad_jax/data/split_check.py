"""Reads every record of a split, to find damage before days of training, not after."""

from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from evad_jax.data import clip_sampling
from evad_jax.data.clips import ClipSettings
from evad_jax.data.records import RecordIndex, RecordReader
from evad_jax.errors import InputError


def first_fault(
  index: RecordIndex,
  settings: ClipSettings,
  part: int = 0,
  parts: int = 1,
  *,
  threads: int = 4,
  show: bool = False,
) -> InputError | None:
  """Returns the error of the first record that is unreadable or lacks what its clips need.

  Pictures are not decoded. part, parts: record i is checked by part i % parts. show: a progress
  bar.
  """
  records = range(part, len(index.record_shard), parts)
  reader = RecordReader(index)

  def fault(record: int) -> InputError | None:
    try:
      _check(reader, record, settings)
    except InputError as error:
      return error
    return None

  try:
    with ThreadPoolExecutor(max(threads, 1)) as pool:
      looks = pool.map(fault, records)
      bar = tqdm(
        looks, desc=f'checking {index.split}', total=len(records), leave=False, disable=not show
      )
      found = next((error for error in bar if error is not None), None)
      pool.shutdown(cancel_futures=True)
    return found
  finally:
    reader.close()


def _check(reader: RecordReader, number: int, settings: ClipSettings) -> None:
  record = reader.read_record(number)
  for place, keyframe in enumerate(record.keyframes.tolist()):
    count = int((record.box_keyframe == place).sum())
    if count > settings.max_boxes:
      raise InputError(
        f'video {record.video!r}: keyframe {keyframe} has {count} boxes, more than '
        f'{settings.max_boxes}; raise config.clip.max_boxes to at least {count}'
      )
    frames = clip_sampling.clip_frame_numbers(
      keyframe, record.num_frames, settings.clip_frames, settings.frame_stride
    )
    clip_sampling.stored_positions(frames, record.frame_numbers, record.video)
