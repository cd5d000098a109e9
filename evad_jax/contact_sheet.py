"""A picture of what the detector sees: key frames with true and predicted boxes and their names.

Every tile shows one key frame, enlarged where it is small, so that the text is readable whatever
the resolution; a strip of the clip's other frames may stand below. True boxes are dashed green,
predicted ones solid orange with their highest action scores.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evad_jax.structures import Batch, Detections

TRUTH_COLOUR = (72, 224, 128)
PREDICTED_COLOUR = (255, 158, 44)
BACKGROUND = (24, 26, 30)
TEXT_COLOUR = (232, 234, 237)
GAP = 10  # pixels between tiles
SMALLEST_TILE = 256  # pixels; below it names do not fit


class Tile(NamedTuple):
  """One key frame; boxes are xyxy in parts of the frame's width and height."""

  frame: np.ndarray  # (H, W, 3) uint8 RGB
  truth_boxes: np.ndarray  # (G, 4)
  truth_labels: np.ndarray  # (G, A) multi-hot
  boxes: np.ndarray  # (P, 4), those to be drawn
  action_scores: np.ndarray  # (P, A) in [0, 1]
  title: str = ''
  strip: np.ndarray | None = None  # (n, h, w, 3) uint8 RGB, frames of the clip in order


class Style(NamedTuple):
  """How much is written on a tile, and how large."""

  tile_width: int = 360  # pixels
  font_size: int = 14  # pixels
  lowest_score: float = 0.3  # actions below are not named, except a box's best
  most_names: int = 3  # actions named on one box


def contact_sheet(
  tiles: Sequence[Tile], class_names: Sequence[str], columns: int = 4, style: Style | None = None
) -> Image.Image:
  """Draws the tiles row by row under a legend; (width, height) follow from the tiles.

  Raises ValueError without a tile, for a tile narrower than 256 pixels, and where the labels of a
  tile do not fit the names.
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
  """Writes the sheet as PNG; the file appears under its name only when it is whole."""
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.partial')
  try:
    contact_sheet(tiles, class_names, columns, style).save(temporary, format='PNG')
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def tiles_of_batch(
  batch: Batch,
  detections: Detections,
  titles: Sequence[str] | None = None,  # B; the example's number where not given
  person_threshold: float = 0.7,
  strip_frames: int = 0,  # frames of the clip shown below the key frame
) -> list[Tile]:
  """The tiles of a batch's real examples, from host arrays; the key frame is frame T // 2.

  Of the proposals those that reach the threshold are drawn, or the best where none does.
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
      frame=clip[num_frames // 2],
      truth_boxes=batch.targets.boxes[i][true] / np.array([width, height, width, height]),
      truth_labels=batch.targets.labels[i][true],
      boxes=detections.boxes[i][drawn],
      action_scores=detections.action_scores[i][drawn],
      title=titles[i] if titles is not None else f'example {int(batch.index[i])}',
      strip=clip[strip] if strip.size else None,
    )
    tiles.append(tile)
  return tiles


def draw_tile(tile: Tile, class_names: Sequence[str], style: Style) -> Image.Image:
  """One tile of the style's width: title, picture with boxes and tags, strip."""
  picture = _enlarge(tile.frame, style.tile_width)
  title = _fit(tile.title, style.tile_width - 4, _font(style))
  title_height = _line_height(style) + 4 if title else 0
  strip = _draw_strip(tile.strip, style.tile_width) if tile.strip is not None else None
  height = title_height + picture.height + (strip.height + 3 if strip else 0)
  canvas = Image.new('RGB', (style.tile_width, height), BACKGROUND)
  if title:
    ImageDraw.Draw(canvas).text((2, 1), title, TEXT_COLOUR, _font(style))
  if strip:
    canvas.paste(strip, (0, height - strip.height))
  stage = Image.new('RGB', (style.tile_width, picture.height), (0, 0, 0))
  left = (style.tile_width - picture.width) // 2
  stage.paste(picture, (left, 0))
  canvas.paste(_draw_people(stage, picture.size, left, tile, class_names, style), (0, title_height))
  return canvas


def _draw_people(stage, size, left, tile, class_names, style) -> Image.Image:
  """Boxes first, then tags, so that no box crosses a name."""
  draw = ImageDraw.Draw(stage)
  scale, offset = np.array([*size, *size]) - 1, np.array([left, 0, left, 0])
  true, predicted = (
    (np.clip(boxes, 0, 1) * scale + offset).round().astype(int)
    for boxes in (tile.truth_boxes.reshape(-1, 4), tile.boxes.reshape(-1, 4))
  )
  for box in predicted:
    _draw_box(draw, box, PREDICTED_COLOUR, dash=0)
  for box in true:
    _draw_box(draw, box, TRUTH_COLOUR, dash=8)
  tags = [
    (box, _truth_names(labels, class_names), TRUTH_COLOUR)
    for box, labels in zip(true, tile.truth_labels, strict=True)
  ]
  tags += [
    (box, _predicted_names(scores, class_names, style), PREDICTED_COLOUR)
    for box, scores in zip(predicted, tile.action_scores, strict=True)
  ]
  taken = []
  for box, names, colour in tags:
    if names:
      taken.append(_draw_tag(stage, box, names, colour, taken, style))
  return stage


