"""A report in stages: complete, killed in the middle, with stages that fail or are skipped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evad_jax.cost import op_times, stage_runs
from evad_jax.cost.stage_runs import DONE, FAILED, OVER, SKIPPED
from evad_jax.errors import InputError
from evad_jax.tools import accelerator_report

ROOT = Path(__file__).resolve().parents[2]

# The tool with stages that take no time; its own take a minute on two cores.
SCRIPT = """
import os, sys, time
from pathlib import Path
from evad_jax.cost import stage_runs
from evad_jax.tools import accelerator_report as tool

def work(args):
  stage_runs.end_with_parent()
  stage = stage_runs.Stage(args.output, args.stage, args.limit)
  stage.row(process=os.getpid(), of=args.stage)
  if args.stage == 'prediction' and (args.output / 'slow').exists():
    time.sleep(3600)
  if args.stage == 'training':
    raise RuntimeError('the card fell out')
  if args.stage == 'pytorch':
    stage.skipped('PyTorch is not installed')
  return 0

tool.work = work
tool.SHARES = dict.fromkeys(tool.SHARES, 1)
command = stage_runs.stage_command
stage_runs.stage_command = lambda module, *rest: [
  sys.executable, __file__, *command(module, *rest)[3:]
]
raise SystemExit(tool.main())
"""


# A stage that writes one row and never ends. It imports next to nothing: its row is there long
# before the limit.
SLEEPER = """
import os, sys, time
with open(sys.argv[1], 'w') as file:
  file.write('{"row": {"process": %d}}\\n' % os.getpid())
time.sleep(3600)
"""


@pytest.fixture
def script(tmp_path):
  path = tmp_path / 'tool.py'
  path.write_text(SCRIPT)
  return path


def start(script, output, *stages):
  command = [sys.executable, str(script), '--seconds', '3600', '--output', str(output)]
  return subprocess.Popen(
    [*command, '--stages', *stages],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )


def alive(process):
  """Whether the process runs; a zombie does not."""
  try:
    return Path(f'/proc/{process}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
  except OSError:
    return False


def test_killed_in_the_second_stage_and_started_again(script, tmp_path):
  output = tmp_path / 'report'
  output.mkdir()
  (output / 'slow').touch()
  stages = ('device', 'prediction', 'parts')
  parent = start(script, output, *stages)
  rows = stage_runs.rows_path(output, 'prediction')
  deadline = time.time() + 600
  while not stage_runs.read_rows(rows)[0]:
    assert parent.poll() is None and time.time() < deadline
    time.sleep(0.02)
  parent.send_signal(signal.SIGKILL)
  parent.communicate()
  assert [r.stage for r in stage_runs.read_results(output)] == ['device']
  assert '## device: done' in (output / 'report.md').read_text()
  # The stage ends with the one that began it, and does not keep the card.
  child = stage_runs.read_rows(rows)[0][0]['process']
  while alive(child):
    assert time.time() < deadline
    time.sleep(0.02)

  first = (output / 'report.jsonl').read_text()
  (output / 'slow').unlink()
  again = start(script, output, *stages)
  text, _ = again.communicate(timeout=600)
  assert again.returncode == 0, text
  assert 'device: from the earlier run' in text and '[1/2] prediction' in text
  assert (output / 'report.jsonl').read_text().startswith(first)
  results = stage_runs.read_results(output)
  assert [(r.stage, r.status, len(r.rows)) for r in results] == [(s, DONE, 1) for s in stages]


def test_one_fails_one_is_skipped_one_runs_over_and_the_rest_is_there(script, tmp_path):
  output = tmp_path / 'report'
  stages = ('prediction', 'training', 'parts', 'pytorch')
  output.mkdir()
  process = start(script, output, *stages)
  text, _ = process.communicate(timeout=600)
  assert process.returncode == 1
  found = {r.stage: r for r in stage_runs.read_results(output)}
  assert {name: r.status for name, r in found.items()} == {
    'prediction': DONE,
    'training': FAILED,
    'parts': DONE,
    'pytorch': SKIPPED,
  }
  assert found['training'].tail[-1] == 'RuntimeError: the card fell out'
  assert len(found['training'].rows) == 1  # what it had found
  assert 'Failed: training failed' in text
  assert 'Skipped: pytorch (PyTorch is not installed)' in text


def test_a_stage_over_its_limit_keeps_its_rows(tmp_path):
  command = [sys.executable, '-IS', '-c', SLEEPER]
  rows = stage_runs.rows_path(tmp_path, 'device')
  result = stage_runs.run_stage(tmp_path, 'device', [*command, str(rows)], 5, os.environ)
  (row,) = result.rows
  assert result.status == OVER and not alive(row['process'])


def test_a_real_stage(tmp_path):
  """The first stage on this machine: what the device is, and ceilings above zero."""
  arguments = ['--seconds', '60', '--output', str(tmp_path), '--size', 'tiny']
  assert accelerator_report.main([*arguments, '--stages', 'device']) == 0
  (line,) = (tmp_path / 'report.jsonl').read_text().splitlines()
  about, *ceilings = json.loads(line)['rows']
  assert about['platform'] == 'cpu' and len(ceilings) == 4
  assert all(row['measured'] > 0 for row in ceilings)
  assert '| copy |' in (tmp_path / 'report.md').read_text()


def test_other_settings_in_the_same_directory(tmp_path):
  stage_runs.write_text(tmp_path / 'settings.json', '{"size": "B", "batches": null}')
  with pytest.raises(InputError, match='holds a report with the settings'):
    accelerator_report.main(['--output', str(tmp_path), '--size', 'L'])


def test_parts_of_the_model_by_the_names_of_operations():
  for name, part in (
    ('jit(f)/EVAD/encoder/block_1/attention/qkv/dot_general', 'encoder attention'),
    ('jit(f)/transpose(jvp(EVAD))/encoder/block_1/mlp/fc1/dot_general', 'encoder MLP, backward'),
    ('jit(f)/EVAD/person_detector/stage_0/dot_general', 'person stages'),
    ('jit(f)/while/body/add', op_times.OTHER),
  ):
    assert op_times.part_of(name) == part
  text = (
    '  %fusion.1 = f32[2]{0} fusion(%a), metadata={op_name="jit(f)/encoder/add"}\n  ROOT %b = x'
  )
  assert op_times.names_of(text) == {'fusion.1': 'jit(f)/encoder/add', 'b': ''}
