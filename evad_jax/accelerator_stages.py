"""What the stages of tools/accelerator_report.py measure; each is a function of a Stage.

On one device, with random parameters and clips. A stage looks at its clock before it begins
something long, and says what it left out.
"""

import concurrent.futures
import functools
import json
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from evad_jax import checkout, from_config, matcher, measured_cost, model_cost, op_times
from evad_jax.model import attention, roi_align
from evad_jax.model.evad import EVAD, normalize_clips
from evad_jax.stage_runs import Skipped, Stage

Array = jax.Array

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 20  # calls of every program
ENOUGH = 8  # seconds that a part of the model should need at most, compilation included
STEPS = 30  # of training from records
# Dense products in bfloat16 and memory, as the makers say: 10^12 operations a second, GB/s.
NOMINAL = (
  ('H200', 989, 4800),
  ('H100 PCIe', 756, 2000),
  ('H100', 989, 3350),
  ('A100', 312, 2039),
  ('L40S', 362, 864),
  ('L4', 121, 300),
  ('B200', 2250, 8000),
  ('TPU v6 lite', 918, 1640),
  ('TPU v5 lite', 197, 819),
  ('TPU v5p', 459, 2765),
  ('TPU v5', 459, 2765),
  ('TPU v4', 275, 1228),
)


class Scale(NamedTuple):
  """How large the report's model and clips are."""

  size: str
  canvas: tuple[int, int]  # pixels
  dtype: str
  batches: tuple[int, ...]  # clips, the most telling first


SCALES = {
  'B': Scale('B', (288, 512), 'bfloat16', (8, 1, 16)),
  'L': Scale('L', (288, 512), 'bfloat16', (4, 1, 8)),
  'small': Scale('small', (128, 224), 'bfloat16', (8, 1, 16)),
  'tiny': Scale('small', (32, 64), 'float32', (2,)),
}


def run(stage: Stage, size: str, batches: Sequence[int] | None) -> int:
  """Runs the stage of that name; the exit status of its process."""
  if stage.name == 'tests':  # its process has the device for itself: nothing here may ask for one
    return tests(stage)
  if size == 'auto':
    size = 'tiny' if jax.default_backend() == 'cpu' else 'B'
  scale = SCALES[size]
  if batches:
    scale = scale._replace(batches=tuple(batches))
  if stage.name != 'records':
    config = checkout.module('configs.common').get_config()
    jax.config.update('jax_default_matmul_precision', config.matmul_precision)
  STAGES[stage.name](stage, scale)
  return 1 if stage.broken else 0


def make_config(scale: Scale, batch: int, keep_rate: float, remat: bool = True) -> ConfigDict:
  """A configuration of that scale."""
  common = checkout.module('configs.common')
  config = common.get_config()
  common.set_size(config, scale.size)
  config.model.update(keep_rate=keep_rate, dtype=scale.dtype, remat=remat)
  config.clip.canvases = (scale.canvas,)
  config.train.batch_size = batch
  if scale.canvas == SCALES['tiny'].canvas:  # so that a CPU has compiled it soon
    config.model.update(num_stages=1, decoder_depth=1)
  return config


def nominal(kind: str) -> tuple[float | None, float | None]:
  """Operations (10^12/s, bfloat16) and GB/s that the maker gives, where it is in the table."""
  for name, operations, bandwidth in NOMINAL:
    if name in kind:
      return operations, bandwidth
  return None, None


def device(stage: Stage, scale: Scale) -> None:
  """What it is, and what it can do at most."""
  card = jax.devices()[0]
  memory = (card.memory_stats() or {}).get('bytes_limit')
  operations, bandwidth = nominal(card.device_kind)
  stage.row(
    kind=card.device_kind,
    platform=card.platform,
    devices=jax.device_count(),
    jax=jax.__version__,
    runtime=' '.join(card.client.platform_version.split())[:60],
    compute_capability=getattr(card, 'compute_capability', None),
    memory_gb=memory and memory / 1e9,
    size=scale.size,
    canvas='x'.join(map(str, scale.canvas)),
    dtype=scale.dtype,
  )
  small = card.platform == 'cpu'
  copied = copy_bandwidth(2**24 if small else 2**28)
  stage.row(ceiling='copy', measured=copied, unit='GB/s', nominal=bandwidth)
  side = 512 if small else 8192
  for name, dtype, precision in (
    ('product bfloat16', jnp.bfloat16, 'default'),
    ('product float32, default', jnp.float32, 'default'),
    ('product float32, highest', jnp.float32, 'highest'),
  ):
    found = product_rate(side, dtype, precision) / 1e12
    known = operations if dtype == jnp.bfloat16 else None
    stage.row(ceiling=name, measured=found, unit='TFLOP/s', nominal=known)


