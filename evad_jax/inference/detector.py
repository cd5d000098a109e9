"""A trained or converted detector, ready for use from Python.

    detector = Detector.from_checkpoint('runs/demo')
    detections = detector(frames)                       one clip, or several of one size
    for people in detector.stream(frames_of_a_video):   a file or a live source, see streaming.py
      ...

Frames are uint8 RGB of any size; boxes are returned as fractions of their width and height.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evad_jax import value_rules
from evad_jax.checkpoints import manager, model_settings, parameter_checks
from evad_jax.data import augment
from evad_jax.data.aspect_buckets import Canvas
from evad_jax.data.clips import ClipSettings, empty_batch
from evad_jax.errors import InputError
from evad_jax.formats import class_lists
from evad_jax.inference import streaming
from evad_jax.inference.predict import predict
from evad_jax.model import model_rules
from evad_jax.model.evad import EVAD
from evad_jax.settings import automatic, from_config, start_values
from evad_jax.structures import Batch, Detections

# Clip settings stored in a checkpoint that detection needs.
CLIP_KEYS = ('clip_frames', 'frame_stride', 'short_side', 'max_long')
# Settings that give a count, and the parameters that they count.
_COUNTED = (
  ('depth', 'encoder', 'block_'),
  ('num_stages', 'person_detector', 'stage_'),
  ('decoder_depth', 'context_refinement', 'block_'),
)


class Detector:
  """Detects people and their actions in clips; holds the parameters and compiled programs.

  One program is compiled per batch size, canvas size and keep rate.
  """

  def __init__(
    self,
    model: EVAD,
    params: Any,
    clip: ClipSettings,
    classes: Sequence[str] | Mapping[int, str],
    class_ids: Sequence[int] | None = None,
  ):
    """params: the model's parameters; clip: how clips are cut and resized.

    classes: A names, in order, or keyed by the ids of a label map. class_ids: ids of the label map
    that the model was trained with. Names shared by several classes get a number. Raises InputError
    for a wrong number of names.
    """
    self.model, self.clip, self.class_ids = model, clip, class_ids
    self.classes = class_lists.of_model(classes, model.num_actions, class_ids)
    self.params = jax.device_put(params)
    self._predict = jax.jit(predict, static_argnums=0)

  @classmethod
  def from_checkpoint(
    cls,
    path: str | Path,
    *,
    step: int = 0,
    keep_rate: float | tuple[float, ...] | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    dtype: str | None = None,
    **clip: Any,
  ) -> 'Detector':
    """Loads a checkpoint of a training run or a converted one.

    Args:
      path: directory of checkpoints, one step in it, or the working directory of a run.
      step: 0 for the newest, -1 for the best that was evaluated.
      keep_rate: overrides the rate it was trained with, in (0, 1]; the parameters serve every rate.
      classes: A names, in order, or keyed by the ids of a label map; override the checkpoint's.
        Converted checkpoints have none.
      dtype: of the computation: 'float32', 'bfloat16', or 'auto' for what is fast on this device;
        None: as in the checkpoint.
      clip: clip_frames, frame_stride, short_side (pixels) or max_long; override the checkpoint's
        values or supply missing ones.

    Raises:
      InputError: no such checkpoint, an encoder alone, settings that this version does not know, or
        settings that do not fit together.
    """
    directory, own_step = manager.locate(path)
    with manager.Checkpoints(directory, read_only=True) as checkpoints:
      step = checkpoints.choose(step if own_step is None else own_step)
      settings, where = checkpoints.settings(step), directory / str(step)
      model_settings.check_complete(settings, where)
      params = checkpoints.read_params(step)
    arguments = model_settings.saved_settings(settings, where)
    if keep_rate is not None:
      arguments['keep_rate'] = keep_rate
    dtype = automatic.without_auto({'dtype': dtype or arguments['dtype']})['dtype']
    if dtype not in from_config.DTYPES:
      raise InputError(f'dtype={dtype!r} is not one of {", ".join(from_config.DTYPES)}, auto.')
    # How to compute is for this machine to choose, not for the one that trained the model.
    arguments |= {'dtype': from_config.DTYPES[dtype], 'remat': False, 'attention': 'auto'}
    model = EVAD(**{k: _hashable(v) for k, v in arguments.items()})
    check_keep_rate(model)
    check_params(model, params, where)
    if classes is None:
      classes = settings.get('classes') or [f'action {i + 1}' for i in range(model.num_actions)]
    clip = _clip_settings(settings.get('clip', {}), clip, where)
    try:
      return cls(model, params, clip, classes, settings.get('class_ids'))
    except InputError as error:
      raise InputError(f'{where}: {error}') from error

  @property
  def clip_frames(self) -> int:
    """T, the number of frames in a clip; the keyframe is frame T // 2."""
    return self.clip.clip_frames

  @property
  def frame_stride(self) -> int:
    """Step in video frames from one frame of a clip to the next."""
    return self.clip.frame_stride

  def picture(self, height: int, width: int) -> tuple[augment.Resize, Canvas]:
    """How a frame of height x width pixels is resized, and the canvas (H, W) that holds it.

    The canvas fits the picture, padded only as far as the token grid and its pyramid need.
    """
    resize = augment.plan_resize(
      height,
      width,
      canvas=self.clip.canvases[0] if self.clip.canvases else (0, 0),
      short_side=self.clip.short_side,
      max_long=self.clip.max_long,
    )
    multiple = 2 * self.model.patch
    canvas = tuple(-(-side // multiple) * multiple for side in (resize.height, resize.width))
    return resize, canvas

  def place(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resizes frames onto their canvas.

    Args:
      frames: (B, T, h, w, 3) uint8 RGB.

    Returns:
      Clips (B, T, H, W, 3) uint8, and the picture's height and width (B, 2) int32.
    """
    resize, canvas = self.picture(*frames.shape[2:4])
    clips = np.zeros((*frames.shape[:2], *canvas, 3), np.uint8)
    for clip, source in zip(clips, frames, strict=True):
      for out, frame in zip(clip, source, strict=True):
        augment.draw_frame(frame, resize, False, out)
    sizes = np.tile(np.array([resize.height, resize.width], np.int32), (len(frames), 1))
    return clips, sizes

  def __call__(
    self, frames: np.ndarray, keep_rate: float | tuple[float, ...] | None = None
  ) -> Detections:
    """Detects people on the keyframes of clips; NumPy arrays shaped as in `structures.Detections`.

    Args:
      frames: uint8 RGB, one clip (T, h, w, 3) or several (B, T, h, w, 3); results for one clip have
        no axis B. `clip_frames` and `frame_stride` say how to cut clips from a video.
      keep_rate: overrides the detector's.

    Raises:
      InputError: frames of the wrong shape or type, or a keep rate that does not fit.
    """
    frames = np.asarray(frames)
    fits = frames.ndim in (4, 5) and frames.shape[-4] == self.clip.clip_frames
    if not fits or frames.shape[-1] != 3 or frames.dtype != np.uint8:
      raise InputError(
        f'frames is {frames.dtype} of shape {frames.shape}; give uint8 RGB of shape '
        f'({self.clip.clip_frames}, height, width, 3), or several such clips.'
      )
    single = frames.ndim == 4
    clips, sizes = self.place(frames[None] if single else frames)
    found = self.run(clips, sizes, keep_rate)
    return Detections(*(x[0] for x in found)) if single else found

  def run(
    self,
    clips: np.ndarray,  # (B, T, H, W, 3) uint8 on their canvas
    sizes: np.ndarray,  # (B, 2) int32
    keep_rate: float | tuple[float, ...] | None = None,
  ) -> Detections:
    """Detects people in clips that `place` has made."""
    model = self.model if keep_rate is None else self.model.clone(keep_rate=_hashable(keep_rate))
    with jax.default_matmul_precision('highest'):
      return jax.device_get(self._predict(model, self.params, self._batch(clips, sizes)))

  def stream(
    self, frames: Iterable[Any], settings: streaming.Settings | None = None, **changes: Any
  ) -> streaming.Stream:
    """Yields the people of every keyframe of a video, with ids; see `streaming.Settings`."""
    return streaming.Stream(self, frames, (settings or streaming.Settings())._replace(**changes))

  def _batch(self, clips: np.ndarray, sizes: np.ndarray) -> Batch:
    return empty_batch(clips, 1, 1)._replace(sizes=sizes)


def _hashable(value: Any) -> Any:
  return tuple(value) if isinstance(value, list) else value


def check_params(model: EVAD, params: Any, where: Any) -> None:
  """Raises InputError for parameters that do not fit the model or are not all finite."""
  other = 'its settings; take another checkpoint'
  for key, part, prefix in _COUNTED:  # fast; abstract parameters of a deep model take long
    inside = params.get(part)
    there = sum(name.startswith(prefix) for name in inside) if isinstance(inside, Mapping) else 0
    if there != getattr(model, key):
      raise InputError(
        f'{where}: the checkpoint is of another model: it has {there} of {part}/{prefix}*, and '
        f'{key}={getattr(model, key)} in {other}.'
      )
  parameter_checks.check_fits(start_values.abstract_params_of_any_clip(model), params, where, other)
  parameter_checks.check_finite(params, where)


def check_keep_rate(model: EVAD) -> None:
  """Raises InputError for keep rates that are out of range or do not fit the model's blocks."""
  for rate in model.block_keep_rates():
    if not 0 < rate <= 1:
      raise InputError(f'keep_rate={model.keep_rate} must be in (0, 1].')


def _clip_settings(
  saved: dict[str, Any], given: dict[str, Any], where: Path
) -> ClipSettings:  # of the checkpoint `where`; given values take precedence
  """How a checkpoint's clips are cut; canvases matter only without a short side."""
  unknown = sorted(set(given) - set(CLIP_KEYS))
  if unknown:
    raise InputError(f'{unknown[0]} is not a clip setting; choose from {", ".join(CLIP_KEYS)}.')
  value_rules.check(given, model_rules.CLIP | {'short_side': model_rules.CLIP['max_long']}, '')
  clip = saved | given
  missing = [key for key in ('clip_frames', 'frame_stride') if key not in clip]
  if missing:
    raise InputError(
      f'{where}: the checkpoint does not say how its clips are cut; give {" and ".join(missing)}.'
    )
  canvases = tuple(tuple(canvas) for canvas in clip.get('canvases', ()))
  short_side = clip.get('short_side') or None
  if short_side is None and not canvases:
    raise InputError(f'{where}: the checkpoint states no picture size; give short_side.')
  known = {key: clip[key] for key in CLIP_KEYS if key in clip}
  return ClipSettings(**known | {'short_side': short_side}, canvases=canvases, max_boxes=1)
