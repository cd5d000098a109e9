"""The log of a run: what is written, and what a restart drops."""

import json
import struct
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from evad_jax.training import run_log
from evad_jax.training.run_log import RunLog, Stopwatch, duration


def lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def board(workdir):
  """(step, name, value) of every scalar for TensorBoard."""
  scalars = []
  for path in sorted((workdir / 'tensorboard').iterdir()):
    data = path.read_bytes()
    while data:
      length = struct.unpack('<Q', data[:8])[0]
      event = Event.FromString(data[12 : 12 + length])
      scalars += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
      data = data[16 + length :]
  return scalars


def test_figures_reach_both_files(tmp_path):
  with RunLog(tmp_path / 'new' / 'run', 0) as log:
    log.write(1, {'loss': 0.5, 'note': 'text'})
    # Flushed at once: a run that is killed keeps what it has reported.
    assert lines(tmp_path / 'new' / 'run') == [{'step': 1, 'loss': 0.5, 'note': 'text'}]
    log.write(2, {'loss': 0.25, 'clips': 3})
  assert lines(tmp_path / 'new' / 'run')[1:] == [{'step': 2, 'loss': 0.25, 'clips': 3}]
  assert board(tmp_path / 'new' / 'run') == [(1, 'loss', 0.5), (2, 'loss', 0.25), (2, 'clips', 3)]


def test_restart_keeps_lines_up_to_the_checkpoint(tmp_path):
  with RunLog(tmp_path, 0) as log:
    for step in (1, 5, 5, 10, 15):
      log.write(step, {'loss': 1.0})
  with RunLog(tmp_path, 10) as log:
    log.write(15, {'loss': 2.0})
  assert [line['step'] for line in lines(tmp_path)] == [1, 5, 5, 10, 15]
  assert lines(tmp_path)[-1]['loss'] == 2.0
  assert [path.name for path in tmp_path.iterdir() if path.suffix == '.partial'] == []


def test_an_evaluation_that_will_come_again_is_dropped(tmp_path):
  with RunLog(tmp_path, 0) as log:
    for step in (5, 10):
      log.write(step, {'loss': 1.0})
      log.write(step, {'eval/frame_mAP@0.5': 0.5})
  with RunLog(tmp_path, 10):
    assert len(lines(tmp_path)) == 4
  with RunLog(tmp_path, 10, evaluates_again=True):
    assert [(line['step'], 'loss' in line) for line in lines(tmp_path)] == [
      (5, True),
      (5, False),
      (10, True),
    ]


def test_restart_from_nothing_drops_all_lines(tmp_path):
  with RunLog(tmp_path, 0) as log:
    log.write(3, {'loss': 1.0})
  with RunLog(tmp_path, 0):
    assert lines(tmp_path) == []


@pytest.mark.parametrize('rest', ['\0' * 40 + '\n', '{"loss": 1}\n', '[1]\n', 'no JSON\n'])
def test_damaged_lines_are_dropped_and_told(tmp_path, rest, capsys):
  """As a power cut leaves them; the run continues."""
  with RunLog(tmp_path, 0) as log:
    log.write(1, {'loss': 1.0})
  path = tmp_path / 'metrics.jsonl'
  path.write_text(rest + path.read_text() + rest)
  with RunLog(tmp_path, 5) as log:
    log.write(6, {'loss': 2.0})
  assert [line['step'] for line in lines(tmp_path)] == [1, 6]
  assert f'{path}: dropped 2 damaged lines' in capsys.readouterr().out


@pytest.mark.parametrize('cut', [1, 5, 18])
def test_line_cut_in_the_middle_is_dropped(tmp_path, cut):
  with RunLog(tmp_path, 0) as log:
    log.write(1, {'loss': 1.0})
    log.write(2, {'loss': 1.0})
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-cut])
  with RunLog(tmp_path, 2) as log:
    log.write(3, {'loss': 1.0})
  assert [line['step'] for line in lines(tmp_path)] == [1, 3]


def test_stopwatch_separates_waiting_from_working(monkeypatch):
  now = SimpleNamespace(seconds=100.0)
  clock = SimpleNamespace(perf_counter=lambda: now.seconds)
  monkeypatch.setattr(run_log, 'time', clock)

  def slow():
    now.seconds += 3
    yield 7

  watch = Stopwatch()
  assert watch.wait_for(slow()) == 7
  now.seconds += 1
  assert (watch.seconds(), watch.waiting_share()) == (4, 3 / 4)
  now.seconds += 6
  watch.exclude(5)
  assert (watch.seconds(), watch.waiting_share()) == (5, 3 / 5)
  watch.restart()
  assert watch.wait_for(slow(), busy=lambda: True) == 7
  assert (watch.seconds(), watch.waiting_share()) == (3, 0)


@pytest.mark.parametrize(
  'seconds, text', [(0, '0m00s'), (125.9, '2m05s'), (3599, '59m59s'), (3725, '1h02m')]
)
def test_duration(seconds, text):
  assert duration(seconds) == text
