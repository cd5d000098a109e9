"""The check before a long evaluation: it passes good data, and finds faults."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evad_jax import command_line
from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.data.records import RecordReader
from evad_jax.published import known_answers
from evad_jax.tools import convert_checkpoint, verify
from tests import micro_evad, published_sources
from tests.damage import flip_bit
from tests.data.toy_records import make_record, write_toy
from tests.published_sources import KEPT, UNTOLD, flags, write


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
  """Settings and parameters of a converted micro detector of three actions."""
  folder = tmp_path_factory.mktemp('verify')
  source = write(folder / 'x.safetensors', published_sources.detector(num_actions=3))
  convert_checkpoint.main([str(source), str(folder / 'out'), *flags(UNTOLD | KEPT)])
  with Checkpoints(folder / 'out', read_only=True) as checkpoints:
    return folder / 'out', checkpoints.settings(0), checkpoints.read_params(0)


def lines(checks, passed):
  return [check.what for check in checks if check.passed is passed]


def check(settings, params):
  return verify.check_checkpoint(Path('x'), 0, settings, params)


def test_a_converted_checkpoint_and_its_data_pass(converted, tmp_path, capsys):
  directory, _, _ = converted
  write_toy(tmp_path / 'data', [make_record(video) for video in range(4)])
  arguments = [str(directory), '--directory', str(tmp_path / 'data'), '--split', 'train']
  assert verify.main(arguments) == 0
  told = capsys.readouterr().out
  assert 'ok   answer to a generated clip, action_logits: differs by 0.0e+00' in told
  assert 'ok   checksums of 4 records' in told and 'ok   3 classes in the data, 3 in' in told
  assert 'FAIL' not in told and told.endswith('all checks passed\n')


def changed(params, function):
  """A copy in which one array of the encoder is another."""
  block = params['encoder']['block_0']
  norm = block['norm1'] | {'scale': function(block['norm1']['scale'])}
  return params | {'encoder': params['encoder'] | {'block_0': block | {'norm1': norm}}}


def test_a_changed_parameter_changes_hash_and_answers(converted):
  _, settings, params = converted
  failed = lines(check(settings, changed(params, lambda x: x * 1.01)), False)
  assert failed[0] == 'the parameters are, bit for bit, those that were converted'
  assert any('answer to a generated clip' in what for what in failed[1:])
  # Too little for the answers' tolerance; the hash sees every bit.
  failed = lines(check(settings, changed(params, lambda x: np.nextafter(x, 2))), False)
  assert failed == ['the parameters are, bit for bit, those that were converted']


def test_numbers_that_are_none_and_other_shapes_fail(converted):
  _, settings, params = converted
  failed = lines(check(settings, changed(params, lambda x: x * np.nan)), False)
  assert '1 not: encoder/block_0/norm1/scale' in failed[0]
  failed = lines(check(settings, changed(params, lambda x: x[:5])), False)
  assert 'blocks.0.norm1.weight is (5,) instead of (32,)' in failed[0]


@pytest.mark.parametrize(
  'change, words',
  [
    ({'token_restoring': 'scatter'}, 'these weights need token_restoring=released'),
    ({'padding': 'masked'}, 'these weights need padding=released'),
    ({'roi_extension': [0.0, 0.0]}, 'answer to a generated clip, action_logits'),
    ({'enhanced_weight': 4.0}, 'answer to a generated clip, action_logits'),
  ],
)
def test_wrong_settings_are_found(converted, change, words):
  _, settings, params = converted
  failed = lines(check(settings | {'model': settings['model'] | change}, params), False)
  assert any(words in what for what in failed)


def test_the_generated_clip_never_changes():
  clip, size = known_answers.generated_clip(16, 8)
  assert clip.shape == (1, 16, 32, 48, 3) and size.tolist() == [[28, 40]]
  assert clip[0, 0, 0, 0].tolist() == [167, 47, 113]
  assert clip[0, 15, 31, 47].tolist() == [50, 237, 255]
  assert int(clip.sum()) == 9_030_344


def test_digests_by_hand():
  known = {'a': known_answers._digest(np.array([[1.0, -4.0]]))}
  assert known['a']['max'] == 4 and known['a']['mean'] == -1.5 and known['a']['std'] == 2.5
  found = {'a': known_answers._digest(np.array([[1.0, -4.2]]))}
  assert known_answers.errors(known, found)['a'] == pytest.approx(0.2 / 4)
  assert known_answers.errors(known, {})['a'] == np.inf
  other = {'a': known_answers._digest(np.array([1.0, -4.0]))}
  assert known_answers.errors(known, other)['a'] == np.inf
  nothing = {'a': known_answers._digest(np.array([[np.nan, 1.0]]))}
  assert not known_answers.errors(known, nothing)['a'] <= 1


@pytest.fixture
def index(tmp_path):
  return write_toy(tmp_path / 'data', [make_record(video) for video in range(4)])


def settings_for(classes=(), **changes):
  return {'model': micro_evad.MODEL | {'num_actions': 3} | changes, 'classes': list(classes)}


def spoil(monkeypatch, change):
  read = RecordReader.read_record
  monkeypatch.setattr(RecordReader, 'read_record', lambda reader, n: change(read(reader, n)))


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda boxes: boxes * 100, 'x1 < x2 and y1 < y2; 9 not video_'),  # pixels
    (lambda boxes: boxes[:, [2, 1, 0, 3]], 'x1 < x2 and y1 < y2; 9 not video_'),  # swapped
    (lambda boxes: boxes * [1, 1, 0.4, 1], 'x1 < x2 and y1 < y2; 9 not video_'),  # xywh
    (lambda boxes: boxes * np.nan, 'x1 < x2 and y1 < y2; 9 not video_'),
  ],
)
def test_boxes_in_another_form_fail(index, monkeypatch, change, words):
  spoil(monkeypatch, lambda record: record._replace(boxes=change(record.boxes)))
  failed = lines(verify.check_data(index, settings_for()), False)
  assert len(failed) == 1 and words in failed[0]


def test_labels_that_are_none_fail_and_missing_ones_are_told(index, monkeypatch):
  with monkeypatch.context() as patch:
    spoil(patch, lambda record: record._replace(labels=2 * record.labels))
    failed = lines(verify.check_data(index, settings_for()), False)
    assert 'labels are 0 or 1, one row per box' in failed[0] and failed[1].startswith('0 labels')
  spoil(monkeypatch, lambda record: record._replace(labels=record.labels * [1, 0, 1]))
  checks = verify.check_data(index, settings_for())
  assert not lines(checks, False)
  notes = ' '.join(lines(checks, None))
  assert '1 classes have no label here: stand' in notes and 'boxes have a label; ' in notes


def test_damaged_records_are_counted(index):
  path = index.shard_path(0)
  flip_bit(path)
  failed = lines(verify.check_data(index, settings_for()), False)
  assert failed[0].startswith('checksums of 4 records; 1 damaged: ') and path.name in failed[0]


def test_classes_are_compared(index):
  assert '3 classes in the data, 4 in the model' in lines(
    verify.check_data(index, settings_for(num_actions=4)), False
  )
  assert not lines(verify.check_data(index, settings_for(['sit', 'stand', 'wave'])), False)
  (failed,) = lines(verify.check_data(index, settings_for(['stand', 'sit', 'wave'])), False)
  assert "2 but: 'sit' was 'stand'; 'stand' was 'sit'" in failed


def test_the_order_of_avas_classes_is_known():
  names = [f'class {i}' for i in range(80)]
  settings = settings_for(num_actions=80)
  (failed,) = lines(verify._check_classes(names, settings), False)
  assert "number 11 is 'class 11' instead of 'stand'" in failed
  for number, word in verify.AVA_CLASSES.items():
    names[number] = f'{word.capitalize()} (an object)'
  assert not lines(verify._check_classes(names, settings), False)
  assert lines(verify._check_classes(sorted(names), settings), False)


def test_an_encoder_and_a_run_are_checked_as_far_as_they_go(tmp_path, capsys):
  source = write(tmp_path / 'e.safetensors', published_sources.pretraining())
  heads = flags({'num_heads': 2, 'decoder_heads': 2, 'pretrain_size': 32})
  convert_checkpoint.main([str(source), str(tmp_path / 'e'), *heads])
  assert verify.main([str(tmp_path / 'e')]) == 0
  told = capsys.readouterr().out
  assert 'ok   answer to a generated clip, decoder' in told
  params = micro_evad.random_parameters(micro_evad.micro_model())
  settings = {'model': json.loads(json.dumps(micro_evad.MODEL)), 'classes': []}
  with Checkpoints(tmp_path / 'run') as checkpoints:
    checkpoints.save(3, {'params': params}, settings, {}, None)
  assert verify.main([str(tmp_path / 'run')]) == 0
  assert 'a run of evad_jax, step 3' in capsys.readouterr().out


def test_the_status_tells(converted, tmp_path, capsys):
  with pytest.raises(SystemExit) as caught:
    command_line.run(verify.main, [str(tmp_path / 'nowhere')])
  assert caught.value.code == 2
  assert capsys.readouterr().err.startswith('error: ')
  shutil.copytree(converted[0], tmp_path / 'copy')
  index = write_toy(tmp_path / 'data', [make_record(video) for video in range(2)])
  path = index.shard_path(1)
  path.write_bytes(path.read_bytes()[:-1] + b'x')
  arguments = [str(tmp_path / 'copy'), '--directory', str(tmp_path / 'data'), '--split', 'train']
  assert verify.main(arguments) == 1
  assert capsys.readouterr().out.endswith('1 checks failed\n')
