"""Recomputes a non-finite training step, from the dump that the run wrote.

  python -m evad_jax.tools.replay_step runs/ava/non_finite_step_1234

It prints every loss term, the gradient norm, and the parameters that were non-finite before the
step. It runs on one device, whatever the run used.
"""

from pathlib import Path

from evad_jax import command_line
from evad_jax.errors import InputError
from evad_jax.training import setup


def replay(directory: Path) -> list[str]:
  """Recomputes the step; returns lines of text. Raises InputError where there is no such dump."""
  import jax
  import numpy as np
  from ml_collections import ConfigDict

  from evad_jax import value_rules
  from evad_jax.checkpoints.manager import Checkpoints
  from evad_jax.distributed import sharding
  from evad_jax.distributed.parameter_rules import by_path
  from evad_jax.files import text_files
  from evad_jax.settings import config_rules, from_config
  from evad_jax.training import keep_rates, non_finite

  path = directory / 'config.json'
  if not path.is_file():
    raise InputError(f'{directory}: holds no config.json; give a directory non_finite_step_N.')
  content = text_files.read_json(path, 'the dump of a run, or start it again for another')
  value_rules.check(content, {}, f'{path}: ')
  config = ConfigDict(content)
  config_rules.check(config)
  config.mesh.update(model=1, fsdp=False)
  jax.config.update('jax_default_matmul_precision', config.matmul_precision)
  model = from_config.make_model(config)
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  optimizer = setup.make_optimizer(config, model, lambda step: 0.0)
  abstract = setup.abstract_state(config, model, optimizer)
  shardings = sharding.state_shardings(abstract, optimizer, mesh, False)
  with Checkpoints(directory / 'checkpoints', read_only=True) as checkpoints:
    step = checkpoints.choose(0)
    state = checkpoints.restore(step, sharding.placed(abstract, shardings))
  bad = [path for path, leaf in by_path(state.params).items() if not np.isfinite(leaf).all()]
  batch = sharding.put_batch(non_finite.read_batch(directory), mesh)
  rate = keep_rates.of_step(keep_rates.listed(config), config.seed, step + 1)
  step_fn = setup.compile_step(config, model.clone(keep_rate=rate), optimizer, mesh)
  _, metrics = jax.device_get(step_fn(state, batch, jax.random.key(config.seed + 1)))
  lines = [f'step {step + 1}: loss {metrics.loss}, gradient norm {metrics.grad_norm}']
  for name, term in metrics.terms._asdict().items():
    lines += [f'  {name} {number}: {value}' for number, value in enumerate(term)]
  lines.append(f'  consistency: {metrics.consistency}')
  return [*lines, f'non-finite parameters before the step: {", ".join(bad) or "none"}']


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  parser = command_line.Parser('evad_jax.tools.replay_step', __doc__)
  parser.add_argument('directory', type=Path, help='non_finite_step_N of a working directory')
  print('\n'.join(replay(parser.parse_args(argv).directory)))


if __name__ == '__main__':
  command_line.run(main)
