"""One optimizer step: a pure function of state, batch and key."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from evad_jax.model.evad import normalize_clips
from evad_jax.structures import Batch
from evad_jax.training import losses, matcher
from evad_jax.training.optimizer import at_step

Array = jax.Array


class TrainState(NamedTuple):
  """Everything that a step changes."""

  step: Array  # () int32, optimizer steps done
  params: Any
  opt_state: Any
  ema_params: Any  # None where the moving average is off


class StepMetrics(NamedTuple):
  """The metrics of a step; float32 scalars, except the terms."""

  loss: Array  # ()
  terms: losses.Terms
  grad_norm: Array  # ()
  consistency: Array  # () part of the loss that is the distance to the unpruned pass; 0: off


def initial_state(params: Any, optimizer: optax.GradientTransformation, ema: bool) -> TrainState:
  """The state before the first step."""
  ema_params = jax.tree.map(jnp.copy, params) if ema else None
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema_params)


def _sharded_match(mesh: Mesh | None):
  """Matching in which each device searches its own clips alone.

  Under plain SPMD all devices would agree on the end of the search at every loop iteration.
  """
  if mesh is None:
    return matcher.match
  stage_batch, batch = PartitionSpec(None, 'data'), PartitionSpec('data')
  return jax.shard_map(
    matcher.match,
    mesh=mesh,
    in_specs=(stage_batch, stage_batch, batch, batch),
    out_specs=stage_batch,
    check_vma=False,
  )


def loss_terms(
  params: Any,
  batch: Batch,
  norms: losses.Normalizers,
  key: Array,
  *,
  model: nn.Module,
  action_weight: float,
  consistency: float = 0.0,
  masked: bool = False,
  mesh: Mesh | None,
) -> tuple[Array, tuple[losses.Terms, Array]]:
  """The objective in training mode; its weighted terms, and the part of it that is consistency."""
  clips = normalize_clips(batch.clips, batch.sizes, model.dtype)
  match = _sharded_match(mesh)
  outputs = model.apply({'params': params}, clips, batch.sizes, train=True, rngs={'drop_path': key})
  matches = match(outputs.person_logits, outputs.boxes, batch.targets, batch.sizes)
  terms = losses.detection_losses(
    outputs,
    batch.targets,
    batch.sizes,
    matches,
    norms,
    action_weight,
    batch.example_mask if masked else None,
  )
  if not consistency or set(model.block_keep_rates()) == {1.0}:
    return terms.total(), (terms, jnp.zeros((), terms.action.dtype))
  # The unpruned pass is the target that pruning should not change: no drop path, no gradient.
  fixed = {'params': jax.lax.stop_gradient(params)}
  whole = model.clone(keep_rate=1.0).apply(fixed, clips, batch.sizes, train=False)
  found = match(whole.person_logits, whole.boxes, batch.targets, batch.sizes)
  distance = losses.consistency_loss(
    outputs.action_logits,
    matches.proposal[-1],
    whole.action_logits,
    found.proposal[-1],
    batch.targets.box_mask,
  )
  # Weighted and divided by the number of terms, like the action loss.
  weight = consistency * action_weight / norms.boxes / sum(term.size for term in terms)
  distance = weight * distance.sum()
  return terms.total() + distance, (terms, distance)


def _split(x: Array, parts: int) -> Array:
  """(B, ...) -> (parts, B/parts, ...): microbatches, each with clips of every device."""
  return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def unless_non_finite(
  old: Any, new: Any, loss: Array, grad_norm: Array, sound: Array | bool = True
) -> Any:
  """`new`, or `old` where loss or gradient norm is non-finite or `sound` is False.

  Both trees have one structure.
  """
  good = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & sound
  return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def train_step(
  state: TrainState,
  batch: Batch,
  key: Array,  # of the run; the step is folded in here
  sound: Array | None = None,  # () bool; where it is False, nothing changes and no step counts
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  action_weight: float,
  consistency: float = 0.0,  # weight of the distance to the unpruned pass; 0: off
  accumulation: int = 1,  # gradient accumulation steps (microbatches)
  masked: bool = False,  # whether clips may be missing, which then do not count
  ema_decay: float = 0.0,  # 0: no moving average
  mesh: Mesh | None = None,
) -> tuple[TrainState, StepMetrics]:
  """Computes the gradients of the global batch, in `accumulation` microbatches, and one update.

  Where they are non-finite, the step counts, for the learning rate too, and changes nothing else.
  """
  mask = batch.example_mask if masked else None
  norms = losses.normalizers(batch.targets, model.num_proposals, mask)
  gradient = jax.value_and_grad(
    functools.partial(
      loss_terms,
      model=model,
      action_weight=action_weight,
      consistency=consistency,
      masked=masked,
      mesh=mesh,
    ),
    has_aux=True,
  )
  key = jax.random.fold_in(key, state.step)
  if accumulation == 1:
    (loss, (terms, distance)), grads = gradient(state.params, batch, norms, key)
  else:
    parts = jax.tree.map(lambda x: _split(x, accumulation), batch)

    def add_part(total: Any, part: tuple[Array, Batch]) -> tuple[Any, None]:
      number, clips = part
      result = gradient(state.params, clips, norms, jax.random.fold_in(key, number))
      return jax.tree.map(jnp.add, total, result), None

    first = jax.eval_shape(gradient, state.params, jax.tree.map(lambda x: x[0], parts), norms, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    total, _ = jax.lax.scan(add_part, zeros, (jnp.arange(accumulation), parts))
    (loss, (terms, distance)), grads = total

  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema_params = state.ema_params
  if ema_decay:
    ema_params = optax.incremental_update(params, ema_params, 1 - ema_decay)
  new_state = TrainState(state.step, params, opt_state, ema_params)
  grad_norm = optax.tree.norm(grads)
  sound = jnp.array(True) if sound is None else sound
  new_state = unless_non_finite(state, new_state, loss, grad_norm, sound)
  step = state.step + sound.astype(jnp.int32)
  new_state = new_state._replace(step=step, opt_state=at_step(new_state.opt_state, step))
  return new_state, StepMetrics(loss, terms, grad_norm, distance)
