"""Untrusted checkpoints: their settings, their seal, their parameters."""

import json
import logging
import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from evad_jax.checkpoints import checksums, manager
from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.errors import InputError
from evad_jax.inference.detector import Detector
from tests import micro_checkpoint, micro_evad

HOOK = sys.unraisablehook  # as evad_jax.checkpoints.manager has set it


@pytest.fixture(scope='module')
def good(tmp_path_factory):
  return micro_checkpoint.write(tmp_path_factory.mktemp('good') / 'checkpoints')


@pytest.fixture
def step(good, tmp_path):
  shutil.copytree(good, tmp_path / 'c')
  return tmp_path / 'c' / '0'


@pytest.fixture
def refused(step, within):
  """Expects that a detector refuses the checkpoint with a sentence, within a second."""

  def expect(message):
    with within(1), pytest.raises(InputError, match=message):
      Detector.from_checkpoint(step.parent)

  return expect


SEALS = {
  'three numbers': ('{"a": [1, 2, 3]}', 'is not what was written'),
  '400 digits': ('{"a": [1e400, 2]}', 'is not what was written'),
  'a list': ('[]', 'is not what was written'),
  'nested deep': ('[' * 200_000, 'is not what was written'),
  'a device': ('{"/dev/zero": [1, 2]}', "'/dev/zero' is elsewhere"),
  'above it': ('{"../../../../etc/hostname": [1, 2]}', "hostname' leaves its directory"),
  'a zero': ('{"a\\u0000": [1, 2]}', 'has characters that cannot be printed'),
  'a directory': ('{"state": [1, 2]}', 'state is not a file'),
  'nothing': ('{"nothing": [1, 2]}', 'nothing cannot be read .No such file'),
}


@pytest.mark.parametrize(('text', 'message'), SEALS.values(), ids=SEALS)
def test_seals(step, text, message, refused):
  (step / checksums.NAME).write_text(text)
  assert message.split('|')[0].split(' .')[0] in checksums.damage(step)
  refused(f'0: the checkpoint is damaged: .*{message}')


def test_a_seal_over_a_device(step, refused):
  """A symbolic link with a harmless name and a length of 0."""
  (step / 'zeros').symlink_to('/dev/zero')
  (step / checksums.NAME).write_text('{"zeros": [0, 0]}')
  refused('zeros is not a file')


SETTINGS = {
  'none': ({}, 'has no model settings'),
  'a list': ([], r' is .., but must be an object'),
  'a list as model': ({'model': []}, 'model is ..., but must be an object|model is'),
  'a width of words': ({'model': {'width': 'x'}}, "model.width='x' must be a whole number"),
  '10**9 actions': ({'model': {'num_actions': 10**9}}, 'num_actions=1000000000 must be at most'),
  'a position table of 500 GB': (
    {'model': {'width': 8192, 'num_heads': 1, 'pretrain_size': 4096, 'patch': 1}},
    'pretrain_size=4096 makes 4096 x 4096 positions of 8192 numbers',
  ),
  'a keep rate of words': ({'model': {'keep_rate': 'x'}}, "keep_rate='x' must be"),
  'a keep rate below 0': ({'model': {'keep_rate': -0.5}}, r'keep_rate=-0.5 must be in \(0, 1\]'),
  'an unknown type': ({'model': {'dtype': 'int8'}}, "dtype='int8' is not one of float32"),
  'no heads': ({'model': {'num_heads': 0}}, 'num_heads=0 must be at least 1'),
  'heads that do not divide': (
    {'model': {'num_heads': 5, 'width': 32}},
    'num_heads=5 must divide .*width=32',
  ),
  '10**9 frames': ({'model': {}, 'clip': {'clip_frames': 10**9}}, 'clip_frames=1000000000 must be'),
  'frames of words': ({'model': {}, 'clip': {'clip_frames': '16'}}, "clip_frames='16' must be"),
  'canvases 5': ({'model': {}, 'clip': {'canvases': 5}}, 'canvases=5 must be a list'),
  'classes 7': ({'model': {}, 'classes': 7}, 'classes=7 must be a list'),
  'a class that is a number': ({'model': {}, 'classes': [7]}, 'a list in which 7 is a string'),
  'ids without classes': ({'model': {}, 'class_ids': [3]}, '1 class_ids for 0 classes'),
  'a source of words': ({'model': {}, 'source': 'x'}, "source='x' must be an object"),
  'an unknown kind': ({'model': {}, 'source': {'kind': 'x'}}, "kind='x' is not one of detector"),
  'a kind alone': ({'model': {}, 'source': {'kind': 'encoder'}}, 'source has no title'),
  'an encoder without a size': (
    {'model': {}, 'source': {'kind': 'encoder', 'title': 'x'}},
    'model has no width',
  ),
}


