"""Trains the tiny model of tests/test_main.py as a program of its own, as several processes too.

python -m tests.run_tiny DATA WORKDIR [COORDINATOR PROCESSES PROCESS] [--config.key=value ...]
"""

import sys
from pathlib import Path

from evad_jax import distributed, main
from evad_jax.errors import exit_on_input_error
from tests.test_main import tiny_config


def configuration(data, *settings):
  """drop_path, so that the random keys of a step matter, and an evaluation in the middle."""
  config = tiny_config(data)
  config.model.drop_path = 0.2
  config.train.update(epochs=2.0, checkpoint_every=4, eval_every=6)
  for setting in settings:
    key, _, value = setting.partition('=')
    *sections, name = key.removeprefix('--config.').split('.')
    place = config
    for section in sections:
      place = place[section]
    kind = type(place[name])
    place[name] = value == 'True' if kind is bool else kind(value)
  return config


if __name__ == '__main__':
  settings = [argument for argument in sys.argv[1:] if argument.startswith('--')]
  arguments = [argument for argument in sys.argv[1:] if not argument.startswith('--')]
  with exit_on_input_error():
    config = configuration(arguments[0], *settings)
    if len(arguments) > 2:
      config.hosts.update(
        launch='explicit',
        coordinator=arguments[2],
        processes=int(arguments[3]),
        process=int(arguments[4]),
      )
    distributed.start(config.hosts)
    main.run(config, Path(arguments[1]), 'train')
    distributed.stop()
