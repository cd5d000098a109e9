"""Command line: train and evaluate, or evaluate alone, as a configuration says.

  python -m evad_jax.main --config=configs/demo.py
  python -m evad_jax.main --config=configs/demo.py --mode=eval --workdir=runs/demo
  python -m evad_jax.main --config=configs/ava.py --mode=eval --config.checkpoint=converted/vit_b

Any key of the configuration can be changed: --config.train.epochs=3. Every key is in
configs/common.py with a comment. A run that was stopped continues when it is started again.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from evad_jax import checkout, config_flag
from evad_jax.errors import InputError, exit_on_input_error

flags.adopt_module_key_flags(config_flag)  # for --help
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where results go; default: runs/<config.name>.')
_MODE = flags.DEFINE_enum(
  'mode', 'train', ['train', 'eval'], 'Train and evaluate, or evaluate a checkpoint.'
)


def make_missing_data(config: ConfigDict) -> None:
  """Makes the synthetic set where a configuration uses one and it is not there."""
  if not config.data.synthetic or (Path(config.data.directory) / 'manifest.json').exists():
    return
  synthetic = checkout.module('data_prep.synthetic')  # only this configuration needs it

  height, width = config.clip.canvases[0]
  settings = synthetic.Settings(
    height=height,
    width=width,
    clip_frames=config.clip.clip_frames,
    frame_stride=config.clip.frame_stride,
    hard=config.data.synthetic == 'hard',
  )
  synthetic.generate(config.data.directory, settings)


def evaluate_checkpoint(config: ConfigDict, workdir: Path):
  """Evaluates the newest, or the chosen, checkpoint of a run on config.data.eval_split."""
  from evad_jax import distributed, evaluate, profiling, saved_model

  saved = saved_model.open_checkpoint(config, config.checkpoint or workdir / 'checkpoints')
  distributed.tell(f'Evaluating {saved.where} on {saved.index.split}')
  evaluator = evaluate.make_evaluator(saved.config, saved.model, saved.index, saved.mesh)
  return evaluator(saved.params, profile=profiling.Profile(config.profile, workdir / 'profile'))


@contextlib.contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
  """Holds a working directory for all processes of a run, by the first of them.

  Raises InputError, in every process, where another run holds it.
  """
  from evad_jax import directory_lock, distributed

  with contextlib.ExitStack() as stack:
    problem = None
    try:
      if distributed.is_first():
        stack.enter_context(directory_lock.held(workdir, 'training', 'another --workdir'))
    except InputError as error:
      problem = error
    if distributed.any_of(problem is not None):
      raise problem or InputError(f'{workdir}: process 0 of this run says why it cannot be used.')
    yield


def run(config: ConfigDict, workdir: Path, mode: str) -> None:
  """Trains or evaluates, prints the table, and writes what is to be kept to `workdir`.

  Raises InputError for whatever is wrong with what was given, also where another run trains in
  `workdir`; an evaluation only reads what one has saved.
  """
  from evad_jax import config_rules, storage

  config_rules.check(config)
  storage.refuse_address(workdir, '--workdir')
  storage.refuse_address(config.data.directory, 'config.data.directory')
  for key in ('checkpoint', 'init_from'):
    storage.refuse_address(config[key], f'config.{key}')
  with alone_in(workdir) if mode == 'train' else contextlib.nullcontext():
    _run(config, workdir, mode)


def _run(config: ConfigDict, workdir: Path, mode: str) -> None:
  import jax  # here, so that --help and wrong flags answer at once

  from evad_jax import compile_cache, distributed, evaluate, storage, train
  from evad_jax.preemption import Interrupted, Preempted

  start = time.perf_counter()
  compile_cache.use_default()
  jax.config.update('jax_default_matmul_precision', config.matmul_precision)
  if distributed.is_first():
    make_missing_data(config)
  distributed.wait_for_all('data')
  if mode == 'train':
    try:
      evaluation = train.train_and_evaluate(config, workdir)
    except (Preempted, Interrupted) as stop:
      distributed.tell(
        f'Stopped by SIGTERM in {stop}; all that was computed is saved, and the same command '
        'continues there.'
      )
      return
  else:
    evaluation = evaluate_checkpoint(config, workdir)
  if distributed.is_first():
    name = f'eval_{config.data.eval_split}' + ('_keyframe_only' * config.eval.keyframe_only)
    with storage.told(workdir):
      evaluate.write(evaluation, workdir, name)
    print(evaluation.table())
    print(f'{(time.perf_counter() - start) / 60:.1f} minutes; results in {workdir}/{name}*')
    if mode == 'train':
      print(
        f'On a video: python -m evad_jax.tools.detect_video VIDEO --checkpoint {workdir} '
        '--output seen.mp4'
      )


def main(argv: list[str]) -> None:
  """Exit status 0, or 2 with one sentence on standard error for bad input."""
  with exit_on_input_error():
    config = config_flag.parse(argv)
    from evad_jax import distributed  # here for the reason that `run` gives

    distributed.start(config.hosts)
    run(config, Path(_WORKDIR.value or f'runs/{config.name}'), _MODE.value)
    distributed.stop()


if __name__ == '__main__':
  main(sys.argv)
