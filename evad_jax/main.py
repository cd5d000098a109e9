"""Trains and evaluates, or only evaluates, as a configuration says.

  python -m evad_jax.main --config=configs/demo.py
  python -m evad_jax.main --config=configs/demo.py --mode=eval --workdir=runs/demo
  python -m evad_jax.main --config=configs/ava.py --mode=eval --config.checkpoint=converted/vit_b

Any key of the configuration can be changed: --config.train.epochs=3. configs/common.py lists every
key with a comment. A run that was stopped resumes when the same command is given again.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from evad_jax import command_line
from evad_jax.errors import InputError


def make_missing_data(config: ConfigDict) -> None:
  """Generates the synthetic data set if the configuration uses it and it does not exist yet."""
  if not config.data.synthetic or (Path(config.data.directory) / 'manifest.json').exists():
    return
  from evad_jax.synthetic import data_set  # only this configuration needs it

  height, width = config.clip.canvases[0]
  settings = data_set.Settings(
    height=height,
    width=width,
    clip_frames=config.clip.clip_frames,
    frame_stride=config.clip.frame_stride,
    hard=config.data.synthetic == 'hard',
  )
  data_set.generate(config.data.directory, settings)


def evaluate_checkpoint(config: ConfigDict, workdir: Path):
  """Evaluates the newest or the chosen checkpoint of a run on config.data.eval_split."""
  from evad_jax.distributed import processes, profiling
  from evad_jax.evaluation import evaluate, saved_model

  saved = saved_model.open_checkpoint(config, config.checkpoint or workdir / 'checkpoints')
  processes.tell(f'Evaluating {saved.where} on {saved.index.split}')
  evaluator = evaluate.make_evaluator(saved.config, saved.model, saved.index, saved.mesh)
  return evaluator(saved.params, profile=profiling.Profile(config.profile, workdir / 'profile'))


@contextlib.contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
  """Locks a working directory for all processes of a run; process 0 holds the lock.

  Raises InputError, in every process, where another run holds the lock.
  """
  from evad_jax.distributed import processes
  from evad_jax.files import directory_lock

  with contextlib.ExitStack() as stack:
    problem = None
    try:
      if processes.is_first():
        stack.enter_context(directory_lock.held(workdir, 'training', 'another --workdir'))
    except InputError as error:
      problem = error
    if processes.any_of(problem is not None):
      raise problem or InputError(f'{workdir}: cannot be used; process 0 of this run says why.')
    yield


def run(config: ConfigDict, workdir: Path, mode: str) -> None:
  """Trains or evaluates, prints the table, and writes the results to `workdir`.

  Raises InputError for any bad input, and where another run trains in `workdir`. An evaluation
  takes no lock: it only reads what a run has saved.
  """
  from evad_jax.files import storage
  from evad_jax.settings import config_rules

  config_rules.check(config)
  storage.refuse_address(workdir, '--workdir')
  storage.refuse_address(config.data.directory, 'config.data.directory')
  for key in ('checkpoint', 'init_from'):
    storage.refuse_address(config[key], f'config.{key}')
  with alone_in(workdir) if mode == 'train' else contextlib.nullcontext():
    _run(config, workdir, mode)


def _run(config: ConfigDict, workdir: Path, mode: str) -> None:
  import jax  # here, so that --help and wrong flags are answered at once

  from evad_jax.distributed import processes
  from evad_jax.distributed.preemption import Interrupted, Preempted
  from evad_jax.evaluation import evaluate
  from evad_jax.files import storage
  from evad_jax.training import loop

  start = time.perf_counter()
  command_line.keep_programs()
  jax.config.update('jax_default_matmul_precision', config.matmul_precision)
  if processes.is_first():
    make_missing_data(config)
  processes.wait_for_all('data')
  if mode == 'train':
    try:
      evaluation = loop.train_and_evaluate(config, workdir)
    except (Preempted, Interrupted) as stop:
      processes.tell(
        f'Stopped by SIGTERM in {stop}; everything computed is saved, and the same command '
        'resumes there.'
      )
      return
  else:
    evaluation = evaluate_checkpoint(config, workdir)
  if processes.is_first():
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


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  parser = command_line.Parser('evad_jax.main', __doc__)
  parser.add_argument(
    '--mode',
    choices=('train', 'eval'),
    default='train',
    help='train and evaluate (default), or evaluate a checkpoint',
  )
  parser.add_argument('--workdir', help='directory for the results (default: runs/<config.name>)')
  args, config = parser.parse_with_config(argv)
  from evad_jax.distributed import processes  # here for the reason given in `_run`

  processes.start(config.hosts)
  run(config, Path(args.workdir or f'runs/{config.name}'), args.mode)
  processes.stop()


if __name__ == '__main__':
  command_line.run(main)
