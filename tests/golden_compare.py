"""Judges our stages against a golden file: one row a key, with its error and its tolerance.

Error = max |ours - golden| / max |golden| of a tensor, unless a rule here differs.
"""

import re
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

INPUTS = re.compile(r'meta/.*|input/(\d+|mean_std)|.*/metadata')
SUFFIXES = ('stats', 'first8', 'last8', 'token_mean', 'channel_mean')
EXACT = re.compile(r'block\d+/idx|.*/roi_levels')
PIXELS = re.compile(r'.*(pred_bboxes|proposal_boxes|ext_boxes|person_boxes_abs)')
PROBABILITIES = re.compile(r'.*final_\w+/(actions|person_scores)')
# What sees the order of the kept tokens when they are restored in the released mode.
AFTER_RESTORING = re.compile(r'(pool_in|dec_in|roi_features|dec\d+|final_\w+/actions)(/.*)?')
NEAR_TIE = 5e-6  # relative; golden scores closer than this may swap in float32


class Row(NamedTuple):
  """The verdict on one key."""

  key: str
  error: float
  tolerance: float | None  # None: printed, not judged
  note: str = ''

  def passed(self) -> bool:
    """NaN does not pass."""
    return self.tolerance is None or bool(self.error <= self.tolerance)


def compare_stages(golden: Arrays, ours: Arrays, *, tiny: bool, x64: bool) -> list[Row]:
  """Judges all keys of a case without training. `tiny` and float64 need identical kept orders."""
  swapped = _first_swapped_block(golden, ours) if not (tiny or x64) else None
  last_idx = max((_block_of(k) for k in golden if _is_kept(k)), default=None)
  lost = swapped is not None and not _same_order(golden, ours, last_idx)
  rows = []
  for key in golden:
    if INPUTS.fullmatch(key):
      continue
    if _is_kept(key) and not (tiny or x64):
      row = _kept_row(key, golden, ours)
    elif re.fullmatch(r'topk\d+/scores', key):
      row = _scores_row(key, golden, ours, x64)
    else:
      row = stage_row(key, golden, ours, x64)
    unjudged = lost and AFTER_RESTORING.fullmatch(key)
    unjudged = unjudged or (swapped is not None and _sees_order(key, swapped))
    if unjudged and row.tolerance is not None:
      row = row._replace(tolerance=None, note='not judged: near ties among kept tokens swapped')
    rows.append(row)
  if lost:
    rows.append(
      Row('kept order', 0.0, None, 'differs at near ties: final outputs judged by fixed_remap')
    )
    if not any(key.startswith('fixed_remap/') for key in golden):
      rows.append(Row('fixed_remap', np.inf, 0.0, 'needed for the final outputs, but not there'))
  return rows


def stage_row(key: str, golden: Arrays, ours: Arrays, x64: bool) -> Row:
  """A full tensor, or the statistic that the suffix names."""
  base, _, suffix = key.rpartition('/')
  if suffix not in SUFFIXES:
    base, suffix = key, ''
  if base not in ours:
    return Row(key, np.nan, None, 'not compared: no such stage on our side')
  value, true = ours[base], golden[key]
  scale = np.abs(true).max(initial=0)
  if suffix:
    value = reduced(value, suffix)
    if suffix in ('stats', 'first8', 'last8'):
      scale = golden[f'{base}/stats'][2] if f'{base}/stats' in golden else np.abs(ours[base]).max()
  if value.shape != true.shape:
    return Row(key, np.inf, 0.0, f'shape {value.shape}, golden {true.shape}')
  if EXACT.fullmatch(key):
    return Row(key, float(np.sum(value != true)), 0.0, 'entries that differ')
  error = np.abs(value.astype(np.float64) - true).max(initial=0)
  if x64:
    return Row(key, error / (scale or 1), 1e-9)
  if PIXELS.fullmatch(base):
    return Row(key, error, 5e-3, 'pixels')
  if PROBABILITIES.fullmatch(base):
    return Row(key, error, 2e-5, 'absolute')
  return Row(key, error / (scale or 1), 5e-5)