def best_seconds(call: Callable[[], Any], rounds: int = 5) -> float:
  """The shortest of some calls, after one without a clock."""
  jax.block_until_ready(call())
  return min(measured_cost.seconds_of(lambda: jax.block_until_ready(call())) for _ in range(rounds))


def copy_bandwidth(length: int, turns: int = 10) -> float:
  """GB/s read and written by passes over `length` float32 values."""
  x = jnp.ones(length, jnp.float32)
  passes = jax.jit(lambda x: jax.lax.fori_loop(0, turns, lambda i, x: x * 0.999, x))
  return 2 * x.nbytes * turns / best_seconds(lambda: passes(x)) / 1e9


def product_rate(side: int, dtype: Any, precision: str, turns: int = 10) -> float:
  """Operations a second of products of two matrices, two an element, one after the other."""
  x = jnp.asarray(np.random.default_rng(0).standard_normal((side, side), np.float32), dtype)
  x = x / side**0.5

  def product(_, y: Array) -> Array:
    return jnp.matmul(x, y, precision=precision)

  products = jax.jit(lambda y: jax.lax.fori_loop(0, turns, product, y))
  return 2 * side**3 * turns / best_seconds(lambda: products(x))


def tests(stage: Stage) -> int:
  """pytest on tests/test_accelerator.py; a row a test."""
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


def prediction(stage: Stage, scale: Scale) -> None:
  """uint8 clips to detections, by keep rate and batch."""
  groups = []
  for batch in scale.batches:
    groups.append([make_config(scale, batch, rate) for rate in (0.7, 1.0, 0.6)])
  measure_groups(stage, scale, groups, training=False)


def training(stage: Stage, scale: Scale) -> None:
  """A step, without and with recomputation of activations."""
  groups = []
  for batch in scale.batches:
    pair = [make_config(scale, batch, 0.7, remat) for remat in (False, True)]
    if scale.canvas == SCALES['tiny'].canvas:  # two cores compile one after the other
      groups += [[config] for config in pair]
    else:
      groups.append(pair)
      groups.append([make_config(scale, batch, rate, False) for rate in (1.0, 0.6)])
  measure_groups(stage, scale, groups, training=True)


def measure_groups(
  stage: Stage, scale: Scale, groups: Sequence[Sequence[ConfigDict]], *, training: bool
) -> None:
  """A row for every configuration; those of a group are compiled at once and take turns."""
  kind = jax.devices()[0].device_kind
  dtype = from_config.make_model(groups[0][0]).dtype
  peaks = measured_cost.measured_peak(dtype), nominal(kind)[0] if scale.dtype != 'float32' else None
  longest = 0.0
  for number, group in enumerate(groups):
    if number and stage.left() < 1.2 * longest + 2:
      stage.note('No time for ' + ', '.join(told(c) for g in groups[number:] for c in g) + '.')
      break
    begin = time.monotonic()
    measure_group(stage, group, peaks, training)
    longest = max(longest, time.monotonic() - begin)
  used = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  if used:
    stage.note(f'Memory of the device in use at most, over the whole stage: {used / 1e9:.2f} GB.')


def told(config: ConfigDict) -> str:
  """Which configuration, in words."""
  remat = 'remat' if config.model.remat else 'no remat'
  return f'batch {config.train.batch_size} keep {config.model.keep_rate:g} {remat}'


