"""The stages of tools/accelerator_report.py; each is a function of a Stage.

They measure on one device, with random parameters and clips. A stage checks its remaining time
before it begins anything long, and notes what it leaves out.
"""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from evad_jax import checkout
from evad_jax.cost import ceilings, measured_cost, op_times, part_times, program_times
from evad_jax.cost.report_scale import ROUNDS, SCALES, Scale, make_config
from evad_jax.cost.stage_runs import Skipped, Stage
from evad_jax.settings import from_config

ROOT = Path(__file__).resolve().parents[2]
STEPS = 30  # training steps from records


def run(stage: Stage, size: str, batches: Sequence[int] | None) -> int:
  """Runs the stage; returns the exit status of its process."""
  if stage.name == 'tests':  # pytest needs the device to itself: nothing here may initialise it
    return tests(stage)
  if size == 'auto':
    size = 'tiny' if jax.default_backend() == 'cpu' else 'B'
  scale = SCALES[size]
  if batches:
    scale = scale._replace(batches=tuple(batches))
  if stage.name != 'records':
    jax.config.update(
      'jax_default_matmul_precision',
      checkout.module('configs.common').get_config().matmul_precision,
    )
  STAGES[stage.name](stage, scale)
  return 1 if stage.broken else 0


def tests(stage: Stage) -> int:
  """Runs pytest on tests/test_accelerator.py; one row per test."""
  path = ROOT / 'tests' / 'test_accelerator.py'
  if not path.exists():
    raise Skipped('tests/test_accelerator.py is not beside the package')
  command = [sys.executable, '-m', 'pytest', '-v', '-rs', '-m', 'accelerator', '--tb=short']
  command += ['-o', 'addopts=--strict-markers', '-p', 'no:cacheprovider', str(path)]
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )
  begin = time.monotonic()
  for line in process.stdout:
    print(line, end='', flush=True)
    found = re.match(r'\S*test_accelerator\.py::(\S+) (PASSED|FAILED|SKIPPED|ERROR)', line)
    if found:
      stage.row(test=found[1], outcome=found[2], seconds=round(time.monotonic() - begin, 1))
      begin = time.monotonic()
    elif re.match(r'(E  |SKIPPED|FAILED)', line):
      stage.note(line.strip()[:300])
  return process.wait()


def pytorch(stage: Stage, scale: Scale) -> None:
  """Measures the same encoder, pruning and decoder in PyTorch, on the same card."""
  try:
    import torch
  except ImportError:
    raise Skipped('PyTorch is not installed (requirements-torch.txt)') from None
  if not (ROOT / 'tests' / 'tools' / 'torch_comparison.py').exists():
    raise Skipped('tests/tools/torch_comparison.py is not beside the package')
  platform = jax.default_backend()
  place = {'cpu': 'cpu', 'gpu': 'cuda'}.get(platform)
  if place is None or (place == 'cuda' and not torch.cuda.is_available()):
    raise Skipped(f'this PyTorch, {torch.__version__}, does not support this device')
  from tests.tools import torch_comparison

  for rate in (0.7, 1.0):
    config = make_config(scale, scale.batches[0], rate)
    rows = torch_comparison.on_device(
      from_config.make_model(config),
      config.clip.clip_frames,
      scale.canvas,
      batch=scale.batches[0],
      device=place,
      rounds=ROUNDS,
      left=stage.left,
    )
    for row in rows:
      problem = row.pop('problem', None)
      stage.row(**{'batch': scale.batches[0], 'keep rate': rate, **row})
      if problem:
        stage.note(f'{row["program"]}, keep rate {rate}: {problem}')
  stage.note('Ours, with person stages and RoIAlign in addition, is in the stage prediction.')


def profile(stage: Stage, scale: Scale) -> None:
  """Traces a prediction and a training step; rows give the time of every part of the model."""
  for name, make in (
    ('prediction', measured_cost.prediction_program),
    ('training', measured_cost.step_program),
  ):
    # As in earlier stages, whose compiled programs are cached.
    config = make_config(scale, scale.batches[0], 0.7, remat=name == 'prediction')
    model = from_config.make_model(config)
    params = measured_cost.random_params(model)
    batch = jax.device_put(measured_cost.random_batch(config))
    program = make(config, model, params, batch)
    program.call()
    directory = stage.directory / 'profile' / name
    shutil.rmtree(directory, ignore_errors=True)
    calls = 3
    begin = time.perf_counter()
    with jax.profiler.trace(str(directory)):
      for _ in range(calls):
        program.call()
    seconds = (time.perf_counter() - begin) / calls
    found = op_times.by_part(directory, program.compiled.as_text())
    if not found:
      stage.note(f'{name}: the trace is in {directory}; none of its operations was recognised.')
      continue
    whole = sum(found.values())
    for part, spent in sorted(found.items(), key=lambda item: -item[1]):
      stage.row(
        program=name, part=part, ms=1e3 * spent / calls, share=round(spent / whole, 3),
        ms_of_the_call=1e3 * seconds,
      )  # fmt: skip


def records(stage: Stage, scale: Scale) -> None:
  """Runs thirty training steps from records on disk: throughput, and the wait for data."""
  from evad_jax import main
  from evad_jax.synthetic import data_set

  config, batch = make_config(scale, scale.batches[0], 0.7, remat=False), scale.batches[0]
  directory, workdir = stage.directory / 'records', stage.directory / 'records_run'
  for path in (directory, workdir):
    shutil.rmtree(path, ignore_errors=True)
  clips = 4 * batch
  settings = data_set.Settings(
    train=clips, test=2, height=scale.canvas[0], width=scale.canvas[1],
    clip_frames=config.clip.clip_frames, frame_stride=config.clip.frame_stride,
  )  # fmt: skip
  begin = time.monotonic()
  data_set.generate(directory, settings)
  stage.note(f'{clips} synthetic clips were made in {time.monotonic() - begin:.1f} s.')
  config.data.update(directory=str(directory), prepare_command='data_prep.synthetic')
  config.clip.short_side = scale.canvas[0]
  config.model.num_actions = len(data_set.ACTIONS)
  config.train.update(epochs=STEPS * batch / clips, log_every=10, checkpoint_every=10**6)
  config.eval.update(batch_size=2, sheet_clips=0)
  done = threading.Event()
  reader = threading.Thread(target=copy_log, args=(stage, workdir / 'metrics.jsonl', batch, done))
  reader.start()
  try:
    main.run(config, workdir, 'train')
  finally:
    done.set()
    reader.join()
  shutil.rmtree(directory, ignore_errors=True)
  shutil.rmtree(workdir / 'checkpoints', ignore_errors=True)


def copy_log(stage: Stage, path: Path, batch: int, done: threading.Event) -> None:
  """Copies rows of a run's log as they appear, so that none is lost if the run is killed."""
  seen = 0
  while True:
    last = done.wait(0.5)
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    lines = [line for line in text.splitlines(keepends=True) if line.endswith('\n')]
    for line in lines[seen:]:
      found = json.loads(line)
      if 'loss' in found:
        pace = found['examples_per_second']
        stage.row(
          step=found['step'], loss=found['loss'], steps_per_second=pace / batch,
          clips_per_second=pace, data_wait_share=round(found['data_wait_share'], 3),
        )  # fmt: skip
    seen = len(lines)
    if last:
      return


STAGES = {
  'device': ceilings.device,
  'prediction': program_times.prediction,
  'training': program_times.training,
  'parts': part_times.parts,
  'pytorch': pytorch,
  'profile': profile,
  'records': records,
}