@pytest.mark.parametrize('sealed', [False, True])
@pytest.mark.parametrize(('content', 'message'), SETTINGS.values(), ids=SETTINGS)
def test_settings(step, content, message, sealed, refused):
  """With a valid seal too: whoever writes the settings can seal them."""
  (step / 'settings' / 'metadata').write_text(json.dumps(content))
  (step / checksums.NAME).unlink()
  if sealed:
    checksums.seal(step)
  refused(f'settings/metadata.*{message}')


def test_settings_that_are_nested_without_end(step, refused):
  (step / 'settings' / 'metadata').write_text('[' * 200_000 + ']' * 200_000)
  (step / checksums.NAME).unlink()
  refused('metadata is nested too deep')
  assert manager.newest_settings(step.parent) is None


def test_settings_of_another_model(step, refused):
  """Blocks that the parameters lack are reported before a model with them is built."""
  content = json.loads((step / 'settings' / 'metadata').read_text())
  (step / checksums.NAME).unlink()
  for key, number, message in (
    ('depth', 60, r'it has 4 of encoder/block_\*, and depth=60 in its settings'),
    ('num_stages', 60, r'it has 1 of person_detector/stage_\*, and num_stages=60'),
    ('decoder_depth', 60, r'it has 1 of context_refinement/block_\*, and decoder_depth=60'),
  ):
    model = content['model'] | {key: number}
    (step / 'settings' / 'metadata').write_text(json.dumps(content | {'model': model}))
    refused(message)
  model = content['model'] | {'feed_forward': 33}
  (step / 'settings' / 'metadata').write_text(json.dumps(content | {'model': model}))
  with pytest.raises(
    InputError, match=r'stage_0/fc1/bias is \(32,\) in the checkpoint and \(33,\)'
  ):
    Detector.from_checkpoint(step.parent)


@pytest.mark.parametrize('number', [np.nan, np.inf])
def test_parameters_that_are_no_numbers_see_nobody_and_are_refused(tmp_path, number):
  params = micro_evad.random_parameters(micro_evad.micro_model())
  params['fpn']['lateral_1']['kernel'][0, 3] = number
  settings = {'model': micro_evad.MODEL, 'clip': micro_checkpoint.CLIP}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(0, {'params': params}, json.loads(json.dumps(settings)), {}, None)
  with pytest.raises(InputError, match='fpn/lateral_1/kernel has non-finite values'):
    Detector.from_checkpoint(tmp_path)


def test_parameters_far_larger_than_their_files(tmp_path):
  """400 MB of zeros compress to a few kB: they are not decompressed."""
  params = {'encoder': {'zeros': np.zeros((10_000, 10_000), np.float32)}}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(0, {'params': params}, {'model': {}}, {}, None)
  del params
  size = sum(path.stat().st_size for path in tmp_path.rglob('*') if path.is_file())
  assert size < 1e6
  with pytest.raises(
    InputError, match='its parameters would be 400,000,000 bytes, but its files have'
  ):
    Detector.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
  ('text', 'best'),
  [('{"frame_mAP@0.5": "x"}', 0), ('{"frame_mAP@0.5": [1]}', 0)]
  + [(text, None) for text in ('[' * 200_000, '5', '{')],
  ids=['text', 'a list', 'nested', 'a number', 'cut'],
)
def test_metrics_that_are_not_metrics(step, text, best):
  """They are those of an evaluation, whatever its result, where the file is a JSON object."""
  (step / checksums.NAME).unlink()
  (step / 'metrics' / 'metrics').write_text(text)
  with Checkpoints(step.parent, read_only=True) as checkpoints:
    assert checkpoints.best_step() == best


def test_a_state_elsewhere(step, refused):
  (step / checksums.NAME).unlink()
  shutil.rmtree(step / 'state')
  os.symlink('/etc', step / 'state')
  refused('0: the checkpoint cannot be read')


def test_nothing_of_a_step(step, refused):
  for path in step.iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  refused('metadata cannot be read .No such file')


def test_a_damaged_state_is_told_in_one_sentence(step, capfd):
  """Orbax reads all arrays at once; only the first failure is printed."""
  (step / checksums.NAME).unlink()
  for path in (step / 'state').rglob('*'):
    if path.is_file() and path.parent.name == 'd':
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(InputError, match='0: the checkpoint cannot be read: '):
    Detector.from_checkpoint(step.parent)
  assert 'Traceback' not in capfd.readouterr().err


def test_what_threads_of_orbax_report_late_is_left_out():
  """The same for messages that come after the test above, from arrays whose reading had begun."""
  errors = (
    RuntimeError('Event loop is closed'),
    RuntimeError('other'),
    KeyError('Event loop is closed'),
  )
  printed = []
  for error in errors:
    HOOK(SimpleNamespace(exc_type=type(error), exc_value=error), printed.append)
  assert [thrown.exc_value for thrown in printed] == list(errors[1:])
  for text, passes in (('Task exception was never retrieved: x', False), ('Other', True)):
    record = logging.LogRecord('asyncio', logging.ERROR, 'x.py', 1, text, None, None)
    assert bool(logging.getLogger('asyncio').filter(record)) == passes
