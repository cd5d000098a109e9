"""Pictures of keyframe-centric token pruning, in the manner of the paper (section 3.2).

`pruning_sheet` has a column for every time step of the grid and a row for every pruning block, with
dropped tokens dimmed. `importance_sheet` shows the importance that decided it, as a heat map.
`pruning_animation` animates the first. Small pictures are enlarged, so that everything is readable
at any resolution. Padding tokens lie outside the picture and are not shown.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from evad_jax.structures import PruningStage
from evad_jax.visualization import drawing, token_painting
from evad_jax.visualization.drawing import (
  BACKGROUND,
  FAINT_COLOUR,
  FONT_SIZE,
  MARK_COLOUR,
  TEXT_COLOUR,
  font_of,
)

MARGIN = 14  # pixels around a picture
GAP = 8  # between tiles; holds the mark of the keyframe
ROW_GAP = 14
SHEET_WIDTH = 1920  # target; many time steps make it wider
NARROWEST = 760  # sheet; text does not fit a narrower one
TILE_WIDTHS = (112, 300)  # smallest, where headings still fit, and largest
TALLEST = 1.5  # largest height of a tile, in widths
SCALE_WIDTH = 300  # of the heat map's colour scale


class PrunedClip(NamedTuple):
  """One clip and what pruning did to its tokens."""

  frames: np.ndarray  # (T, H, W, 3) uint8 RGB, the picture without padding
  stages: Sequence[PruningStage]  # of this clip, without axis B; NumPy
  patch: int  # height and width of a token, pixels of the picture
  tubelet: int  # frames per token
  title: str = ''
  frame_numbers: Sequence[int] | None = None  # T, of the frames in their video; default: from 0

  def grid(self) -> tuple[int, int, int]:
    """t, h, w of the tokens that contain a pixel of the picture."""
    frames, height, width = self.frames.shape[:3]
    return frames // self.tubelet, -(-height // self.patch), -(-width // self.patch)

  def on_picture(self, tokens: np.ndarray) -> np.ndarray:
    """Crops a stage's values from the tokens of the canvas to those of the picture."""
    t, h, w = self.grid()
    return tokens[:t, :h, :w]

  def keyframe(self) -> int:
    """Its index in the clip; its time step ends before keyframe + tubelet."""
    return self.grid()[0] // 2 * self.tubelet

  def number(self, frame: int) -> int:
    """The number that a frame of the clip has in its video."""
    return int(frame if self.frame_numbers is None else self.frame_numbers[frame])

  def tile_size(self, width: int) -> tuple[int, int]:
    """Width and height of the picture in a tile of that width; a tall picture is narrower."""
    height, full = self.frames.shape[1:3]
    scale = min(width / full, TALLEST * width / height)
    return max(1, round(full * scale)), max(1, round(height * scale))

  def check(self) -> None:
    """Raises ValueError if there is no stage, or if anything does not match the frames."""
    if not self.stages:
      raise ValueError('there is no pruning stage to draw.')
    frames, height, width = self.frames.shape[:3]
    if not frames or frames % self.tubelet:
      raise ValueError(f'{frames} frames do not divide into tubelets of {self.tubelet}.')
    if self.frame_numbers is not None and len(self.frame_numbers) != frames:
      raise ValueError(f'{len(self.frame_numbers)} frame_numbers were given for {frames} frames.')
    for stage in self.stages:
      for tokens in (stage.kept, stage.importance):
        if len(tokens) != self.grid()[0] or self.on_picture(tokens).shape != self.grid():
          raise ValueError(
            f'block {int(stage.block)} has tokens of shape {tokens.shape}, but {frames} frames of '
            f'{height} x {width} pixels have {self.grid()}.'
          )


class Row(NamedTuple):
  """One row of a sheet."""

  caption: str
  tiles: list[np.ndarray]  # t of (height, width, 3) uint8
  counts: list[str]  # t, below the tiles; or empty


def pruning_sheet(clip: PrunedClip) -> Image.Image:
  """Draws the first frame of every time step, and below it the same after every pruning block.

  Raises ValueError if there is no stage, or if frames, tokens and numbers do not match.
  """
  clip.check()
  size = _tile_size(clip)
  starts = range(0, len(clip.frames), clip.tubelet)
  rows = [
    Row(_input_caption(clip), [token_painting.enlarge(clip.frames[i], size) for i in starts], [])
  ]
  for stage in clip.stages:
    kept = clip.on_picture(stage.kept)
    tiles = [
      token_painting.dim_dropped(clip.frames[i], here, clip.patch, size)
      for i, here in zip(starts, kept, strict=True)
    ]
    counts = [f'{here.sum():,} of {here.size:,}' for here in kept]
    rows.append(Row(stage_caption(clip, stage), tiles, counts))
  note = 'Dropped tokens are dimmed and hatched. Tokens of the keyframe (marked) are always kept.'
  return _sheet(clip, note, rows)


def importance_sheet(clip: PrunedClip) -> Image.Image:
  """Draws the importance in every pruning block over the first frame of every time step.

  Importance is the attention that a token gets, here in multiples of the mean over the picture's
  tokens that enter the block. Raises ValueError as `pruning_sheet` does.
  """
  clip.check()
  size = _tile_size(clip)
  starts = range(0, len(clip.frames), clip.tubelet)
  stages = [token_painting.relative(clip.on_picture(stage.importance)) for stage in clip.stages]
  octaves = token_painting.octaves_of(stages)
  rows = []
  for stage, importance in zip(clip.stages, stages, strict=True):
    tiles = [
      token_painting.heat(clip.frames[i], here, clip.patch, size, octaves)
      for i, here in zip(starts, importance, strict=True)
    ]
    entered = (~np.isnan(importance)).sum()
    dropped = entered - clip.on_picture(stage.kept).sum()
    caption = f'block {int(stage.block)} drops {dropped:,} of {entered:,} tokens'
    rows.append(Row(caption, tiles, []))
  note = 'How much attention every token gets: those with the least are dropped, '
  return _sheet(clip, note + 'except in the keyframe (marked).', rows, _heat_legend(octaves))


