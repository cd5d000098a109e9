"""AdamW with the published parameter groups, and the learning rate by fractional epoch.

Two ordered rule lists: the first pattern that matches a parameter's path decides. A parameter that
no rule covers is an error.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from evad_jax.distributed import parameter_rules
from evad_jax.distributed.parameter_rules import path_of
from evad_jax.errors import InputError

Params = Any

# Published: the heads (person stages, decoder with its action heads, projection, mask token) learn
# at `head_multiplier` times the base rate; encoder, pyramid and proposals at the base rate.
RATE_RULES = (
  (r'encoder/.*', 'base'),
  (r'fpn/.*', 'base'),
  (r'person_detector/proposal_(boxes|features)', 'base'),
  (r'person_detector/stage_\d+/.*', 'head'),
  (r'context_refinement/.*', 'head'),
)
DECAY_RULES = (
  (r'.*/(bias|q_bias|v_bias|scale)', False),
  (r'.*/mask_token', False),
  (r'.*/kernel', True),
  (r'.*/proposal_(boxes|features)', True),
)


by_rules = functools.partial(parameter_rules.by_rules, where='evad_jax/training/optimizer.py')


def learning_rate(settings: Any, total_epochs: float) -> Callable[[Any], Any]:
  """Fractional epoch -> learning rate: linear warm-up, then steps (published) or half a cosine.

  `settings` has rate, schedule ('step' or 'cosine'), warmup_epochs, warmup_start, milestones and
  factors.
  """
  if settings.schedule == 'step':
    rates = settings.rate, *(settings.rate * factor for factor in settings.factors)
    after = optax.join_schedules(list(map(optax.constant_schedule, rates)), settings.milestones)
  elif settings.schedule == 'cosine':
    span = max(total_epochs - settings.warmup_epochs, 1e-9)
    decay = optax.cosine_decay_schedule(settings.rate, 1.0)

    def after(epoch: Any) -> Any:
      return decay((epoch - settings.warmup_epochs) / span)

  else:
    raise InputError(
      f"config.optimizer.schedule={settings.schedule!r} is not one of 'step', 'cosine'."
    )

  def rate(epoch: Any) -> Any:
    # optax.linear_schedule counts down from the target, which rounds differently.
    target = after(settings.warmup_epochs)
    if not settings.warmup_epochs:
      return after(epoch)
    rise = settings.warmup_start + (target - settings.warmup_start) * epoch / settings.warmup_epochs
    return jnp.where(epoch < settings.warmup_epochs, rise, after(epoch))

  return rate


def layer_scales(params: Params, decay: float) -> Params:
  """Layer-wise learning rate decay: decay^(blocks above) for the encoder, 1 elsewhere."""
  depth = sum(name.startswith('block_') for name in params['encoder'])

  def scale(key_path: tuple, _: Any) -> float:
    path = path_of(key_path)
    if path.startswith('encoder/tubelets'):
      return decay ** (depth + 1)
    block = re.match(r'encoder/block_(\d+)/', path)
    return decay ** (depth - int(block[1])) if block else 1.0

  return jax.tree_util.tree_map_with_path(scale, params)


def make_optimizer(
  settings: Any, params: Params, schedule: Callable[[Any], Any]
) -> optax.GradientTransformation:
  """AdamW; `schedule` maps a step to the base rate.

  `settings` has b1, b2, eps, weight_decay, head_multiplier, clip_norm (0: off) and layer_decay
  (1: off).
  """
  multipliers = {'base': 1.0, 'head': settings.head_multiplier}
  rates = by_rules(params, RATE_RULES)
  scales = jax.tree.map(
    lambda group, layer: multipliers[group] * layer,
    rates,
    layer_scales(params, settings.layer_decay),
  )
  transforms = [
    _adam(settings),
    optax.add_decayed_weights(settings.weight_decay, mask=by_rules(params, DECAY_RULES)),
    optax.stateless(lambda updates, _: jax.tree.map(lambda u, s: u * s, updates, scales)),
    optax.scale_by_learning_rate(schedule),
  ]
  if settings.clip_norm:
    transforms.insert(0, optax.clip_by_global_norm(settings.clip_norm))
  return optax.chain(*transforms)


def _adam(settings: Any) -> optax.GradientTransformation:
  """optax's Adam, which raises a float to the power of an integer count."""
  adam = optax.scale_by_adam(settings.b1, settings.b2, settings.eps)

  def update(*arguments: Any) -> Any:
    # Strict promotion may come from the environment: programs that tests start inherit it.
    with jax.numpy_dtype_promotion('standard'):
      return adam.update(*arguments)

  return adam._replace(update=update)


def at_step(opt_state: Any, step: jax.Array) -> Any:
  """The optimizer state with the learning rate of a step, counted from 0.

  Adam's own count excludes skipped updates; the bias correction of the moments uses that one.
  """

  def counts(part: Any) -> bool:
    return isinstance(part, optax.ScaleByScheduleState)

  return jax.tree.map(
    lambda part: part._replace(count=step) if counts(part) else part, opt_state, is_leaf=counts
  )
