"""What a step costs a device of a mesh: memory and exchange, counted by compiling it. Runs nothing.

  python -m evad_jax.tools.plan_scale --config=configs/demo.py --devices=8
  python -m evad_jax.tools.plan_scale --config=configs/ava.py:L --devices=256 --mesh=1 --mesh=8

The devices are simulated by one CPU, which compiles for as many as are asked for. Exchange is read
from the compiled program, per device and step, and worked out by hand beside it: an all-reduce of n
bytes sends 2n (g-1)/g in a group of g. Where only a part of a sum is used, compilers for
accelerators send half of that. Bytes of temporary memory are the CPU compiler's: a hint, not a
promise, for other devices. What the clips of a device keep for the backward pass is counted whole,
whatever the model axis splits of it.
"""

import itertools
import time
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from evad_jax import command_line
from evad_jax.errors import InputError
from evad_jax.settings import start_values

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')


class Cost(NamedTuple):
  """Of one device and one step; sizes in bytes."""

  state: int  # parameters and the optimizer's
  temporary: int
  sent: dict[str, int]  # by kind of exchange
  by_hand: Any  # Exchange, of evad_jax/cost/communication.py
  flops: float  # as the compiler counts; loops once
  seconds: float  # of compilation


def cost(config: ConfigDict, clips: int, canvas: tuple[int, int]) -> Cost:
  """Compiles the step for all devices; clips: of each part of a batch."""

  from evad_jax.cost import communication, hlo_collectives, lowering
  from evad_jax.distributed import sharding
  from evad_jax.training import activation_memory

  mesh = sharding.make_mesh(config.mesh.model)
  sharding.check_model_axis(mesh, config.model)
  parts = lowering.parts_of(config, clips * mesh.shape['data'], canvas)
  model, optimizer, state, _ = parts
  begin = time.perf_counter()
  compiled = lowering.lower_step(config, parts, mesh).compile()
  seconds = time.perf_counter() - begin
  shardings = sharding.state_shardings(state, optimizer, mesh, config.mesh.fsdp)
  held = activation_memory.on_device(state, shardings)
  sent = hlo_collectives.sent_by_kind(hlo_collectives.read(compiled.as_text()))
  by_hand = communication.by_hand(
    model, state.params, mesh, config.mesh.fsdp, config.clip.clip_frames, canvas, clips
  )
  temporary = compiled.memory_analysis().temp_size_in_bytes
  return Cost(held, temporary, sent, by_hand, compiled.cost_analysis()['flops'], seconds)


def kept_of_a_clip(config: ConfigDict, canvas: tuple[int, int]) -> int:
  """Bytes that a clip keeps from the forward for the backward pass."""

  from evad_jax.settings import from_config
  from evad_jax.training import activation_memory

  model = from_config.make_model(config)
  params = start_values.abstract_params(config, model)
  return activation_memory.kept_of_a_clip(
    model, params, lambda clips: activation_memory.abstract_batch(config, clips, canvas)
  )


def main(argv: list[str] | None = None) -> None:
  """The command line."""
  parser = command_line.Parser('evad_jax.tools.plan_scale', __doc__)
  add, positive = parser.add_argument, command_line.positive
  add('--devices', type=positive, default=8, help='how many are simulated (default 8)')
  add('--clips', type=positive, default=1, help='of a batch for each of its parts (default 1)')
  add('--mesh', type=positive, action='append', help='config.mesh.model; repeat it (1 and 2)')
  add('--fsdp', choices=('no', 'yes'), action='append', help='config.mesh.fsdp; repeat it (both)')
  add('--canvas', type=int, default=0, help='which of config.clip.canvases, from 0 (default 0)')
  args, config = parser.parse_with_config(argv)
  import jax

  jax.config.update('jax_num_cpu_devices', args.devices)
  jax.config.update('jax_platforms', 'cpu')
  if not 0 <= args.canvas < len(config.clip.canvases):
    raise InputError(f'--canvas={args.canvas}: there are {len(config.clip.canvases)}, from 0.')
  canvas = tuple(config.clip.canvases[args.canvas])
  names = ['data x model', 'fsdp', 'state', 'kept', 'temporary']
  names += [f'{kind} sent' for kind in KINDS] + ['the first two by hand', 'GFLOP', 'compiled in']
  print(
    f'{config.name}, {args.devices} devices, {args.clips} clips of {canvas} for each part of a '
    'batch; MB of a device and step\n\n' + command_line.table_head(names)
  )
  kept = args.clips * kept_of_a_clip(config, canvas)  # the same on every mesh
  for model_size, fsdp in itertools.product(args.mesh or (1, 2), args.fsdp or ('no', 'yes')):
    config.mesh.update(model=model_size, fsdp=fsdp == 'yes')
    found = cost(config, args.clips, canvas)
    sent = [found.sent.get(kind, 0) for kind in KINDS]
    by_hand = found.by_hand.all_reduce(), found.by_hand.all_gather()
    cells = [
      f'{args.devices // model_size} x {model_size}',
      fsdp,
      *(f'{size / 1e6:.2f}' for size in (found.state, kept, found.temporary, *sent)),
      ', '.join(f'{size / 1e6:.2f}' for size in by_hand),
      f'{found.flops / 1e9:.2f}',
      f'{found.seconds:.0f} s',
    ]
    print(command_line.table_row(cells), flush=True)


if __name__ == '__main__':
  command_line.run(main)