def _truth_names(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
  return [class_names[action] for action in np.flatnonzero(labels)]


def _predicted_names(scores: np.ndarray, class_names: Sequence[str], style: Style) -> list[str]:
  ranked = np.argsort(-scores, kind='stable')[: style.most_names]
  shown = [a for rank, a in enumerate(ranked) if rank == 0 or scores[a] >= style.lowest_score]
  return [f'{scores[action]:.2f} {class_names[action]}' for action in shown]


def _draw_box(draw: ImageDraw.ImageDraw, box: np.ndarray, colour: tuple, dash: int) -> None:
  """A line two pixels wide on a dark one, inside the box; dashes of `dash` pixels where not 0."""
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


def _draw_tag(stage, box, names, colour, taken, style) -> tuple[int, int, int, int]:
  """Writes the names in a panel near the box, inside the picture; returns the panel's xyxy."""
  font, line = _font(style), _line_height(style)
  room = min(stage.width - 2, int(0.62 * style.tile_width))
  names = [_fit(name, room - 8, font) for name in names[: max(1, (stage.height - 4) // line)]]
  width = int(max(font.getlength(name) for name in names)) + 8
  height = line * len(names) + 3
  panel = _place(box, width, height, stage.size, taken)
  shade = Image.new('RGB', (width, height), (12, 12, 14))
  region = stage.crop(panel)
  stage.paste(Image.blend(region, shade, 0.72), panel[:2])
  draw = ImageDraw.Draw(stage)
  draw.rectangle((panel[0], panel[1], panel[0] + 2, panel[3] - 1), fill=colour)
  for i, name in enumerate(names):
    draw.text((panel[0] + 6, panel[1] + 1 + i * line), name, colour, font)
  return panel


def _place(box, width, height, size, taken) -> tuple[int, int, int, int]:
  """The first place near the box, moved into the picture, that covers least of the other panels."""
  x1, y1, x2, y2 = (int(x) for x in box)
  corners = [
    (x, y) for y in (y1 + 4, y2 - 3 - height, y1 - height, y2) for x in (x1 + 4, x2 - 3 - width)
  ]
  corners += [(x1 + 4, y) for y in range(y1 + 4, y2 - height, max(1, height // 2))]
  corners += [(x, (y1 + y2 - height) // 2) for x in (x1 - width, x2)]
  panels = []
  for x, y in corners:
    x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
    panels.append((x, y, x + width, y + height))
  return min(panels, key=lambda panel: sum(_covered(panel, other) for other in taken))


def _covered(a: tuple, b: tuple) -> int:
  width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
  return max(0, width) * max(0, height)


def _fit(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
  """The text, or as much of it as fits into `width` pixels, with an ellipsis."""
  if font.getlength(text) <= width:
    return text
  while text and font.getlength(text + '...') > width:
    text = text[:-1]
  return text.rstrip() + '...'


def _enlarge(frame: np.ndarray, width: int) -> Image.Image:
  """Scaled to `width` along the longer of its sides, so that tall frames stay small enough."""
  scale = width / max(frame.shape[:2])
  size = tuple(max(1, round(scale * side)) for side in (frame.shape[1], frame.shape[0]))
  resample = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
  return Image.fromarray(np.ascontiguousarray(frame)).resize(size, resample)


def _draw_strip(frames: np.ndarray, width: int) -> Image.Image:
  """The frames side by side over the whole width, with two pixels between them."""
  count = len(frames)
  left = [round(i * (width + 2) / count) for i in range(count + 1)]
  height = max(1, round(frames.shape[1] * (left[1] - 2) / frames.shape[2]))
  strip = Image.new('RGB', (width, height), BACKGROUND)
  for i, frame in enumerate(frames):
    size = (max(1, left[i + 1] - left[i] - 2), height)
    strip.paste(Image.fromarray(np.ascontiguousarray(frame)).resize(size), (left[i], 0))
  return strip


def _legend(width: int, style: Style) -> Image.Image:
  """One line that says which colour is which."""
  line = _line_height(style)
  picture = Image.new('RGB', (width, line + 6), BACKGROUND)
  draw, x = ImageDraw.Draw(picture), 2
  for text, colour, dash in (
    ('ground truth', TRUTH_COLOUR, 6),
    ('predicted, with action scores', PREDICTED_COLOUR, 0),
  ):
    _draw_box(draw, np.array([x, 5, x + 28, line + 1]), colour, dash)
    draw.text((x + 35, 2), text, TEXT_COLOUR, _font(style))
    x += 35 + int(_font(style).getlength(text)) + 20
  return picture


def _font(style: Style) -> ImageFont.FreeTypeFont:
  return ImageFont.load_default(style.font_size)


def _line_height(style: Style) -> int:
  return sum(_font(style).getmetrics()) + 1


def _check(tiles: Sequence[Tile], class_names: Sequence[str], style: Style) -> None:
  if not tiles:
    raise ValueError('a contact sheet needs at least one tile.')
  if style.tile_width < SMALLEST_TILE:
    raise ValueError(f'tile_width must be at least {SMALLEST_TILE}, got {style.tile_width}.')
  for tile in tiles:
    for labels in (tile.truth_labels, tile.action_scores):
      if labels.shape[-1] != len(class_names):
        raise ValueError(f'{labels.shape[-1]} classes in a tile, but {len(class_names)} names.')
