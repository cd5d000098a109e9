"""Runs of one test process share their compiled programs: tracing and loading one takes seconds."""

import functools
import json

from evad_jax.evaluation import evaluate
from evad_jax.training import setup

# Settings that no step depends on; steps that differ in any other are different programs.
_FREE = {
  'data': ('directory', 'synthetic', 'workers', 'eval_split'),
  'train': (
    'epochs',
    'log_every',
    'checkpoint_every',
    'eval_every',
    'keep_checkpoints',
    'non_finite',
  ),
  'eval': ('sheet_clips', 'batch_size'),
}
_STEPS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55)  # at which two learning rates are compared


def share():
  """From now on the same step, or prediction, of the same model on the same mesh is one program."""
  compile_step, make_optimizer = setup.compile_step, setup.make_optimizer
  steps, rates = {}, {}

  def known_optimizer(config, model, rate):
    optimizer = make_optimizer(config, model, rate)
    rates[optimizer.update] = tuple(float(rate(step)) for step in _STEPS)
    return optimizer

  def step_once(config, model, optimizer, mesh, *, chained=False):
    new = functools.partial(compile_step, config, model, optimizer, mesh, chained=chained)
    if optimizer.update not in rates:
      return new()
    key = _settings(config), rates[optimizer.update], model, mesh, chained
    return steps[key] if key in steps else steps.setdefault(key, new())

  setup.make_optimizer, setup.compile_step = known_optimizer, step_once
  evaluate.compile_predict = functools.cache(evaluate.compile_predict)


def _settings(config):
  settings = config.to_dict()
  for section, names in _FREE.items():
    settings[section] = {k: v for k, v in settings[section].items() if k not in names}
  return json.dumps(
    {k: v for k, v in settings.items() if k not in ('seed', 'init_from', 'profile', 'checkpoint')}
  )