def measure_group(
  stage: Stage, configs: Sequence[ConfigDict], peaks: tuple[float, float | None], training: bool
) -> None:
  """Compiles in threads, measures in turn; what cannot be compiled or run gets a row too."""
  params = measured_cost.random_params(
    from_config.make_model(configs[0]), configs[0].clip.clip_frames
  )
  batch = jax.device_put(measured_cost.random_batch(configs[0]))
  make = measured_cost.step_program if training else measured_cost.prediction_program

  def compiled(config: ConfigDict) -> measured_cost.Program | Exception:
    try:
      return make(config, from_config.make_model(config), params, batch)
    except Exception as error:
      return error

  with concurrent.futures.ThreadPoolExecutor(len(configs)) as threads:
    programs = list(threads.map(compiled, configs))
  ready = []
  for config, program in zip(configs, programs, strict=True):
    try:
      if isinstance(program, Exception):
        raise program
      program.call()  # one after the other: what does not fit by itself shows here
      ready.append((config, program))
    except Exception as error:
      tell_error(stage, told(config), error)
  seconds = measured_cost.take_turns([p.call for _, p in ready], ROUNDS)
  for (config, program), times in zip(ready, seconds, strict=True):
    stage.row(**figures(config, program, statistics.median(times), peaks, training))


def tell_error(stage: Stage, what: str, error: Exception) -> None:
  """Notes it; the stage has failed, unless the device has too little memory for this."""
  if 'RESOURCE_EXHAUSTED' in str(error):
    stage.note(f'{what}: the device has too little memory.')
    return
  stage.note(f'{what}: {type(error).__name__}: {" ".join(str(error).split())[:300]}')
  stage.broken = True


def figures(
  config: ConfigDict,
  program: measured_cost.Program,
  seconds: float,
  peaks: tuple[float, float | None],
  training: bool,
) -> dict[str, Any]:
  """One row; a step counts as three forward passes."""
  model, frames = from_config.make_model(config), config.clip.clip_frames
  canvas, batch = config.clip.canvases[0], config.train.batch_size
  work = sum(model_cost.multiply_adds(model, frames, canvas, published=False).values())
  work += model_cost.roi_multiply_adds(model, model_cost.count_tokens(model, frames, canvas))
  rate = (3 if training else 1) * work * batch / seconds  # multiply-adds a second
  memory = program.compiled.memory_analysis()
  whole = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  whole += memory.output_size_in_bytes - memory.alias_size_in_bytes
  return {
    'batch': batch,
    'keep rate': config.model.keep_rate,
    'remat': config.model.remat if training else None,
    'ms': 1e3 * seconds,
    'clips/s': batch / seconds,
    'of measured peak': round(rate / peaks[0], 3),
    'of nominal peak': peaks[1] and round(2 * rate / peaks[1] / 1e12, 3),
    'temporary MB': memory.temp_size_in_bytes / 1e6,
    'all MB': whole / 1e6,
    'compile s': round(program.compile_seconds, 1),
  }


def parts(stage: Stage, scale: Scale) -> None:
  """Forward times of the model's parts, each with the inputs that it gets in the model."""
  config = make_config(scale, scale.batches[0], 0.7)
  model = from_config.make_model(config)
  params = measured_cost.random_params(model, config.clip.clip_frames)
  batch = jax.device_put(measured_cost.random_batch(config))
  clips = jax.jit(functools.partial(normalize_clips, dtype=model.dtype))(batch.clips, batch.sizes)
  for name, (call, arguments) in model_parts(model, params, clips, batch.sizes).items():
    time_part(stage, name, call, *arguments)
  attention_parts(stage, model, config)
  levels, boxes = pyramid_and_boxes(model, config)
  sheet = roi_align.sheet_of(levels)

  def align(maps: jax.Array, boxes: jax.Array) -> jax.Array:
    stride, size = model.patch / 4, 14 * model.patch
    return roi_align.multilevel_roi_align(maps, sheet, boxes, stride, size)

  time_part(stage, 'RoIAlign of one person stage', align, roi_align.lay(levels, sheet), boxes)
  stages, clips_at_once = model.num_stages, config.train.batch_size
  logits = jnp.zeros((stages, clips_at_once, model.num_proposals, 2))
  found = jnp.broadcast_to(boxes, (stages, *boxes.shape))
  padded = padded_targets(batch.targets, config.clip.max_boxes)
  for name, targets in (
    (f'matcher, {measured_cost.PEOPLE} columns', batch.targets),
    (f'matcher, {config.clip.max_boxes} columns', padded),
  ):
    time_part(stage, name, matcher.match, logits, found, targets, batch.sizes)


