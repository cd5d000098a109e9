"""The training part of a golden case: losses, matches, gradients and five optimizer steps.

Tensors are compared by published name. Our layouts are transpositions of the published ones, which
leave norms and sums as they are; full tensors are converted.
"""

import functools
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evad_jax.model.evad import EVAD
from evad_jax.published.weight_names import NOT_PARAMETERS, to_parameters
from evad_jax.structures import Targets
from evad_jax.training import losses, matcher
from evad_jax.training.optimizer import make_optimizer
from tests import golden_kinks, golden_rule
from tests.golden_case import Case, build_model
from tests.golden_compare import Arrays, Row
from tests.published_names import to_path

Objective = Callable[[Any], Any]

STEPS = 5
INPUTS = re.compile(r'gt\d+/.*|opt/.*|loss_names|param_names')
WHOLE = re.compile(r'(?:grad|lr[^/]+/after5)/(.+)')  # a full tensor, by published name
FLOOR = 1e-7  # norms below this are compared absolutely
PERSON_TERMS = {'loss_ce': 'person', 'loss_bbox': 'box_l1', 'loss_giou': 'box_giou'}


def compare_training(case: Case, *, strict: bool = False) -> list[Row]:
  """Runs the training part and judges every key of the type of the case.

  Where float32 fails it is run once more with the ReLU inputs within rounding of zero held on the
  side that they have in float64 (golden_kinks), and judged by the same tolerances; a row reports
  it. strict: no second run.
  """
  rows = _judged(case, hold=False)
  if case.x64 or strict or all(row.passed() for row in rows):
    return rows
  near, of = golden_kinks.count(golden_kinks.sides(case, case.params))
  failed = ', '.join(f'{row.key} {row.error:.1e}' for row in rows if not row.passed())
  note = f'{near} of {of} ReLU inputs lie within float32 of zero and are held; without: {failed}'
  return [*_judged(case, hold=True), Row('held', float(near), None, note)]


def _judged(case: Case, hold: bool) -> list[Row]:
  golden = _of_one_type(case.golden, case.x64)
  ours = _training(case, golden, hold)
  rows = []
  for key in golden:
    if INPUTS.fullmatch(key):
      continue
    rows += _rows(key, golden, ours, case.x64)
  return rows


def _of_one_type(golden: Arrays, x64: bool) -> Arrays:
  """The inputs, and the keys of float64 (their mark removed) or those of float32."""
  both = re.compile(rf'{INPUTS.pattern}|match/.*/(pred|gt)')
  return {
    key.replace('_float64', ''): value
    for key, value in golden.items()
    if both.fullmatch(key) or ('_float64' in key) == x64
  }


def _training(case: Case, golden: Arrays, hold: bool) -> Arrays:
  """All our values by golden key; full tensors in our layout."""
  dtype = np.float64 if case.x64 else np.float32
  params = jax.tree.map(lambda x: jnp.asarray(x, dtype), case.params)
  targets = _targets(golden, len(case.clips), dtype)
  objective = _objective(case, targets, hold)
  names = _names(case, golden)
  start = objective(params)
  ours = _first_step(start, params, names)
  ours |= _matches(start, targets, case.sizes)
  optimizer, loss_names = _optimizer(golden, params), golden['loss_names'].tolist()
  for rate in golden['opt/lrs'].tolist():
    steps = _steps(objective, params, jnp.asarray(rate, dtype), optimizer, names, loss_names)
    ours |= {f'lr{rate}/{key}': value for key, value in steps.items()}
  return ours


def _names(case: Case, golden: Arrays) -> list[str]:
  if 'param_names' in golden:
    return golden['param_names'].tolist()
  return [n for n in golden_rule.published_shapes(case.size) if n not in NOT_PARAMETERS]


def _targets(golden: Arrays, batch: int, dtype: Any) -> Targets:
  """Ground truth padded to the largest number of boxes of a clip, at least one."""
  boxes = [golden[f'gt{i}/boxes'] for i in range(batch)]
  labels = [golden[f'gt{i}/labels'] for i in range(batch)]
  most = max(1, *(len(b) for b in boxes))

  def padded(parts: list[np.ndarray]) -> jax.Array:
    rows = [np.pad(part, ((0, most - len(part)), (0, 0))) for part in parts]
    return jnp.asarray(np.stack(rows), dtype)

  mask = np.arange(most) < np.array([[len(b)] for b in boxes])
  return Targets(padded(boxes), padded(labels), jnp.asarray(mask))


