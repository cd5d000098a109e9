"""Times ours against eager PyTorch on the same cores: python -m tests.tools.torch_comparison

Needs PyTorch (requirements-torch.txt). PyTorch computes encoder, pruning and decoder of ViT-B,
once with attention spelled out and once fused where nothing is pruned. Ours is the whole detector,
person stages and RoIAlign included, so it has more to do. All take turns; medians are printed, and
by how much the action logits of the three differ.
"""

import argparse
import functools
import json
import os
import statistics
import time
from pathlib import Path

import jax
import numpy as np
import torch

from evad_jax.command_line import positive, size
from evad_jax.cost.measured_cost import random_params
from evad_jax.model.evad import EVAD
from tests.tools.torch_evad import TorchEvad

PAUSE = 0.5  # seconds, in which threads that wait actively go to sleep


def prepare(keep_rate, size, frames=16):
  """Three calls without arguments: each gives action logits as an array."""
  model = EVAD(keep_rate=keep_rate)
  params = random_params(model)
  rng = np.random.default_rng(0)
  clips = rng.standard_normal((1, frames, *size, 3)).astype(np.float32)
  sizes = np.array([size], np.int32)
  forward = jax.jit(functools.partial(model.apply, train=False, mutable=['intermediates']))
  arguments = jax.device_put(({'params': params}, clips, sizes))
  # The actors that our person stages and RoIAlign find are given to PyTorch.
  found = forward(*arguments)[1]['intermediates']['context_refinement']['actors'][0]
  theirs = torch.from_numpy(clips), torch.from_numpy(np.array(found))
  plain, fused = (TorchEvad(model, params, size, frames, kind) for kind in (False, True))
  ours = jax.jit(functools.partial(model.apply, train=False)).lower(*arguments).compile()
  return {
    'PyTorch, plain': lambda: plain(*theirs).numpy(),
    'PyTorch, fused': lambda: fused(*theirs).numpy(),
    'ours': lambda: np.asarray(ours(*arguments).action_logits),
  }


def on_device(model, frames, size, *, batch, device, rounds, left):
  """Rows of seconds on one card, in the model's type: plain, fused, and fused and compiled.

  left: seconds that may still be spent. PyTorch is given random actors: only time counts here.
  """
  params = random_params(model)
  dtype = {2: torch.bfloat16, 4: torch.float32}[np.dtype(model.dtype).itemsize]
  rng = np.random.default_rng(0)
  shape = (batch, model.num_proposals, model.decoder_width)
  clips = torch.from_numpy(rng.standard_normal((batch, frames, *size, 3)).astype(np.float32))
  actors = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
  clips, actors = clips.to(device, dtype), actors.to(device, dtype)
  plain, fused = (
    TorchEvad(model, params, size, frames, kind).to(device, dtype) for kind in (False, True)
  )
  calls = {'PyTorch, plain': plain, 'PyTorch, fused': fused}
  calls['PyTorch, fused, torch.compile'] = torch.compile(fused.__call__)
  wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
  rows = []
  for name, call in calls.items():
    seconds, problem = [], None
    try:
      for turn in range(rounds + 2):
        wait()
        start = time.perf_counter()
        call(clips, actors)
        wait()
        if turn > 1:  # the first two compile and choose
          seconds.append(time.perf_counter() - start)
        if left() < 5:
          break
    except Exception as error:
      problem = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
    median = statistics.median(seconds) if seconds else None
    rows.append({'program': name, 'ms': median and 1e3 * median, 'calls': len(seconds)})
    if problem:
      rows[-1]['problem'] = problem
  return rows


def measure(keep_rate, size, rounds):
  """Seconds of each, and the largest difference of the logits, relative to the largest."""
  calls = prepare(keep_rate, size)
  logits = [call() for call in calls.values()]
  difference = max(np.abs(x - logits[-1]).max() for x in logits) / np.abs(logits[-1]).max()
  seconds = {name: [] for name in calls}
  for _ in range(rounds):
    for name, call in calls.items():
      time.sleep(PAUSE)
      start = time.perf_counter()
      call()
      seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(times) for name, times in seconds.items()}, float(difference)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--canvas', type=size, default=(288, 288), metavar='HxW')
  parser.add_argument('--keep-rates', nargs='+', type=float, default=[1.0, 0.7, 0.6])
  parser.add_argument('--rounds', type=positive, default=5)
  parser.add_argument('--json', type=Path)
  args = parser.parse_args()
  cores = len(os.sched_getaffinity(0))
  torch.set_num_threads(cores)
  print(f'ViT-B, {args.canvas}, one clip, float32, {cores} cores, torch {torch.__version__}')
  results = []
  for rate in args.keep_rates:
    seconds, difference = measure(rate, args.canvas, args.rounds)
    text = '  '.join(f'{name} {value:.2f} s' for name, value in seconds.items())
    print(f'keep rate {rate:g}: {text}  (logits differ by {difference:.1e})', flush=True)
    results.append({'keep_rate': rate, 'difference': difference, **seconds})
  if args.json:
    args.json.write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  main()
