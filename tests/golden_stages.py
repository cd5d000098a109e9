"""Our value of every stage of a golden case, by the golden key and in the golden layout.

The layouts are the published system's: tokens (B, n, D), maps (B, C, h, w), RoIs (B*P, C, 7, 7).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evad_jax.inference.predict import detections
from evad_jax.metrics.frame_map import passing_proposals
from evad_jax.model import fpn, roi_align
from evad_jax.model.evad import EVAD
from evad_jax.model.position_embedding import position_table
from evad_jax.model.tubelet_pixels import grid_of
from evad_jax.structures import Detections, Outputs
from tests.golden_case import Case, build_model

Array = jax.Array

SCATTERED = 'fixed_remap/'  # keys with every kept token restored to its own index


class Trace(dict):
  """Arguments and result of every module's call, by the module's path."""

  def arguments(self, path: str) -> tuple:
    """Positional arguments."""
    return self[path][0]

  def result(self, path: str) -> Any:
    """What the call returned."""
    return self[path][1]


def traced_apply(
  model: EVAD, params: dict, clips: Array, sizes: Array
) -> tuple[Outputs, Trace, dict]:
  """Outputs, all calls on the way and the sown intermediates."""
  trace = Trace()

  def record(function: Any, args: tuple, kwargs: dict, context: Any) -> Any:
    result = function(*args, **kwargs)
    if context.method_name == '__call__':
      trace['/'.join(context.module.path)] = (args, result)
    return result

  with nn.intercept_methods(record):
    outputs, state = model.apply(
      {'params': params}, clips, sizes, train=False, mutable=['intermediates']
    )
  return outputs, trace, state['intermediates']


def stages_of(case: Case) -> dict[str, np.ndarray]:
  """All stages in the released mode of restoring, and in scatter mode if the golden file has it."""
  dtype = np.float64 if case.x64 else np.float32
  modes = {'': build_model(case, 'released')}
  if any(key.startswith(SCATTERED) for key in case.golden):
    modes[SCATTERED] = build_model(case, 'scatter')
  params = jax.tree.map(lambda x: x.astype(dtype), case.params)
  results = jax.device_get(
    _run(params, case.clips.astype(dtype), case.sizes, models=tuple(modes.values()))
  )
  stages = {}
  for prefix, (values, found) in zip(modes, results, strict=True):
    values |= _final(found, case.sizes, case.original_sizes)
    stages |= {prefix + key: value for key, value in values.items()}
  if len(case.clips) == 1:
    stages['input'] = stages['padded_input'][0, :, :, : case.sizes[0, 0], : case.sizes[0, 1]]
  return stages


@functools.partial(jax.jit, static_argnames='models')
def _run(
  params: dict, clips: Array, sizes: Array, *, models: tuple[EVAD, ...]
) -> list[tuple[dict[str, Array], Detections]]:
  """All models in one program: XLA merges what they share, everything before the restoring."""
  return [_stages(model, params, clips, sizes) for model in models]


def _stages(
  model: EVAD, params: dict, clips: Array, sizes: Array
) -> tuple[dict[str, Array], Detections]:
  outputs, trace, sown = traced_apply(model, params, clips, sizes)
  t, h, w = grid_of(clips.shape[1:4], model.tubelet, model.patch)
  pretrain_grid = (model.pretrain_size // model.patch,) * 2

  def table(width: int) -> np.ndarray:
    return position_table((t, h, w), pretrain_grid, width)[None]

  stages = {
    'padded_input': clips.transpose(0, 4, 1, 2, 3),
    'pos_embed': table(model.width),
    'dec_pos_embed': table(model.decoder_width),
    **_encoder(model, trace, sown.get('encoder', {}), h * w),
    **_pyramid(model, trace, h, w),
    **_detector(model, outputs, trace),
    **_decoder(model, outputs, trace, sown['context_refinement'], h * w),
  }
  return stages, detections(outputs, sizes)


def _encoder(model: EVAD, trace: Trace, sown: dict, n_keyframe: int) -> dict[str, Array]:
  tokens = trace.result('encoder/tubelets')
  stages = {'patch_tokens': tokens.reshape(tokens.shape[0], -1, tokens.shape[-1])}
  for i in range(model.depth):
    block = trace.result(f'encoder/block_{i}')
    stages |= {f'block{i}/out': block.x, f'block{i}/idx': block.places}
  for j, i in enumerate(sorted(model.prune_blocks)):
    (importance,) = sown[f'block_{i}']['importance']
    stages[f'topk{j}/scores'] = importance[:, n_keyframe:]
  stages['norm_out'] = trace.result('encoder')[0].x
  stages['enc2dec'] = trace.result('context_refinement/projection')
  return stages


def _pyramid(model: EVAD, trace: Trace, h: int, w: int) -> dict[str, Array]:
  stages = {}
  resize = (
    lambda x: fpn.nearest_upsample(x, 4),
    lambda x: fpn.nearest_upsample(x, 2),
    lambda x: x,
    lambda x: x[:, ::2, ::2],
  )
  for level, (i, change) in enumerate(zip(model.feature_blocks, resize, strict=True), start=2):
    keyframe = trace.result(f'encoder/block_{i}').x[:, : h * w]
    maps = change(keyframe.reshape(-1, h, w, keyframe.shape[-1]))
    stages[f'res{level}'] = maps.transpose(0, 3, 1, 2)
  for level, maps in enumerate(trace.result('fpn'), start=2):
    stages[f'p{level}'] = maps.transpose(0, 3, 1, 2)
  stages['p6'] = stages['p5'][:, :, ::2, ::2]
  return stages


def _detector(model: EVAD, outputs: Outputs, trace: Trace) -> dict[str, Array]:
  stages = {'proposal_boxes': trace.arguments('person_detector/stage_0')[1]}
  for i in range(model.num_stages):
    _, boxes, rois = trace.arguments(f'person_detector/stage_{i}')
    levels = roi_align.roi_levels(boxes, 14 * model.patch, num_levels=4)
    features = trace.result(f'person_detector/stage_{i}')[0]
    stages |= {
      f'rcnn{i}/roi_levels': levels.reshape(-1),  # 0 is the finest, as in the golden files
      f'rcnn{i}/roi_feat': rois.reshape(-1, *rois.shape[2:]).transpose(0, 3, 1, 2),
      f'rcnn{i}/obj_features': features.reshape(1, -1, features.shape[-1]),
      f'rcnn{i}/class_logits': outputs.person_logits[i],
      f'rcnn{i}/pred_bboxes': outputs.boxes[i],
    }
  return stages


def _decoder(
  model: EVAD, outputs: Outputs, trace: Trace, sown: dict, n_keyframe: int
) -> dict[str, Array]:
  (x,) = sown['decoder_input']
  if model.token_restoring == 'scatter':
    # These hold the kept tokens in ascending order of index.
    order = jnp.argsort(trace.result('encoder')[0].places, axis=1) + n_keyframe
    kept = jnp.take_along_axis(x, order[..., None], axis=1)
    x = jnp.concatenate([x[:, :n_keyframe], kept, x[:, n_keyframe + order.shape[1] :]], axis=1)
  stages = {
    'pool_in': sown['restored_grid'][0].transpose(0, 4, 1, 2, 3),
    'ext_boxes': sown['rois'][0],
    'roi_features': sown['actors'][0],
    'dec_in': x,
  }
  for i in range(model.decoder_depth):
    stages[f'dec{i}/out'] = trace.result(f'context_refinement/block_{i}').x
    stages[f'dec{i}/action_logits'] = outputs.action_logits[i]
  return stages


def _final(
  found: Detections, sizes: np.ndarray, original_sizes: np.ndarray
) -> dict[str, np.ndarray]:
  """The detections at the published person threshold, and without a threshold."""
  # The published system scales by a float32 ratio, made of a reciprocal, in float64 too.
  one = np.float32(1)
  ratio = original_sizes.astype(np.float32) * (one / sizes.astype(np.float32))

  def whwh(hw: np.ndarray) -> np.ndarray:  # (B, 2) -> (B, 1, 4)
    return np.tile(hw[:, ::-1], 2)[:, None]

  boxes = found.boxes * whwh(sizes) * whwh(ratio)
  boxes = boxes.astype(found.boxes.dtype)
  normalised = boxes / whwh(original_sizes)
  final = {}
  for name, threshold in (('final_t07', 0.7), ('final_t0', 0.0)):
    image, proposal = np.nonzero(passing_proposals(found.person_scores, threshold))
    final |= {
      f'{name}/actions': found.action_scores[image, proposal],
      f'{name}/boxes_norm': np.concatenate([image[:, None], normalised[image, proposal]], axis=1),
      f'{name}/person_boxes_abs': boxes,
      f'{name}/person_scores': found.person_scores,
    }
  return final
