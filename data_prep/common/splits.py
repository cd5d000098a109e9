"""Assigns videos to the training and the test split, by list files or the annotation's splits."""

import os
from collections.abc import Collection

from evad_jax.errors import InputError
from evad_jax.formats import video_lists
from evad_jax.formats.annotation_types import Annotations
from evad_jax.formats.problems import Problems


def read_list(
  path: str | os.PathLike, classes: tuple[str, ...], annotated: Collection[str]
) -> list[str]:
  """Reads names 'Class/video' from a list file, one per line; skips lines of other classes.

  A line may end in a suffix and a class number, as in UCF101's own `trainlist01.txt`
  (`Basketball/v_Basketball_g08_c01.avi 9`).

  Raises:
    InputError: the file cannot be read, or lists no video of these classes.
  """
  listed = video_lists.read(path, annotated)
  names = (*listed.known, *listed.others)
  mine = sorted({name for name in names if name.split('/')[0] in classes})
  if not mine:
    raise InputError(
      f'{path}: lists no video of the {len(classes)} classes; its lines must look like Class/video'
    )
  return mine


def choose_splits(
  train_list: str | None,
  test_list: str | None,
  annotations: Annotations,
  classes: tuple[str, ...],
  source: str,
) -> dict[str, list[str]]:
  """{'train': names, 'test': names}, from the given lists, else split 1 of the file `source`.

  Raises:
    InputError: there is neither, or a video is in both splits.
  """
  lists = {'train': train_list, 'test': test_list}
  splits = {
    split: read_list(path, classes, annotations.videos)
    for split, path in lists.items()
    if path is not None
  }
  if not splits:
    if not annotations.train_videos or not annotations.test_videos:
      raise InputError(
        f'{source}: holds no split; give --train-list and --test-list (UCF101 publishes '
        'trainlist01.txt and testlist01.txt)'
      )
    splits = {
      'train': sorted(annotations.train_videos[0]),
      'test': sorted(annotations.test_videos[0]),
    }
  both = sorted(set(splits.get('train', ())) & set(splits.get('test', ())))
  if both:
    raise InputError(
      f'{both[0]}: is in the training and in the test list, {train_list or source} and '
      f'{test_list or source} ({len(both)} in both); keep it in one'
    )
  return splits


def report_shared_groups(splits: dict[str, list[str]], problems: Problems) -> None:
  """Reports groups (v_Class_gXX) in two splits: videos of a group show the same people."""
  groups = {split: {name.rpartition('_')[0] for name in names} for split, names in splits.items()}
  for group in sorted(groups.get('train', set()) & groups.get('test', set())):
    problems.report('group in two splits', group, 'kept, but the test is not independent')
