"""Shows the contents of a prepared data set: a summary, and a picture of clips with their boxes.

  python -m data_prep.inspect_records data/ucf24 --split test --output sheet.png

The summary comes from the manifest and the indices. --check reads every record, verifies every
checksum and recounts boxes and labels.
"""

import argparse
import collections
from pathlib import Path

import numpy as np
from tqdm import tqdm

from evad_jax import command_line
from evad_jax.data import augment
from evad_jax.data.clip_sampling import clip_frame_numbers, stored_positions
from evad_jax.data.record_index import RecordIndex, read_manifest
from evad_jax.data.records import Example, RecordReader
from evad_jax.errors import InputError
from evad_jax.visualization import contact_sheet
from evad_jax.visualization.contact_sheet import Tile

STRIP_FRAMES = 5  # of a clip, below its keyframe
MOST_NAMES = 5  # listed per kind of problem
MOST_COUNTS = 12  # numbers of boxes listed one by one
COMMAND = 'python -m data_prep.DATASET --output DIRECTORY'


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  args = parse_arguments(argv)
  directory = Path(args.directory)
  manifest = read_manifest(directory, COMMAND)
  names = [args.split] if args.split else list(manifest['splits'])
  indices = {split: RecordIndex.open(directory, split, COMMAND) for split in names}
  print_head(directory, manifest)
  print_splits(indices)
  counts = {split: counts_of(index, manifest, args.check) for split, index in indices.items()}
  print_boxes({split: boxes for split, (boxes, _) in counts.items()})
  print_labels(manifest['classes'], {split: labels for split, (_, labels) in counts.items()})
  print_problems(manifest.get('problems', []))
  if args.output:
    write_sheet(args.output, indices, args.clips)
    print(f'\nclips: {args.output}')


def print_head(directory: Path, manifest: dict) -> None:
  """Prints the name of the data set and its settings."""
  classes, scored = manifest['classes'], manifest.get('scored_classes', manifest['classes'])
  told = '' if len(scored) == len(classes) else f', {len(scored)} of them scored'
  clip, stride = manifest['clip_frames'], manifest['frame_stride']
  print(f'{directory}: {manifest["name"]}, {len(classes)} classes{told}')
  print(f'clips of up to {clip} frames, {stride} apart')
  for key in ('settings', 'decoder_versions', 'encoder_versions'):
    if key in manifest:
      told = ', '.join(f'{name} {value}' for name, value in manifest[key].items())
      print(f'{key.replace("_", " ")}: {told}')


def print_splits(indices: dict[str, RecordIndex]) -> None:
  """Prints one line per split."""
  rows = [('split', 'videos', 'keyframes', 'records', 'shards', 'size', 'frames (width x height)')]
  for split, index in indices.items():
    sizes, often = np.unique(index.record_size, axis=0, return_counts=True)
    most = np.argsort(-often, kind='stable')
    told = [f'{sizes[i][1]} x {sizes[i][0]}' for i in most[:3]]
    told += [f'{len(most) - 3} more sizes'] * (len(most) > 3)
    counts = (len(set(index.record_video.tolist())), len(index), len(index.record_shard))
    size = _readable(int(index.shard_bytes.sum()))
    rows.append((split, *counts, len(index.shard_bytes), size, ', '.join(told)))
  print('', *command_line.aligned(rows), sep='\n')


def counts_of(
  index: RecordIndex, manifest: dict, check: bool
) -> tuple[dict[int, int], dict[str, int]]:
  """Counts keyframes by number of boxes, and boxes by label; from the manifest where it has them.

  Raises:
    InputError: a record is damaged, or the counts differ from the manifest's.
  """
  told = tuple(
    manifest.get(key, {}).get(index.split) for key in ('boxes_per_keyframe', 'label_counts')
  )
  if told[0] is not None:
    told = {int(boxes): count for boxes, count in told[0].items()}, told[1]
  if not check and None not in told:
    return told
  counted = count_records(index)
  for mine, theirs in zip(counted, told, strict=True):
    if theirs is not None and mine != theirs:
      raise InputError(
        f'{index.directory}: the records of split {index.split!r} do not match the counts in '
        f'manifest.json; prepare the data set again'
      )
  return counted


def count_records(index: RecordIndex) -> tuple[dict[int, int], dict[str, int]]:
  """As `counts_of`, counted from the records."""
  reader, per_keyframe = RecordReader(index), collections.Counter()
  labels = np.zeros(len(index.classes), np.int64)
  for number in tqdm(range(len(index.record_shard)), f'reading {index.split}', unit='record'):
    record = reader.read_record(number)
    boxes = np.bincount(record.box_keyframe, minlength=len(record.keyframes))
    per_keyframe.update(boxes.tolist())
    labels += record.labels.sum(0, dtype=np.int64)
  return dict(sorted(per_keyframe.items())), dict(zip(index.classes, labels.tolist(), strict=True))