@functools.partial(jax.jit, static_argnames=('model', 'action_weight'))
@functools.partial(jax.value_and_grad, has_aux=True)
def _gradient(
  params: Any,
  clips: Any,
  sizes: Any,
  targets: Targets,
  sides: golden_kinks.Sides | None,
  *,
  model: EVAD,
  action_weight: float,
) -> tuple[jax.Array, tuple]:
  """((mean of the weighted terms, (terms, outputs, matches)), gradients by `params`)."""
  with golden_kinks.held(sides):
    outputs = model.apply({'params': params}, clips, sizes, train=True)
  matches = matcher.match(outputs.person_logits, outputs.boxes, targets, sizes)
  norms = losses.normalizers(targets, model.num_proposals)
  terms = losses.detection_losses(outputs, targets, sizes, matches, norms, action_weight)
  return terms.total(), (terms, outputs, matches)


def _objective(case: Case, targets: Targets, hold: bool) -> Objective:
  """params -> what _gradient returns for the clips of the case."""
  model = build_model(case, 'released')
  clips = case.clips.astype(model.dtype)

  def objective(params: Any) -> Any:
    return _gradient(
      params,
      clips,
      case.sizes,
      targets,
      golden_kinks.sides(case, params) if hold else None,
      model=model,
      action_weight=case.action_weight,
    )

  return objective


def _tensor(tree: dict, name: str) -> np.ndarray:
  """The tensor of a published name, in our layout."""
  for key in to_path(name).split('/'):
    tree = tree[key]
  return np.asarray(tree, np.float64)


def _norms(tree: dict, names: list[str]) -> np.ndarray:
  return np.array([np.linalg.norm(_tensor(tree, name)) for name in names])


def _first_step(start: Any, params: dict, names: list[str]) -> Arrays:
  _, grads = start
  return {
    'param_norm_0': _norms(params, names),
    'grad_norm': _norms(grads, names),
    'grad_sum': np.array([_tensor(grads, name).sum() for name in names]),
    'root_size': np.array([_tensor(grads, name).size ** 0.5 for name in names]),
    **{f'grad/{name}': _tensor(grads, name) for name in names},
  }


def _matches(start: Any, targets: Targets, sizes: np.ndarray) -> Arrays:
  """Pairs sorted by proposal, and the costs of the real boxes."""
  (_, (_, outputs, matches)), _ = start
  costs = matcher.matching_costs(
    outputs.person_logits, outputs.boxes, targets.boxes[None], sizes[None]
  )
  ours = {}
  for stage, proposals in enumerate(np.asarray(matches.proposal)):
    for i, mask in enumerate(np.asarray(targets.box_mask)):
      chosen = proposals[i, mask]
      ours |= {
        f'match/stage{stage}/img{i}/pred': np.sort(chosen),
        f'match/stage{stage}/img{i}/gt': np.argsort(chosen),
        f'match/stage{stage}/img{i}/cost': np.asarray(costs[stage, i])[:, mask],
      }
  return ours


def _weighted(terms: losses.Terms, loss_names: list[str]) -> list[float]:
  """Our terms in the order of the published names; no number in a name means the last."""
  values = []
  for name in loss_names:
    kind, number = re.fullmatch(r'(loss_[a-z]+?)(?:_(\d+))?', name).groups()
    part = getattr(terms, PERSON_TERMS.get(kind, 'action'))
    values.append(float(part[-1 if number is None else int(number)]))
  return values


def _optimizer(golden: Arrays, params: dict) -> tuple[Callable, Callable]:
  """params -> state, and (rate, gradients, state, params) -> (params, state)."""
  settings = SimpleNamespace(
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=float(golden['opt/weight_decay']),
    head_multiplier=float(golden['opt/lr_scale']),
    clip_norm=0,
    layer_decay=1,
  )

  def with_rate(rate: Any) -> optax.GradientTransformation:
    return make_optimizer(settings, params, lambda step: rate)

  @jax.jit
  def update(rate: jax.Array, grads: Any, state: Any, now: Any) -> tuple[Any, Any]:
    updates, state = with_rate(rate).update(grads, state, now)
    return optax.apply_updates(now, updates), state

  return with_rate(0.0).init, update


