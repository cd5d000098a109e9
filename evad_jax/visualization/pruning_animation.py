"""Animates a clip beside its state after every pruning block, with dropped tokens dimmed."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from evad_jax.visualization import drawing, token_painting
from evad_jax.visualization.drawing import BACKGROUND, FAINT_COLOUR, MARK_COLOUR, TEXT_COLOUR
from evad_jax.visualization.pruning_sheets import GAP, MARGIN, ROW_GAP, PrunedClip, stage_caption

WIDTH = 1160  # target, pixels
WIDEST_PANEL = 340
MOST_PANELS = 4  # side by side
CELL_COLOUR = (58, 62, 70)  # of frames not shown at the moment
CELL_GAP = 4


def pruning_animation(clip: PrunedClip) -> list[Image.Image]:
  """Draws T pictures: the input and every stage, at most four per row, above a progress bar.

  No two are equal, so that no format merges them. Raises ValueError if there is no stage, or if
  frames, tokens and numbers do not match.
  """
  clip.check()
  columns = min(1 + len(clip.stages), MOST_PANELS)
  width = min((WIDTH - 2 * MARGIN) // columns - GAP, WIDEST_PANEL)
  return [_picture(clip, frame, columns, width) for frame in range(len(clip.frames))]


def _picture(clip: PrunedClip, frame: int, columns: int, panel_width: int) -> Image.Image:
  panels = _panels(clip, frame, clip.tile_size(panel_width))
  line = drawing.line_height()
  row_height = 2 * line + panels[0][2].shape[0] + ROW_GAP
  bottom = MARGIN + -(-len(panels) // columns) * row_height
  size = (2 * MARGIN + columns * (panel_width + GAP) - GAP, bottom + line + 12 + MARGIN // 2)
  picture = Image.new('RGB', size, BACKGROUND)
  draw = ImageDraw.Draw(picture)
  for i, (caption, count, tile) in enumerate(panels):
    left = MARGIN + i % columns * (panel_width + GAP)
    top = MARGIN - 4 + i // columns * row_height
    drawing.write_line(draw, (left, top), caption, panel_width, TEXT_COLOUR)
    drawing.write_line(draw, (left, top + line), count, panel_width, FAINT_COLOUR)
    box = drawing.paste(picture, tile, left, top + 2 * line + 3, panel_width)
    if _in_keyframe(clip, frame):
      drawing.mark(draw, box)
  _draw_clock(draw, clip, frame, bottom)
  return picture


def _panels(
  clip: PrunedClip, frame: int, size: tuple[int, int]
) -> Sequence[tuple[str, str, np.ndarray]]:
  """(caption, count, tile) for the input and every stage."""
  t, h, w = clip.grid()
  tile = token_painting.enlarge(clip.frames[frame], size)
  panels = [(f'input: {t * h * w:,} tokens', f'here {h * w:,}', tile)]
  for stage in clip.stages:
    kept = clip.on_picture(stage.kept)[frame // clip.tubelet]
    tile = token_painting.dim_dropped(clip.frames[frame], kept, clip.patch, size)
    count = f'here {kept.sum():,} of {kept.size:,}'
    panels.append((stage_caption(clip, stage), count, tile))
  return panels


def _in_keyframe(clip: PrunedClip, frame: int) -> bool:
  """Whether the frame shares its tokens with the keyframe."""
  return clip.keyframe() <= frame < clip.keyframe() + clip.tubelet


def _draw_clock(draw: ImageDraw.ImageDraw, clip: PrunedClip, frame: int, top: int) -> None:
  """Draws T cells, the current one filled and the keyframe's tubelet underlined, and a caption."""
  count, width = len(clip.frames), draw.im.size[0] - 2 * MARGIN
  edges = MARGIN + np.linspace(0, width + CELL_GAP, count + 1).round().astype(int)
  for i in range(count):
    left, right = int(edges[i]), int(edges[i + 1]) - CELL_GAP - 1
    marked = _in_keyframe(clip, i)
    now = MARK_COLOUR if marked else TEXT_COLOUR
    draw.rectangle((left, top, right, top + 6), fill=now if i == frame else CELL_COLOUR)
    if marked:
      draw.line((left, top + 9, right, top + 9), fill=MARK_COLOUR)
  text = f'frame {clip.number(frame)}'
  if frame == clip.keyframe():
    text = f'keyframe {clip.number(frame)}: all its tokens are kept'
  elif _in_keyframe(clip, frame):
    text += ', in the tokens of the keyframe: all are kept'
  text += f'   ({frame + 1} of {count})'
  drawing.write_line(draw, (MARGIN, top + 12), text, width, TEXT_COLOUR)
