"""The benchmark of the input pipeline: what it counts, and what it says."""

import json

import numpy as np
import pytest

from evad_jax.data.records import RecordReader
from evad_jax.tools import benchmark_pipeline
from tests.data.toy_records import SETTINGS, make_record, write_toy

TINY = '--stored-size 32x64 --canvas 32x64 --short-side 32 --clip-frames 4 --batch 2 --rounds 1'


def test_measures_records_of_its_own(tmp_path, capsys):
  path = tmp_path / 'speeds.json'
  benchmark_pipeline.main([*TINY.split(), '--seconds', '0.1', '--json', str(path)])
  told, speeds = capsys.readouterr().out, json.loads(path.read_text())
  assert speeds['share'] == pytest.approx(speeds['pipeline'] / speeds['codec'])
  assert set(speeds['stage_ms']) == set(benchmark_pipeline.STAGES)
  assert 0 < speeds['stage_ms']['decode'] < speeds['stage_ms']['whole clip']
  assert f'share of the codec:    {100 * speeds["share"]:.1f} %' in told
  assert 'stored as 32 x 64; canvases 32 x 64' in told


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
    (['--seconds', 'x'], "invalid float value: 'x'"),
  ],
)
def test_wrong_flags_exit_with_2(flags, words, capsys):
  with pytest.raises(SystemExit) as stop:
    benchmark_pipeline.main(flags)
  assert stop.value.code == 2 and words in capsys.readouterr().err


def test_milliseconds_leaves_the_first_call_out():
  calls = []
  assert benchmark_pipeline.milliseconds(calls.append, [(i,) for i in range(3)]) >= 0
  assert calls == [0, 0, 1, 2]
  assert np.isfinite(benchmark_pipeline.milliseconds(lambda: None, [()]))
