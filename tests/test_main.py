"""The command line as a user sees it: bad input, one tiny run, evaluation of its checkpoint."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from evad_jax import main
from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data import records
from evad_jax.errors import InputError
from evad_jax.synthetic import data_set
from evad_jax.tools import compare_keep_rates
from tests.damage import flip_bit
from tests.data import toy_records
from tests.tiny_run import make_data, tiny_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return make_data(tmp_path_factory.mktemp('data') / 'tiny')


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
  """A finished run: config and working directory."""
  workdir = tmp_path_factory.mktemp('run')
  config = tiny_config(data)
  main.run(config, workdir, 'train')
  return config, workdir


def damage_clip(data, split):
  """Changes a byte of the record of the third clip; returns its name."""
  index = records.RecordIndex.open(data, split)
  record = int(index.example_record[2])
  shard, offset = index.shard_path(int(index.record_shard[record])), index.record_offset[record]
  flip_bit(shard, int(offset) + 100)
  return f'{index.videos[2]} at {index.timestamps[2]}'


def assert_told(told, split, count, name):
  assert f'1 of {count} clips of {split} could not be read and were skipped: {name}' in told.out
  assert f'unreadable clip skipped: {name}\n' in told.err


def test_an_evaluation_skips_damaged_clips_and_says_so(trained, tmp_path, capsys):
  config = tiny_config(make_data(tmp_path / 'data'))
  config.checkpoint = str(trained[1])
  name = damage_clip(config.data.directory, 'test')
  with pytest.raises(InputError, match='tfrecord'):
    main.run(config, tmp_path / 'stops', 'eval')
  config.data.unreadable = 'skip'
  main.run(config, tmp_path / 'skips', 'eval')
  assert_told(capsys.readouterr(), 'test', 6, name)
  figures = json.loads((tmp_path / 'skips' / 'eval_test.json').read_text())
  assert figures['counts']['frames'] == 5 and figures['unreadable'].startswith('1 of 6 clips')
  config.data.unreadable = 'ignore'
  for mode in ('eval', 'train'):
    with pytest.raises(InputError, match="config.data.unreadable='ignore' is not one of"):
      main.run(config, tmp_path / 'typo', mode)


@pytest.mark.slow
def test_a_run_skips_damaged_clips_and_says_so_at_its_end(tmp_path, capsys):
  config = tiny_config(make_data(tmp_path / 'data'))
  config.data.unreadable = 'skip'
  name = damage_clip(config.data.directory, 'train')
  main.run(config, tmp_path / 'run', 'train')
  assert_told(capsys.readouterr(), 'train', 16, name)


def command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'evad_jax.main', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def assert_one_sentence(result, *words):
  assert result.returncode == 2, result.stderr
  lines = result.stderr.strip().splitlines()
  assert len(lines) == 1, result.stderr
  for word in words:
    assert word in lines[0], result.stderr


def test_a_run_leaves_its_figures_tables_and_pictures(trained):
  config, workdir = trained
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = [line for line in lines if 'loss' in line]
  assert [line['step'] for line in losses] == [1, 2, 3, 4]
  assert all(np.isfinite(line['loss']) for line in losses)
  assert lines[-1]['step'] == 4 and 'eval/person_AP@0.5' in lines[-1]
  figures = json.loads((workdir / 'eval_test.json').read_text())
  assert figures['counts']['frames'] == 6
  assert list(figures['per_class']) == ['walk', 'jump', 'crouch', 'rise', 'wave', 'stand']
  head, *rows = (workdir / 'eval_test_detections.csv').read_text().splitlines()
  assert head == 'video,frame,x1,y1,x2,y2,label,score'
  # Every scored box has a row for each of the six classes, and every frame has at least one box.
  assert len(rows) == 6 * figures['counts']['detected_boxes'] >= 36
  assert len({row.split(',')[0] for row in rows}) == 6
  sheet = cv2.imread(str(workdir / 'eval_test_sheet.png'))
  assert sheet.std() > 10
  assert list((workdir / 'tensorboard').iterdir())


def test_evaluating_the_checkpoint_gives_the_figures_of_the_run(trained, tmp_path, capsys):
  config, workdir = trained
  before = (workdir / 'eval_test.json').read_text()
  config = config.copy_and_resolve_references()
  config.checkpoint = str(workdir)
  config.model.keep_rate = 0.9  # the checkpoint wins
  main.run(config, tmp_path, 'eval')
  assert (tmp_path / 'eval_test.json').read_text() == before
  told = capsys.readouterr().out
  assert 'keep_rate is 0.7 in the checkpoint and 0.9 in config.model' in told
  config.eval.keyframe_only = True
  config.eval.step = -1  # the best is the only one evaluated: the last
  main.run(config, tmp_path, 'eval')
  still = json.loads((tmp_path / 'eval_test_keyframe_only.json').read_text())
  assert still != json.loads(before)


def test_reading_a_checkpoint_warns_of_nothing(trained, caplog):
  with Checkpoints(trained[1] / 'checkpoints', read_only=True) as checkpoints:
    assert checkpoints.latest_step() == 4
  assert not [x for x in caplog.records if x.levelno >= logging.WARNING]


def test_a_checkpoint_at_several_keep_rates(trained):
  config, workdir = trained
  pruned, whole = compare_keep_rates.compare(config, [str(workdir)], (0.7, 1.0))
  figures = json.loads((workdir / 'eval_test.json').read_text())  # of the run, at 0.7
  assert pruned.frame_map == figures['frame_mAP@0.5']
  assert pruned.person_ap == figures['person_AP@0.5']
  # 2 slots of 4 x 4 patches: 32 tokens, then ceil(0.7 * 32) = 23, then ceil(0.7 * 23) = 17.
  assert (pruned.tokens, whole.tokens) == (17, 32) and pruned.gmac < whole.gmac
  assert whole.clips_per_second > 0
  with pytest.raises(InputError, match='keep rate of 0.3 at block 1 would drop'):
    compare_keep_rates.compare(config, [str(workdir)], (0.7, 0.3))


def test_a_step_without_checkpoint_is_named(trained, tmp_path):
  config, workdir = trained
  config = config.copy_and_resolve_references()
  config.checkpoint, config.eval.step = str(workdir / 'checkpoints'), 3
  with pytest.raises(InputError, match=r'of step 3 .config.eval.step.*; give one of \[2, 4\]'):
    main.run(config, tmp_path, 'eval')


def test_another_batch_size_cannot_continue_the_run(trained):
  config, workdir = trained
  config = config.copy_and_resolve_references()
  config.train.update(batch_size=8, epochs=4.0)
  with pytest.raises(InputError, match='config.train.batch_size'):
    main.run(config, workdir, 'train')


def test_a_run_goes_on_with_its_own_data_alone(data, trained, tmp_path):
  """The classes are in another order; tests/training/test_run_data.py has the rest."""
  config, workdir = trained[0].copy_and_resolve_references(), tmp_path / 'run'
  shutil.copytree(trained[1], workdir)
  manifest = Path(shutil.copytree(data, tmp_path / 'data')) / 'manifest.json'
  content = json.loads(manifest.read_text())
  manifest.write_text(json.dumps(content | {'classes': content['classes'][::-1]}))
  config.data.directory, config.train.epochs = str(manifest.parent), 1.5
  before = sorted(workdir.rglob('*'))
  with pytest.raises(InputError, match='classes: walk, jump, .* then; stand, wave, .* now'):
    main.run(config, workdir, 'train')
  assert sorted(workdir.rglob('*')) == before


def test_starting_a_finished_run_again_evaluates_it_and_trains_no_further(trained, capsys):
  config, workdir = trained
  config = config.copy_and_resolve_references()
  config.init_from = 'elsewhere'  # resuming comes first
  before = (workdir / 'metrics.jsonl').read_text()
  main.run(config, workdir, 'train')
  told = capsys.readouterr().out
  assert 'Continuing from step 4 of 4' in told
  assert 'config.init_from=elsewhere is ignored: it applies to a new run alone' in told
  assert (workdir / 'metrics.jsonl').read_text() == before


def test_a_run_starts_from_another(trained, tmp_path, capsys):
  config, workdir = trained
  config = config.copy_and_resolve_references()
  config.init_from = str(workdir)
  main.run(config, tmp_path, 'train')
  told = capsys.readouterr().out
  assert f'Starting from {workdir}/checkpoints/4 (a run of evad_jax, step 4)' in told
  first, second = (
    json.loads((folder / 'metrics.jsonl').read_text().splitlines()[0])['loss']
    for folder in (workdir, tmp_path)
  )
  assert second < first  # the same clips, met by trained parameters


def test_a_checkpoint_of_another_size_is_refused_and_stays(trained, tmp_path):
  config, workdir = trained
  other = config.copy_and_resolve_references()
  other.model.width = 32
  with pytest.raises(InputError, match=r'checkpoint is of another model: .* use the config'):
    main.run(other, workdir, 'train')
  other.checkpoint = str(workdir / 'checkpoints')
  with pytest.raises(InputError, match='another model'):
    main.run(other, tmp_path, 'eval')
  assert (workdir / 'checkpoints' / '4').is_dir()


@pytest.mark.parametrize(
  'change, words',
  [
    ({'data.directory': 'nowhere'}, ['nowhere', 'data_prep']),
    ({'data.train_split': 'validation'}, ['validation', 'data_prep']),
    ({'model.keep_rate': 0.2}, ['0.2', 'block 1', 'smallest']),
    ({'model.keep_rate': 1.5}, ['config.model.keep_rate=1.5', 'must be in (0, 1]']),
    ({'model.num_actions': 7}, ['6 classes', 'num_actions']),
    ({'model.num_heads': 3}, ['num_heads=3', '16']),
    ({'model.dtype': 'float8'}, ['float8']),
    ({'model.proposal_init': 'random'}, ['random', 'grid']),
    ({'model.padding': 'none'}, ['none', 'masked']),
    ({'clip.max_boxes': 9}, ['9', 'num_proposals']),
    ({'clip.canvases': ((32, 24),)}, ['24']),
    ({'clip.canvases': ((36, 36),)}, ['36']),
    ({'train.accumulation': 3}, ['accumulation=3']),
    ({'train.log_every': 0}, ['log_every=0']),
    ({'optimizer.schedule': 'linear'}, ['linear', 'cosine']),
    ({'eval.scoring': 'person_time_action'}, ['eval.scoring', 'person_times_action']),
    ({'eval.linking': 'greddy'}, ['greddy', 'viterbi']),
    ({'eval.settings': 'mine'}, ['mine', 'checkpoint']),
    ({'eval.batch_size': 0}, ['eval.batch_size=0', 'at least 1']),
    ({'eval.sheet_clips': -1}, ['sheet_clips=-1']),
    ({'eval.max_per_frame': -3}, ['max_per_frame=-3']),
    ({'eval.person_threshold': 7.0}, ['person_threshold=7.0']),
    ({'optimizer.milestones': (3.0,)}, ['milestones=(3.0,)', 'factors=()']),
    ({'seed': -1}, ['config.seed=-1']),
    ({'clip.flip_probability': 2.0}, ['flip_probability=2.0']),
    ({'train.ema_decay': 1.5}, ['ema_decay=1.5']),
    ({'data.prefetch': 0}, ['config.data.prefetch=0']),
    ({'data.threads': -1}, ['config.data.threads=-1']),
    ({'mesh.model': 3}, ['config.mesh.model=3']),
    ({'model.remat': 'yes'}, ["remat='yes'", 'auto']),
    ({'hosts.agree_every': 0}, ['config.hosts.agree_every=0']),
  ],
)
def test_impossible_settings_say_what_to_change(data, tmp_path, change, words):
  config = tiny_config(data)
  for key, value in change.items():
    *sections, name = key.split('.')
    with config.ignore_type():
      (config[sections[0]] if sections else config)[name] = value
  with pytest.raises(InputError) as error:
    main.run(config, tmp_path, 'train')
  for word in words:
    assert word in str(error.value)
  assert '\n' not in str(error.value)


def test_evaluation_without_a_checkpoint_says_so(data, tmp_path):
  with pytest.raises(InputError, match='no such checkpoint directory'):
    main.run(tiny_config(data), tmp_path, 'eval')
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(InputError, match='no complete checkpoint'):
    main.run(tiny_config(data), tmp_path, 'eval')


def cut_off(path):
  path.write_bytes(path.read_bytes()[:-10])


# The records of the training split are checked as they are read, all else before.
@pytest.mark.parametrize(
  'split, damage, begun',
  [('train', cut_off, False), ('train', flip_bit, True), ('test', flip_bit, False)],
)
def test_a_damaged_shard_stops_a_run_before_its_first_step(tmp_path, capsys, split, damage, begun):
  data = make_data(tmp_path / 'tiny')
  path = min(data.glob(f'*{split}.tfrecord-*'))
  damage(path)
  with pytest.raises(InputError, match=path.name):
    main.run(tiny_config(data), tmp_path / 'run', 'train')
  assert ('Training' in capsys.readouterr().out) == begun
  log = tmp_path / 'run' / 'metrics.jsonl'
  assert not log.exists() or log.read_text() == ''


def test_a_corrupt_jpeg_names_video_and_frame(tmp_path, monkeypatch):
  make = data_set.make_record

  def broken(number, split, settings):
    record = make(number, split, settings)
    if split == 'train' and number == 3:
      record = record._replace(frames=[b'no jpeg', *record.frames[1:]])
    return record

  monkeypatch.setattr(data_set, 'make_record', broken)
  directory = make_data(tmp_path / 'tiny')
  with pytest.raises(InputError, match='train_00003'):
    main.run(tiny_config(directory), tmp_path / 'run', 'train')


def test_missing_synthetic_data_are_made(tmp_path, monkeypatch):
  config = tiny_config(tmp_path / 'made')
  config.data.synthetic = 'easy'
  small = data_set.Settings
  monkeypatch.setattr(
    data_set, 'Settings', lambda **kw: small(**{**kw, 'train': 4, 'test': 4, 'workers': 1})
  )
  main.run(config, tmp_path / 'run', 'train')
  assert len(records.RecordIndex.open(tmp_path / 'made', 'train')) == 4


@pytest.mark.parametrize(
  'arguments, words',
  [
    ((), ['--config']),
    (('--config=configs/nothing.py',), ['configs/nothing.py']),
    (('--config=configs/demo.py', '--config.train.epoch=3'), ['epoch']),
    (('--config=configs/demo.py', '--config.train.epochs=many'), ['many']),
    (('--config=configs/ucf24.py:tiny',), ['tiny', 'small']),
    (('--config=configs/demo.py', '--mode=test'), ['test', 'eval']),
    (('--config=configs/demo.py', '--wordir=x'), ['wordir']),
    (('--config=configs/demo.py', 'eval'), ['eval']),
    (('--config=configs/ucf24.py', '--config.data.directory=nowhere'), ['nowhere', 'ucf24']),
  ],
)
def test_the_command_line_answers_with_one_sentence_and_status_2(arguments, words):
  assert_one_sentence(command(*arguments), *words)


def test_help_explains():
  result = command('--help')
  assert result.returncode == 0, result.stderr
  assert 'configs/demo.py' in result.stdout and '--workdir' in result.stdout


def test_wide_and_upright_videos_train_and_evaluate_on_their_own_canvases(tmp_path, capsys):
  videos = [toy_records.make_record(video) for video in range(4)]
  for split in ('train', 'test'):
    toy_records.write_toy(tmp_path / 'toy', videos, split)
  config = tiny_config(tmp_path / 'toy')
  config.clip.update(canvases=((32, 64), (64, 32)), short_side=24, frame_stride=2)
  config.model.num_actions = 3
  config.train.update(batch_size=2, epochs=1.0)  # 6 steps for 8 wide and 3 upright examples
  main.run(config, tmp_path / 'run', 'train')
  told = capsys.readouterr().out
  assert told.count('compiled for clips of ') == 1, told  # the first step reports its own
  lines = [json.loads(line) for line in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
  losses = [line['loss'] for line in lines if 'loss' in line]
  assert len(losses) == 6 and np.isfinite(losses).all()
  figures = json.loads((tmp_path / 'run/eval_test.json').read_text())
  assert figures['counts']['frames'] == 11 and figures['counts']['truth_boxes'] == 9