def time_part(stage: Stage, name: str, call: Callable, *arguments: Any) -> None:
  """A row with the median of some calls; what a form cannot do is noted."""
  if stage.left() < ENOUGH:
    stage.note(f'No time for {name}.')
    return
  try:
    compiled = jax.jit(call).lower(*arguments).compile()
    seconds = measured_cost.take_turns(
      [lambda: jax.block_until_ready(compiled(*arguments))], ROUNDS
    )
  except Exception as error:
    tell_error(stage, name, error)
    return
  temporary = compiled.memory_analysis().temp_size_in_bytes / 1e6
  stage.row(part=name, ms=1e3 * statistics.median(seconds[0]), temporary_MB=temporary)


def model_parts(
  model: EVAD, params: Any, clips: Array, sizes: Array
) -> dict[str, tuple[Callable, tuple]]:
  """The model's parts: name -> a function of parameters and arrays, and those."""
  seen = {}

  def forward(params: Any, clips: Array, sizes: Array) -> dict[str, list[Array]]:
    arrays = {}

    def watch(following, arguments, keywords, context):
      part = context.module
      if context.method_name == '__call__' and len(part.path) == 1:
        leaves, structure = jax.tree.flatten(arguments)
        fixed = [None if isinstance(x, jax.Array) else x for x in leaves]
        seen[part.name] = part.clone(parent=None), structure, fixed, keywords
        arrays[part.name] = [x for x in leaves if isinstance(x, jax.Array)]
      return following(*arguments, **keywords)

    with nn.intercept_methods(watch):
      model.apply({'params': params}, clips, sizes, train=False)
    return arrays

  arrays = jax.jit(forward)(params, clips, sizes)

  def part_of(name: str) -> Callable:
    module, structure, fixed, keywords = seen[name]

    def call(params: Any, given: list[Array]) -> Any:
      rest = iter(given)
      leaves = [next(rest) if x is None else x for x in fixed]
      arguments = jax.tree.unflatten(structure, leaves)
      return module.apply({'params': params}, *arguments, **keywords)

    return call

  return {name: (part_of(name), (params[name], arrays[name])) for name in seen}


def attention_parts(stage: Stage, model: EVAD, config: ConfigDict) -> None:
  """Every form of attention that the device has, without and with importance."""
  tokens = model_cost.count_tokens(model, config.clip.clip_frames, config.clip.canvases[0])
  rng = np.random.default_rng(0)
  for n in sorted(set(tokens.stages), reverse=True)[:2]:
    shape = (config.train.batch_size, model.num_heads, n, model.width // model.num_heads)
    q, k, v = (jnp.asarray(rng.standard_normal(shape, np.float32), model.dtype) for _ in range(3))
    mask, weight = jnp.ones((shape[0], n), bool), jnp.ones((shape[0], n))
    for form in available_forms(model.dtype):
      call = functools.partial(attention.attend_as, form)
      time_part(
        stage, f'attention {form}, {n} tokens', lambda *a, c=call: c(*a[:3], key_mask=a[3]),
        q, k, v, mask,
      )  # fmt: skip
      time_part(
        stage,
        f'attention {form} with importance, {n} tokens',
        lambda *a, c=call: c(*a[:3], key_mask=a[3], query_weight=a[4]),
        q, k, v, mask, weight,
      )  # fmt: skip


def available_forms(dtype: Any) -> list[str]:
  """The forms of attention that this device computes in this type."""
  found = []
  for form in ('plain', 'blocked', 'fused'):
    try:
      attention.form_for(form, 2 * attention.BLOCKED_FROM, dtype)
    except ValueError:
      continue
    found.append(form)
  return found


def pyramid_and_boxes(model: EVAD, config: ConfigDict) -> tuple[list[Array], Array]:
  """Four random maps, and boxes of people's sizes, (B, P, 4) pixels."""
  (height, width), batch = config.clip.canvases[0], config.train.batch_size
  rng = np.random.default_rng(0)
  levels = []
  for i in range(4):
    stride = model.patch * 2**i // 4
    shape = (batch, height // stride, width // stride, model.detector_width)
    levels.append(jnp.asarray(rng.standard_normal(shape, np.float32), model.dtype))
  low = rng.uniform(0, 0.6, (batch, model.num_proposals, 2))
  boxes = np.concatenate([low, low + rng.uniform(0.05, 0.4, low.shape)], axis=-1)
  return levels, jnp.asarray(boxes * [width, height, width, height], jnp.float32)


def padded_targets(targets: Any, length: int) -> Any:
  """The same people among `length` columns, as training pads them."""

  def pad(x: Array) -> Array:
    return jnp.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2))

  return jax.tree.map(pad, targets)


