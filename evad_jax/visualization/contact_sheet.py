"""A contact sheet: keyframes with ground-truth and predicted boxes and their class names.

Every tile shows one keyframe, enlarged if small, so that it is readable at any resolution. Ground
truth is dashed green and numbered, predictions are solid orange and lettered. A list below the
picture holds the names, with room for any number of people, above a strip of the clip.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from evad_jax import boxes as box_ops
from evad_jax.structures import Batch, Detections
from evad_jax.visualization.drawing import (
  BACKGROUND,
  TEXT_COLOUR,
  fit,
  font_of,
  free_place,
  line_height,
  write_picture,
)

TRUTH_COLOUR = (72, 224, 128)
PREDICTED_COLOUR = (255, 158, 44)
INDENT = 2  # of the names, in multiples of the font size
GAP = 10  # pixels between tiles
SMALLEST_TILE = 256  # pixels; names do not fit a smaller tile


class Tile(NamedTuple):
  """One keyframe; boxes are xyxy, as fractions of the frame's width and height."""

  frame: np.ndarray  # (H, W, 3) uint8 RGB
  truth_boxes: np.ndarray  # (G, 4)
  truth_labels: np.ndarray  # (G, A) multi-hot
  boxes: np.ndarray  # (P, 4), those to draw
  action_scores: np.ndarray  # (P, A) in [0, 1]
  title: str = ''
  strip: np.ndarray | None = None  # (n, h, w, 3) uint8 RGB, frames of the clip in order


class Style(NamedTuple):
  """How much text a tile has, and how large it is."""

  tile_width: int = 360  # pixels
  font_size: int = 14  # pixels
  lowest_score: float = 0.3  # lower-scored actions are not named, except a box's best
  most_names: int = 3  # actions named on one box