def stage_caption(clip: PrunedClip, stage: PruningStage) -> str:
  """Says how many tokens of the picture are left."""
  kept = clip.on_picture(stage.kept)
  return f'after block {int(stage.block)}: {kept.sum():,} of {kept.size:,} tokens'


def _input_caption(clip: PrunedClip) -> str:
  """Says how many tokens there are, and what each holds."""
  total = int(np.prod(clip.grid()))
  what = f'{clip.patch} x {clip.patch} pixels of {clip.tubelet} frames each'
  padding = clip.stages[0].kept.size - total
  more = f'; {padding:,} more are padding, which is not shown' if padding else ''
  return f'input: {total:,} tokens, {what}{more}'


def _tile_size(clip: PrunedClip) -> tuple[int, int]:
  """Width and height of every tile of a sheet."""
  room = (SHEET_WIDTH - 2 * MARGIN) // clip.grid()[0] - GAP
  return clip.tile_size(int(np.clip(room, *TILE_WIDTHS)))


def _column_width(clip: PrunedClip) -> int:
  """Width of a tile and of the text above and below it."""
  return max(_tile_size(clip)[0], TILE_WIDTHS[0])


def _sheet(
  clip: PrunedClip, note: str, rows: Sequence[Row], legend: Image.Image | None = None
) -> Image.Image:
  """Draws the title, a note, the rows (the first with headings) and a legend."""
  line, column = drawing.line_height(), _column_width(clip) + GAP
  tall = rows[0].tiles[0].shape[0]
  heights = [line + tall + (line if row.counts else 0) + ROW_GAP for row in rows]
  width = max(2 * MARGIN + len(rows[0].tiles) * column - GAP, NARROWEST)
  room, top = width - 2 * MARGIN, MARGIN + 2 * line + ROW_GAP // 2
  height = top + line + sum(heights) + (legend.height + ROW_GAP if legend else 0)
  sheet = Image.new('RGB', (width, height + MARGIN - ROW_GAP), BACKGROUND)
  draw = ImageDraw.Draw(sheet)
  drawing.write_line(draw, (MARGIN, MARGIN - 4), clip.title, room, TEXT_COLOUR)
  drawing.write_line(draw, (MARGIN, MARGIN - 4 + line), note, room, FAINT_COLOUR)
  for number, row in enumerate(rows):
    drawing.write_line(draw, (MARGIN, top), row.caption, room, TEXT_COLOUR)
    top += line
    if number == 0:
      _draw_headings(draw, clip, top)
      top += line
    _draw_tiles(sheet, draw, row, top, column)
    top += heights[number] - line
  if legend:
    sheet.paste(legend, (MARGIN, top))
  return sheet


def _draw_tiles(
  sheet: Image.Image, draw: ImageDraw.ImageDraw, row: Row, top: int, column: int
) -> None:
  """Draws the tiles of a row, the keyframe's marked, with the counts below them."""
  for slot, tile in enumerate(row.tiles):
    left = MARGIN + slot * column
    box = drawing.paste(sheet, tile, left, top + 2, column - GAP)
    if slot == len(row.tiles) // 2:
      drawing.mark(draw, box)
    if row.counts:
      at = (left, box[3] + 3)
      drawing.write_line(draw, at, row.counts[slot], column - GAP, FAINT_COLOUR)


def _draw_headings(draw: ImageDraw.ImageDraw, clip: PrunedClip, top: int) -> None:
  """Writes which frame every column shows."""
  width = _column_width(clip)
  for slot in range(clip.grid()[0]):
    frame = slot * clip.tubelet
    word, colour = 'frame', FAINT_COLOUR
    if frame == clip.keyframe():
      word, colour = 'keyframe', MARK_COLOUR
    at = (MARGIN + slot * (width + GAP), top - 1)
    drawing.write_line(draw, at, f'{word} {clip.number(frame)}', width, colour)


def _heat_legend(octaves: int) -> Image.Image:
  """Draws the scale of the heat map with its ticks, and explains the dark colour."""
  line = drawing.line_height()
  picture = Image.new('RGB', (SCALE_WIDTH + 290, 2 * line + 20), BACKGROUND)
  draw = ImageDraw.Draw(picture)

  def write(x: float, y: float, text: str, colour: tuple) -> None:
    drawing.write_line(draw, (x, y), text, picture.width - x, colour)

  write(0, 0, 'importance, in multiples of the mean of the row', TEXT_COLOUR)
  values = np.linspace(-octaves, octaves, SCALE_WIDTH)
  colours = token_painting.heat_colours(values, octaves).round().astype(np.uint8)
  picture.paste(Image.fromarray(np.repeat(colours[None], 14, axis=0)), (0, line + 2))
  for tick in range(-octaves, octaves + 1):
    text = f'{2**tick}' if tick >= 0 else f'1/{2**-tick}'
    share = (tick + octaves) / (2 * octaves)
    x = share * (SCALE_WIDTH - 1)
    draw.line((x, line + 12, x, line + 18), fill=TEXT_COLOUR)
    write(x - share * font_of(FONT_SIZE).getlength(text), line + 17, text, FAINT_COLOUR)
  left, top = SCALE_WIDTH + 30, line + 2
  draw.rectangle((left, top, left + 26, top + 13), fill=token_painting.GONE_COLOUR)
  write(left + 34, top - 3, 'dropped by an earlier block', TEXT_COLOUR)
  return picture