def reduced(x: np.ndarray, suffix: str) -> np.ndarray:
  """The statistics that golden files hold instead of a large tensor (B, ...)."""
  x = x.astype(np.float64)
  if suffix == 'stats':
    return np.array([x.mean(), x.std(ddof=1), np.abs(x).max()])
  if suffix == 'token_mean':  # (B, n, D) -> (B, D)
    return x.mean(axis=1)
  if suffix == 'channel_mean':  # (B, C, h, w) -> (B, C)
    return x.mean(axis=(2, 3))
  return x.ravel()[:8] if suffix == 'first8' else x.ravel()[-8:]


def _is_kept(key: str) -> bool:
  return bool(re.fullmatch(r'block\d+/idx', key))


def _block_of(key: str) -> int:
  return int(re.match(r'block(\d+)/', key)[1])


def _same_order(golden: Arrays, ours: Arrays, block: int) -> bool:
  return np.array_equal(golden[f'block{block}/idx'], ours[f'block{block}/idx'])


def _first_swapped_block(golden: Arrays, ours: Arrays) -> int | None:
  blocks = sorted(_block_of(key) for key in golden if _is_kept(key))
  return next((i for i in blocks if not _same_order(golden, ours, i)), None)


def _sees_order(key: str, swapped: int) -> bool:
  """Whether a key holds single tokens of a sequence that follows a swap."""
  match = re.fullmatch(r'(block(\d+)/out|norm_out|enc2dec)(/last8)?', key)
  return bool(match) and int(match[2] or swapped) >= swapped


def _kept_row(key: str, golden: Arrays, ours: Arrays) -> Row:
  """The same set of kept tokens, in the same order but for near ties of the last pruning."""
  true, value = golden[key], ours[key]
  if true.shape != value.shape:
    return Row(key, np.inf, 0.0, f'shape {value.shape}, golden {true.shape}')
  wrong = sum(len(set(a) ^ set(b)) for a, b in zip(true.tolist(), value.tolist(), strict=True))
  if wrong:
    return Row(key, wrong, 0.0, 'kept tokens that differ')
  moved = int(np.sum(true != value))
  scores = _scores_of(key, golden, ours)
  if scores is None or not moved:
    return Row(key, moved, 0.0, 'places in the order that differ')
  far = sum(_far_moves(*rows) for rows in zip(true, value, scores, strict=True))
  return Row(key, far, 0.0, f'moved further than near ties ({moved} moved in all)')


def _far_moves(true: np.ndarray, value: np.ndarray, scores: np.ndarray) -> int:
  """Tokens that left their run of near ties; `scores` falls along the kept tokens."""
  breaks = np.abs(np.diff(scores)) >= NEAR_TIE * np.abs(scores[:-1])
  run = np.concatenate([[0], np.cumsum(breaks)])  # number of the run at each position
  run_of = dict(zip(true.tolist(), run.tolist(), strict=True))
  return sum(run_of[place] != r for place, r in zip(value.tolist(), run.tolist(), strict=True))


def _scores_of(key: str, golden: Arrays, ours: Arrays) -> np.ndarray | None:
  """Golden scores of the kept tokens, falling: the pruning that left this many of more."""
  counts = {ours[k].shape[1]: k for k in ours if re.fullmatch(r'topk\d+/scores', k)}
  before = [n for n in counts if n > golden[key].shape[1]]
  name = counts[min(before)] if before else None
  if name not in golden:
    return None
  return -np.sort(-golden[name], axis=1)[:, : golden[key].shape[1]]


def _scores_row(key: str, golden: Arrays, ours: Arrays, x64: bool) -> Row:
  """Importances, aligned by index where an earlier pruning left another order."""
  count = golden[key].shape[1:]
  idx = [k for k in golden if _is_kept(k) and golden[k].shape[1:] == count]
  if key not in ours or ours[key].shape != golden[key].shape or not idx:
    return stage_row(key, golden, ours, x64)
  true, value = (
    np.take_along_axis(side[key], np.argsort(side[idx[0]], axis=1), axis=1)
    for side in (golden, ours)
  )
  return stage_row(key, {key: true}, {key: value}, x64)
