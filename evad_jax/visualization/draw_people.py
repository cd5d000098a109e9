"""Draws people, their ids and their actions on a frame of any size."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from evad_jax.inference.person_tracks import People
from evad_jax.video import video_writer
from evad_jax.visualization.drawing import (
  BACKGROUND,
  Panel,
  fit,
  font_of,
  least_covered,
  line_height,
)

READABLE = 400  # pixels, the smallest short side of an annotated frame
GOLDEN = 0.618034  # share of the hue circle from one id to the next


class Style(NamedTuple):
  """What is written on people."""

  lowest_score: float = 0.3  # lower-scored actions are not named
  most_names: int = 3  # actions named on one person
  panel_opacity: float = 0.65


class Figure(NamedTuple):
  """A person to draw."""

  id: int
  box: np.ndarray  # (4,) xyxy, as fractions of the frame's width and height
  lines: tuple[str, ...]  # their actions


def enlargement(height: int, width: int) -> float:
  """The factor by which a frame is enlarged to make the text on it readable.

  An integer; below 1 only for frames too long for a video.
  """
  longest = max(height, width)
  wanted = -(-READABLE // min(height, width, READABLE))
  return min(wanted, video_writer.LONGEST // longest) or video_writer.LONGEST / longest


def colour_of(person_id: int) -> tuple[int, int, int]:
  """The RGB colour of a person; neighbouring ids differ clearly."""
  red, green, blue = colorsys.hsv_to_rgb(person_id * GOLDEN % 1, 0.6, 1.0)
  return int(255 * red), int(255 * green), int(255 * blue)


def describe(action_scores: np.ndarray, classes: Sequence[str], style: Style) -> tuple[str, ...]:
  """(A,) scores -> the best actions as lines such as 'walk 0.82', best first."""
  ranked = np.argsort(-action_scores, kind='stable')[: style.most_names].tolist()
  shown = [action for action in ranked if action_scores[action] >= style.lowest_score]
  return tuple(f'{classes[action]} {action_scores[action]:.2f}' for action in shown)


def figures_of(people: People, classes: Sequence[str], style: Style) -> list[Figure]:
  """Everyone on a keyframe, by id."""
  figures = [
    Figure(int(person), box, describe(scores, classes, style))
    for person, box, scores in zip(people.ids, people.boxes, people.action_scores, strict=True)
  ]
  return sorted(figures, key=lambda figure: figure.id)


def between(
  before: Sequence[Figure], after: Sequence[Figure], share: float
) -> list[Figure]:  # by id
  """Interpolates between two keyframes; share: of the way from the first, in [0, 1].

  People on both keyframes move linearly; people on only one are drawn on its half of the way.
  Actions are those of the nearer keyframe.
  """
  first, last = ({figure.id: figure for figure in side} for side in (before, after))
  figures = []
  for person in sorted(first.keys() | last.keys()):
    nearer = (last if share > 0.5 else first).get(person)
    if person in first and person in last:
      box = (1 - share) * first[person].box + share * last[person].box
      figures.append(nearer._replace(box=box))
    elif nearer is not None:
      figures.append(nearer)
  return figures


def annotate(frame: np.ndarray, figures: Sequence[Figure], style: Style | None = None):
  """Draws people on a frame; (H, W, 3) uint8 RGB in and out, enlarged by `enlargement`."""
  style = style or Style()
  height, width = frame.shape[:2]
  factor = enlargement(height, width)
  if factor != 1:
    size = (max(1, round(factor * width)), max(1, round(factor * height)))
    how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    frame = cv2.resize(frame, size, interpolation=how)
  picture = Image.fromarray(np.ascontiguousarray(frame))
  font_size = max(13, round(min(picture.size) / 30))
  thickness = max(2, round(min(picture.size) / 200))
  draw = ImageDraw.Draw(picture)
  scale = np.array([*picture.size, *picture.size])
  boxes = [_pixels(figure.box, scale, picture.size) for figure in figures]
  for figure, box in zip(figures, boxes, strict=True):
    draw.rectangle(box, outline=(0, 0, 0), width=thickness + 2)
    inner = (box[0] + 1, box[1] + 1, max(box[0] + 1, box[2] - 1), max(box[1] + 1, box[3] - 1))
    draw.rectangle(inner, outline=colour_of(figure.id), width=thickness)
  taken: list[Panel] = []
  for figure, box in zip(figures, boxes, strict=True):
    taken.append(_draw_panel(picture, figure, box, font_size, taken, style))
  return np.asarray(picture)


def _pixels(box: np.ndarray, scale: np.ndarray, size: tuple[int, int]) -> tuple[int, ...]:
  """A box clipped to the picture, in integer pixels, x1 <= x2 and y1 <= y2."""
  x1, y1, x2, y2 = np.clip(np.round(box * scale), 0, [*size, *size]).astype(int).tolist()
  x1, y1 = min(x1, size[0] - 2), min(y1, size[1] - 2)
  return x1, y1, max(x1 + 1, min(x2, size[0] - 1)), max(y1 + 1, min(y2, size[1] - 1))


def _draw_panel(
  picture: Image.Image,
  figure: Figure,
  box: tuple[int, ...],
  font_size: int,
  taken: Sequence[Panel],
  style: Style,
) -> Panel:
  """Writes the id and the actions beside the box; returns the panel's xyxy."""
  font, line, pad = font_of(font_size), line_height(font_size), max(3, font_size // 5)
  badge = f'#{figure.id}'
  badge_width = int(font.getlength(badge)) + 2 * pad
  room = picture.width - badge_width - 2 * pad
  lines = [fit(text, room, font) for text in figure.lines]
  text_width = max((int(font.getlength(text)) for text in lines), default=0)
  width = badge_width + (text_width + 2 * pad if lines else 0)
  height = line * max(1, len(lines)) + pad
  panel = _place(box, width, height, picture.size, taken)
  under = picture.crop(panel)
  shade = Image.new('RGB', under.size, BACKGROUND)
  picture.paste(Image.blend(under, shade, style.panel_opacity), panel[:2])
  draw, colour = ImageDraw.Draw(picture), colour_of(figure.id)
  draw.rectangle((panel[0], panel[1], panel[0] + badge_width - 1, panel[3] - 1), fill=colour)
  font.write(draw, (panel[0] + pad, panel[1] + pad // 2), badge, (0, 0, 0))
  for i, text in enumerate(lines):
    position = (panel[0] + badge_width + pad, panel[1] + pad // 2 + i * line)
    font.write(draw, position, text, (255, 255, 255))
  return panel


def _place(
  box: tuple[int, ...], width: int, height: int, size: tuple[int, int], taken: Sequence[Panel]
) -> Panel:
  """Above the box, below it, or inside: the first of these that overlaps other panels least.

  Candidates are fixed, so that panels do not jump from frame to frame.
  """
  x1, y1, x2, y2 = box
  spots = [(x1, y1 - height), (x1, y2), (x1, y1), (x2 - width, y1 - height), (x2 - width, y2)]
  spots.append((x1, y2 - height))
  spots = [spot for spot in spots if 0 <= spot[1] <= size[1] - height] or spots
  return least_covered(spots, width, height, size, taken)
