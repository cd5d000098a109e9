"""The benchmark of the input pipeline: what it counts, and what it prints."""

import contextlib
import io
import json
from types import SimpleNamespace

import pytest

from evad_jax.data.records import RecordReader
from evad_jax.tools import benchmark_pipeline
from tests.data.toy_records import SETTINGS, make_record, write_toy

TINY = '--stored-size 32x64 --canvas 32x64 --short-side 32 --clip-frames 4 --batch 2 --rounds 1'


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """What the benchmark writes of its own records, and what it prints."""
  path, printed = tmp_path_factory.mktemp('speeds') / 'speeds.json', io.StringIO()
  with contextlib.redirect_stdout(printed):
    benchmark_pipeline.main([*TINY.split(), '--seconds', '0.1', '--json', str(path)])
  return json.loads(path.read_text()), printed.getvalue().splitlines()


def test_measures_records_of_its_own(measured):
  speeds, lines = measured
  assert speeds['share'] == pytest.approx(speeds['pipeline'] / speeds['codec'])
  assert set(speeds['stage_ms']) == set(benchmark_pipeline.STAGES)
  assert 'stored as 32 x 64; canvases 32 x 64' in lines[0]
  for line, (name, ms) in zip(lines[3:7], speeds['stage_ms'].items(), strict=True):
    assert ms > 0 and line.startswith(f'{name:20}{ms:10.2f}{1e3 / ms:9.1f}  ')
  assert lines[-1] == f'share of the codec:    {100 * speeds["share"]:.1f} %'


@pytest.mark.timing
def test_decoding_is_a_part_of_a_clip(measured):
  stages = measured[0]['stage_ms']
  assert stages['decode'] < stages['whole clip']


def test_measures_a_prepared_split(tmp_path, capsys):
  write_toy(tmp_path, [make_record(video) for video in range(4)])
  flags = f'--directory {tmp_path} --canvas 32x48 --canvas 48x32 --short-side 24'.split()
  flags += '--clip-frames 4 --frame-stride 2 --batch 1 --rounds 1 --seconds 0.05'.split()
  benchmark_pipeline.main(flags)
  assert 'stored as 24 x 48, 48 x 24; canvases 32 x 48, 48 x 32' in capsys.readouterr().out


def test_the_codec_decodes_what_the_pipeline_decodes(tmp_path):
  index = write_toy(tmp_path, [make_record(0)])  # keyframes 0, 3, 11 of 12 frames
  counts = [len(benchmark_pipeline.clip_jpegs(RecordReader(index)[i], SETTINGS)) for i in range(3)]
  assert counts == [2, 4, 3]  # 0 0 0 2; 0 1 3 5 (frame -1 is frame 0); 7 9 11 11


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--canvas', '288'], "'288' is not HEIGHTxWIDTH"),
    (['--threads', '0'], '0 is not above 0'),
    (['--seconds', 'x'], 'argument --seconds: '),
  ],
)
def test_wrong_flags_exit_with_2(flags, words, capsys):
  with pytest.raises(SystemExit) as stop:
    benchmark_pipeline.main(flags)
  assert stop.value.code == 2 and words in capsys.readouterr().err


def test_milliseconds_leaves_the_first_call_out(monkeypatch):
  now, lasts = SimpleNamespace(seconds=50.0), iter([100, 1, 3, 2])
  clock = SimpleNamespace(perf_counter=lambda: now.seconds)
  monkeypatch.setattr(benchmark_pipeline, 'time', clock)
  calls = []

  def call(number):
    calls.append(number)
    now.seconds += next(lasts)

  assert benchmark_pipeline.milliseconds(call, [(i,) for i in range(3)]) == 2000
  assert calls == [0, 0, 1, 2]