def print_boxes(counts: dict[str, dict[int, int]]) -> None:
  """Prints how many keyframes have how many boxes."""
  shown = sorted(set().union(*counts.values()))
  rows = [('boxes per keyframe', *counts)]
  for boxes in shown[:MOST_COUNTS]:
    rows.append((boxes, *(mine.get(boxes, 0) for mine in counts.values())))
  if shown[MOST_COUNTS:]:
    rest = (sum(mine.get(boxes, 0) for boxes in shown[MOST_COUNTS:]) for mine in counts.values())
    rows.append((f'{shown[MOST_COUNTS]} to {shown[-1]}', *rest))
  all_boxes = (sum(boxes * n for boxes, n in mine.items()) for mine in counts.values())
  rows.append(('all boxes', *all_boxes))
  print('', *command_line.aligned(rows), sep='\n')


def print_labels(classes: list[str], counts: dict[str, dict[str, int]]) -> None:
  """Prints how many boxes have each label; a box may have several."""
  rows = [('label', *counts)]
  rows += [(name, *(mine.get(name, 0) for mine in counts.values())) for name in classes]
  print('', *command_line.aligned(rows), sep='\n')


def print_problems(problems: list[dict[str, str]]) -> None:
  """Prints what was wrong with the input, by kind."""
  names = collections.defaultdict(list)
  for problem in problems:
    names[problem['kind']].append(problem['name'])
  print('\nproblems' + ('' if names else ': none'))
  for kind, mine in sorted(names.items(), key=lambda item: -len(item[1])):
    more = f' and {len(mine) - MOST_NAMES} more' * (len(mine) > MOST_NAMES)
    print(f'  {kind}: {len(mine)} ({", ".join(mine[:MOST_NAMES])}{more})')


def write_sheet(path: str, indices: dict[str, RecordIndex], clips: int) -> None:
  """Writes a PNG of clips spread evenly over the splits."""
  tiles, share = [], max(1, clips // len(indices))
  for index in indices.values():
    reader = RecordReader(index)
    chosen = np.linspace(0, len(index) - 1, min(share, len(index))).round().astype(int)
    tiles += [tile_of(reader[int(i)], index, len(indices) > 1) for i in np.unique(chosen)]
  classes = next(iter(indices.values())).classes
  contact_sheet.write_contact_sheet(path, tiles, classes, columns=min(4, len(tiles)))


def tile_of(example: Example, index: RecordIndex, name_split: bool) -> Tile:
  """Makes the tile of a keyframe with its boxes, above some frames of its clip."""
  numbers = clip_frame_numbers(
    example.keyframe, example.num_frames, index.clip_frames, index.frame_stride
  )
  positions = stored_positions(numbers, example.frame_numbers, example.video)
  strip = np.linspace(0, len(numbers) - 1, min(STRIP_FRAMES, len(numbers))).round().astype(int)
  decoded = {p: decode(example, p) for p in set(positions[strip].tolist())}
  keyframe = stored_positions(np.array([example.keyframe]), example.frame_numbers, example.video)
  second = index.timestamp_origin + example.keyframe // index.timestamp_rate
  unit = 'frame' if index.timestamp_rate == 1 else 'second'
  split = f'{index.split} ' if name_split else ''
  return Tile(
    frame=decode(example, int(keyframe[0])),
    truth_boxes=example.boxes,
    truth_labels=example.labels,
    boxes=np.zeros((0, 4), np.float32),
    action_scores=np.zeros((0, len(index.classes)), np.float32),
    title=f'{split}{unit} {second}: {example.video.rpartition("/")[2]}',
    strip=np.array([decoded[p] for p in positions[strip].tolist()]),
  )


def decode(example: Example, position: int) -> np.ndarray:
  """Decodes a stored frame to (H, W, 3) uint8 RGB; InputError if it is corrupt."""
  return augment.decode_frame(
    example.frames[position],
    video=example.video,
    frame=int(example.frame_numbers[position]),
    size=(example.height, example.width),
  )


def _readable(size: int) -> str:
  """Formats a number of bytes with a suitable unit."""
  for unit in ('B', 'kB', 'MB', 'GB'):
    if size < 1000:
      return f'{size:.3g} {unit}'
    size /= 1000
  return f'{size:.3g} TB'


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
  """Parses the command line."""
  parser = command_line.Parser('data_prep.inspect_records', __doc__)
  add = parser.add_argument
  add('directory', help='directory of a prepared data set')
  add('--split', help='show only this split (default: all)')
  add('--output', help='write a picture of clips to this PNG file')
  add('--clips', type=int, default=12, help='number of clips to draw (default 12)')
  add('--check', action='store_true', help='read and verify every record, and recount')
  return parser.parse_args(argv)


if __name__ == '__main__':
  command_line.run(main)