def pytorch(stage: Stage, scale: Scale) -> None:
  """The same encoder, pruning and decoder in PyTorch, on the same card."""
  try:
    import torch
  except ImportError:
    raise Skipped('PyTorch is not installed (requirements-torch.txt)') from None
  if not (ROOT / 'tests' / 'tools' / 'torch_comparison.py').exists():
    raise Skipped('tests/tools/torch_comparison.py is not beside the package')
  platform = jax.default_backend()
  place = {'cpu': 'cpu', 'gpu': 'cuda'}.get(platform)
  if place is None or (place == 'cuda' and not torch.cuda.is_available()):
    raise Skipped(f'this PyTorch, {torch.__version__}, does not know this device')
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
  stage.note('Ours, which has person stages and RoIAlign besides, is in the stage prediction.')


def profile(stage: Stage, scale: Scale) -> None:
  """A trace of a prediction and of a step, and the time of every part of the model in it."""
  for name, make in (
    ('prediction', measured_cost.prediction_program),
    ('training', measured_cost.step_program),
  ):
    # As the stages before had them, whose compiled programs are kept.
    config = make_config(scale, scale.batches[0], 0.7, remat=name == 'prediction')
    model = from_config.make_model(config)
    params = measured_cost.random_params(model, config.clip.clip_frames)
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
      stage.note(f'{name}: the trace is in {directory}; no operation of it was recognised.')
      continue
    whole = sum(found.values())
    for part, spent in sorted(found.items(), key=lambda item: -item[1]):
      stage.row(
        program=name, part=part, ms=1e3 * spent / calls, share=round(spent / whole, 3),
        ms_of_the_call=1e3 * seconds,
      )  # fmt: skip


def records(stage: Stage, scale: Scale) -> None:
  """Thirty steps of the training loop from records on disk: its pace, and its wait for data."""
  from evad_jax import main

  synthetic = checkout.module('data_prep.synthetic')

  config, batch = make_config(scale, scale.batches[0], 0.7, remat=False), scale.batches[0]
  directory, workdir = stage.directory / 'records', stage.directory / 'records_run'
  for path in (directory, workdir):
    shutil.rmtree(path, ignore_errors=True)
  clips = 4 * batch
  settings = synthetic.Settings(
    train=clips, test=2, height=scale.canvas[0], width=scale.canvas[1],
    clip_frames=config.clip.clip_frames, frame_stride=config.clip.frame_stride,
  )  # fmt: skip
  begin = time.monotonic()
  synthetic.generate(directory, settings)
  stage.note(f'{clips} clips of people were drawn in {time.monotonic() - begin:.1f} s.')
  config.data.update(directory=str(directory), prepare_command='data_prep.synthetic')
  config.clip.short_side = scale.canvas[0]
  config.model.num_actions = len(synthetic.ACTIONS)
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
  """Rows of a run's log as they come, so that its end in the middle loses none."""
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
  'device': device,
  'prediction': prediction,
  'training': training,
  'parts': parts,
  'pytorch': pytorch,
  'profile': profile,
  'records': records,
}