def _steps(
  objective: Objective,
  params: dict,
  rate: jax.Array,
  optimizer: tuple,
  names: list[str],
  loss_names: list[str],
) -> Arrays:
  """Losses before every step and after the last, and how far the parameters went."""
  init, update = optimizer

  def gone(now: dict) -> np.ndarray:
    return np.array([np.linalg.norm(_tensor(now, n) - _tensor(params, n)) for n in names])

  now, state, terms, totals, after = params, init(params), [], [], {}
  for step in range(STEPS + 1):
    (total, (weighted, _, _)), grads = objective(now)
    totals.append(float(total))
    terms.append(_weighted(weighted, loss_names))
    if step == 1:
      after['delta_norm_1'] = gone(now)
    if step < STEPS:
      now, state = update(rate, grads, state, now)
  return {
    **after,
    'delta_norm_5': gone(now),
    'param_norm_5': _norms(now, names),
    'loss_weighted': np.array(terms),
    'loss_total': np.array(totals),
    **{f'after5/{name}': _tensor(now, name) for name in names},
  }


def _rows(key: str, golden: Arrays, ours: Arrays, x64: bool) -> list[Row]:
  """One row, or two for losses of which the first steps alone are judged."""
  if key not in ours:
    return [Row(key, np.nan, None, 'not compared: no such value on our side')]
  true, value = golden[key], ours[key]
  whole = WHOLE.fullmatch(key)
  if whole:
    true = _tensor(to_parameters({whole[1]: true}), whole[1])
  if true.shape != value.shape:
    return [Row(key, np.inf, 0.0, f'shape {value.shape}, golden {true.shape}')]
  kind = key.rpartition('/')[2] if not whole else key.split('/')[-2]
  if kind in ('pred', 'gt'):
    return [Row(key, float(np.sum(true != value)), 0.0, 'entries that differ')]
  if kind.startswith('loss_'):
    return _loss_rows(key, true, value, x64)
  scale = np.abs(true).max(initial=0)
  if kind.endswith(('_norm', '_norm_0', '_norm_1', '_norm_5')):
    scale = np.abs(true)
  elif kind == 'grad_sum':  # the most that an error of the norm can make
    scale = golden['grad_norm'] * ours['root_size']
  error = _relative(true, value, scale)
  return [Row(key, error, _tolerance(kind, x64))]


def _relative(true: np.ndarray, value: np.ndarray, scale: np.ndarray) -> float:
  """Worst error over `scale`; below FLOOR an entry may be wrong by FLOOR times the tolerance."""
  return float((np.abs(true - value) / np.maximum(scale, FLOOR)).max(initial=0))


def _tolerance(kind: str, x64: bool) -> float | None:
  if x64:
    wider = {'param_norm_5': 1e-7, 'after5': 1e-7, 'delta_norm_1': 1e-6, 'delta_norm_5': 1e-6}
    return wider.get(kind, 1e-9)
  judged = {'cost': 5e-5, 'param_norm_0': 5e-5, 'delta_norm_1': 5e-3}
  judged |= {'grad_norm': 2e-4, 'grad_sum': 2e-4, 'grad': 2e-4}
  return judged.get(kind)


def _loss_rows(key: str, true: np.ndarray, value: np.ndarray, x64: bool) -> list[Row]:
  """Rows are steps. The terms of the first are a stage; float32 drifts apart after the fourth."""
  weighted = key.endswith('weighted')
  judged = 1 if weighted else 4
  tolerance = (1e-9 if weighted else 1e-7) if x64 else (5e-5 if weighted else 1e-4)
  later = 1e-7 if x64 else None
  error = np.abs(true - value).reshape(len(true), -1).max(axis=1)
  error = error / np.abs(true).reshape(len(true), -1).max(axis=1)
  rows = [Row(f'{key}[:{judged}]', float(error[:judged].max()), tolerance)]
  if not weighted:
    rows.insert(0, Row(f'{key}[0]', float(error[0]), 1e-9 if x64 else 5e-5))
  return [*rows, Row(f'{key}[{judged}:]', float(error[judged:].max(initial=0)), later)]