def contact_sheet(
  tiles: Sequence[Tile], class_names: Sequence[str], columns: int = 4, style: Style | None = None
) -> Image.Image:
  """Draws the tiles row by row under a legend; the size follows from the tiles.

  Raises ValueError without a tile, for tiles narrower than 256 pixels, and if the labels of a tile
  do not match the names.
  """
  style = style or Style()
  _check(tiles, class_names, style)
  columns = max(1, min(columns, len(tiles)))
  pictures = [draw_tile(tile, class_names, style) for tile in tiles]
  rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
  heights = [max(picture.height for picture in row) for row in rows]
  legend = _legend(columns * (style.tile_width + GAP) - GAP, style)
  size = (legend.width + 2 * GAP, legend.height + GAP + sum(height + GAP for height in heights))
  sheet = Image.new('RGB', size, BACKGROUND)
  sheet.paste(legend, (GAP, GAP // 2))
  top = legend.height + GAP
  for row, height in zip(rows, heights, strict=True):
    for column, picture in enumerate(row):
      sheet.paste(picture, (GAP + column * (style.tile_width + GAP), top))
    top += height + GAP
  return sheet


def write_contact_sheet(
  path: str | os.PathLike,
  tiles: Sequence[Tile],
  class_names: Sequence[str],
  columns: int = 4,
  style: Style | None = None,
) -> None:
  """Writes the sheet as PNG, atomically."""
  write_picture(path, contact_sheet(tiles, class_names, columns, style))


def tiles_of_batch(
  batch: Batch,
  detections: Detections,
  titles: Sequence[str] | None = None,  # B; default: the example's number
  person_threshold: float = 0.7,
  strip_frames: int = 0,  # frames of the clip shown below the keyframe
) -> list[Tile]:
  """Makes the tiles of a batch's real examples from host arrays; the keyframe is frame T // 2.

  Draws the proposals that reach the threshold, or the best one if none does. Copies what it needs,
  so that the batch can be freed.
  """
  tiles = []
  num_frames = batch.clips.shape[1]
  strip = np.linspace(0, num_frames - 1, min(strip_frames, num_frames)).round().astype(int)
  for i in np.flatnonzero(batch.example_mask):
    height, width = (int(x) for x in batch.sizes[i])
    clip, true = batch.clips[i, :, :height, :width], batch.targets.box_mask[i]
    scores = detections.person_scores[i]
    drawn = scores >= min(person_threshold, scores.max(initial=0.0))
    tile = Tile(
      frame=clip[num_frames // 2].copy(),
      truth_boxes=box_ops.normalise(batch.targets.boxes[i][true], batch.sizes[i]),
      truth_labels=batch.targets.labels[i][true],
      boxes=detections.boxes[i][drawn],
      action_scores=detections.action_scores[i][drawn],
      title=titles[i] if titles is not None else f'example {int(batch.index[i])}',
      strip=clip[strip] if strip.size else None,
    )
    tiles.append(tile)
  return tiles


def draw_tile(tile: Tile, class_names: Sequence[str], style: Style) -> Image.Image:
  """Draws one tile of the style's width: title, picture with boxes, list of names, strip."""
  parts = [_draw_lines([(TEXT_COLOUR, tile.title, '')], style)] if tile.title else []
  parts.append(_draw_people(tile, style))
  entries = _entries(tile, class_names, style)
  if entries:
    parts.append(_draw_lines(entries, style))
  if tile.strip is not None:
    parts.append(_draw_strip(tile.strip, style.tile_width))
  canvas = Image.new('RGB', (style.tile_width, sum(part.height + 3 for part in parts)), BACKGROUND)
  top = 0
  for part in parts:
    canvas.paste(part, (0, top))
    top += part.height + 3
  return canvas


def _draw_people(tile: Tile, style: Style) -> Image.Image:
  """Draws the picture with its boxes, then the badges, so that no line crosses a badge."""
  picture = _enlarge(tile.frame, style.tile_width)
  left = (style.tile_width - picture.width) // 2
  stage = Image.new('RGB', (style.tile_width, picture.height), BACKGROUND)
  stage.paste(picture, (left, 0))
  draw, taken = ImageDraw.Draw(stage), []
  scale = np.array([*picture.size, *picture.size]) - 1
  badges = []
  for boxes, badge, colour, dash in (
    (tile.boxes, _letter, PREDICTED_COLOUR, 0),
    (tile.truth_boxes, lambda i: str(i + 1), TRUTH_COLOUR, 8),
  ):
    for i, box in enumerate(np.clip(boxes.reshape(-1, 4), 0, 1) * scale + [left, 0, left, 0]):
      _draw_box(draw, box.round().astype(int), colour, dash)
      badges.append((box.round().astype(int), badge(i), colour))
  for box, text, colour in reversed(badges):
    taken.append(_draw_badge(draw, box, text, colour, taken, style))
  return stage


def _entries(tile: Tile, class_names: Sequence[str], style: Style) -> list[tuple]:
  """(colour, badge, text) of every line below the picture."""
  lines = []
  for i, labels in enumerate(tile.truth_labels):
    names = [class_names[action] for action in np.flatnonzero(labels)]
    lines += _wrap(TRUTH_COLOUR, str(i + 1), names, style)
  for i, scores in enumerate(tile.action_scores):
    ranked = np.argsort(-scores, kind='stable')[: style.most_names]
    shown = [a for rank, a in enumerate(ranked) if rank == 0 or scores[a] >= style.lowest_score]
    names = [f'{scores[action]:.2f} {class_names[action]}' for action in shown]
    lines += _wrap(PREDICTED_COLOUR, _letter(i), names, style)
  return lines


def _letter(i: int) -> str:
  """a to z, then aa, ab and so on."""
  return (_letter(i // 26 - 1) if i >= 26 else '') + chr(ord('a') + i % 26)


def _wrap(colour: tuple, badge: str, names: Sequence[str], style: Style) -> list[tuple]:
  """Wraps the names after the badge into lines of the tile's width."""
  font, room = font_of(style.font_size), style.tile_width - INDENT * style.font_size - 2
  lines = ['']
  for i, name in enumerate(names):
    name = name + (',' if i + 1 < len(names) else '')
    longer = f'{lines[-1]} {name}'.strip()
    if not lines[-1] or font.getlength(longer) <= room:
      lines[-1] = longer
    else:
      lines.append(name)
  return [(colour, '' if i else badge, line) for i, line in enumerate(lines)]


def _draw_lines(lines: Sequence[tuple], style: Style) -> Image.Image:
  """(colour, badge or title, text) -> a picture of the tile's width; truncates long lines."""
  font, height = font_of(style.font_size), line_height(style.font_size)
  picture = Image.new('RGB', (style.tile_width, height * len(lines) + 2), BACKGROUND)
  draw = ImageDraw.Draw(picture)
  for i, (colour, start, text) in enumerate(lines):
    for x, part in ((2, start), (INDENT * style.font_size, text)):
      shown = fit(part, style.tile_width - x - 2, font)
      font.write(draw, (x, 1 + i * height), shown, colour)
  return picture


def _draw_box(draw: ImageDraw.ImageDraw, box: np.ndarray, colour: tuple, dash: int) -> None:
  """Draws a 2-pixel line on a dark one, inside the box; dashes of `dash` pixels unless 0."""
  x1, y1, x2, y2 = (int(x) for x in box)
  draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=(0, 0, 0), width=4 if not dash else 3)
  for inset in (0, 1) if dash else (1, 2):
    left, top, right, bottom = x1 + inset, y1 + inset, x2 - inset, y2 - inset
    step = 2 * dash or max(right - left, bottom - top, 1) + 1
    length = dash or step
    for x in range(left, right + 1, step):
      for y in (top, bottom):
        draw.line((x, y, min(x + length - 1, right), y), fill=colour)
    for y in range(top, bottom + 1, step):
      for x in (left, right):
        draw.line((x, y, x, min(y + length - 1, bottom)), fill=colour)


def _draw_badge(draw, box, text, colour, taken, style) -> tuple[int, int, int, int]:
  """Writes the text on a filled panel in a corner of the box; returns the panel's xyxy."""
  font = font_of(style.font_size)
  width, height = int(font.getlength(text)) + 7, line_height(style.font_size)
  panel = free_place(box, width, height, draw.im.size, taken)
  draw.rectangle((panel[0], panel[1], panel[2] - 1, panel[3] - 1), fill=colour)
  font.write(draw, (panel[0] + 3, panel[1]), text, (0, 0, 0))
  return panel


def _enlarge(frame: np.ndarray, width: int) -> Image.Image:
  """Scaled to `width` along the longer of its sides, so that tall frames stay small enough."""
  scale = width / max(frame.shape[:2])
  size = tuple(max(1, round(scale * side)) for side in (frame.shape[1], frame.shape[0]))
  resample = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
  return Image.fromarray(np.ascontiguousarray(frame)).resize(size, resample)


def _draw_strip(frames: np.ndarray, width: int) -> Image.Image:
  """Draws the frames side by side over the full width, two pixels apart."""
  count = len(frames)
  left = [round(i * (width + 2) / count) for i in range(count + 1)]
  height = max(1, round(frames.shape[1] * (left[1] - 2) / frames.shape[2]))
  strip = Image.new('RGB', (width, height), BACKGROUND)
  for i, frame in enumerate(frames):
    size = (max(1, left[i + 1] - left[i] - 2), height)
    strip.paste(Image.fromarray(np.ascontiguousarray(frame)).resize(size), (left[i], 0))
  return strip


def _legend(width: int, style: Style) -> Image.Image:
  """One line that explains the colours."""
  font, line = font_of(style.font_size), line_height(style.font_size)
  picture = Image.new('RGB', (width, line + 6), BACKGROUND)
  draw, x = ImageDraw.Draw(picture), 0
  for text, colour, dash in (('ground truth', TRUTH_COLOUR, 6), ('predicted', PREDICTED_COLOUR, 0)):
    _draw_box(draw, np.array([x, 5, x + 26, line + 1]), colour, dash)
    text = fit(text, width - x - 33, font)
    font.write(draw, (x + 33, 2), text, TEXT_COLOUR)
    x += 33 + int(font.getlength(text)) + 20
  return picture


def _check(tiles: Sequence[Tile], class_names: Sequence[str], style: Style) -> None:
  if not tiles:
    raise ValueError('a contact sheet needs at least one tile.')
  if style.tile_width < SMALLEST_TILE:
    raise ValueError(f'tile_width must be at least {SMALLEST_TILE}, got {style.tile_width}.')
  for tile in tiles:
    for labels in (tile.truth_labels, tile.action_scores):
      if labels.shape[-1] != len(class_names):
        raise ValueError(f'{labels.shape[-1]} classes in a tile, but {len(class_names)} names.')
