"""Untrusted published weights: the text beside the tensors, their names, types and sizes."""

import json
import resource
import struct
import subprocess
import sys

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.published import architectures, weight_files, weight_settings
from evad_jax.tools import convert_checkpoint
from tests import published_sources

TOLD = {'depth': 12, 'prune_blocks': (3, 6, 9)}
LAUGHS = 'a0: &a0 {x: 1}\n' + ''.join(
  f'a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}\n' for i in range(1, 40)
)
MERGED = 'a0: &a0 {x: 1}\n' + ''.join(
  f'a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n' for i in range(1, 40)
)
TEXTS = {
  'laughs': (LAUGHS, 'more than 10000 values'),
  'laughs that are merged': (MERGED, 'more than 10000 values'),
  'a mapping in itself': ('a: &a\n  b: *a\n', r'\*a refers to itself, or to nothing'),
  'a list in itself': ('a: &a [*a]\n', r'\*a refers to itself'),
  'nested': ('a: ' + '[' * 5000 + ']' * 5000, 'or 20 levels'),
  'nested objects': ('a: ' + '{a: ' * 5000 + '}' * 5000, 'or 20 levels'),
  'long': ('a: ' + 'x' * 10**6, 'has 1000003 characters, more than 60000'),
  'of many values': ('a: [' + '1,' * 20_000 + ']', 'more than 10000 values'),
  'an object of Python': ('a: !!python/object/apply:os.system ["x"]', 'has the tag'),
  'a broken date': ('a: 2024-99-99\n', 'none of the 1 keys'),
  'a number without end': ('a: ' + '9' * 5000, 'none of the 1 keys'),
  'a sexagesimal one': ('a: ' + ':'.join(['59'] * 5000), 'none of the 1 keys'),
  'binary that is none': ('a: !!binary "?"', 'has the tag'),
}


@pytest.mark.parametrize(('text', 'message'), TEXTS.values(), ids=TEXTS)
def test_texts(text, message, within):
  message = f'(?s)x: its tensors do not determine .*{message}.*; give --keep'
  with within(1):
    with pytest.raises(InputError, match=message):
      weight_settings.detector_settings('x', text, {}, TOLD)
    assert weight_settings.read_own('x', text) == ('', {})


def test_a_date_that_is_none_hides_no_setting():
  text = 'when: 2024-99-99\nKEEP_RATE: 0.7\nENHANCED_WEIGHT: 1\nROI_EXTENSION: &e [0.4, 0.2]\nx: *e'
  settings, _ = weight_settings.detector_settings('x', text, {}, TOLD)
  assert (settings['keep_rate'], settings['roi_extension']) == (0.7, (0.4, 0.2))


OWN = {
  'a number': (1, 'is not as evad_jax writes it'),
  'no kind': ({'model': {}}, 'has no kind'),
  'an unknown kind': ({'kind': 'x', 'model': {}}, "kind='x' is not one of detector"),
  'a model of words': ({'kind': 'detector', 'model': 'x'}, "model='x' must be an object"),
  'a width of words': ({'kind': 'detector', 'model': {'width': 'x'}}, "width='x' must be a whole"),
  '10**7 blocks': ({'kind': 'detector', 'model': {'depth': 10**7}}, 'depth=10000000 must be at'),
  'an unknown setting': ({'kind': 'detector', 'model': {'x': 1}}, 'has the settings x, which'),
}


@pytest.mark.parametrize(('section', 'message'), OWN.values(), ids=OWN)
def test_texts_of_this_project(section, message):
  with pytest.raises(InputError, match=f'x: .*{message}'):
    weight_settings.read_own('x', json.dumps({'evad_jax': section}))


@pytest.mark.parametrize('text', ['evad_jax: 1', 'evad_jax: {kind: detector}'])
def test_texts_that_look_like_this_project(text):
  with pytest.raises(InputError, match='is not as evad_jax writes it'):
    weight_settings.read_own('x', text)


def test_a_text_of_this_project_that_is_no_json_holds_no_settings():
  text = '{"evad_jax": ' + '[' * 50_000
  assert weight_settings.read_own('x', text) == ('', {})
  with pytest.raises(InputError, match='do not determine'):
    weight_settings.detector_settings('x', text, {}, TOLD)


def understood(tmp_path, tensors, kind='encoder', **changes):
  path = published_sources.write(tmp_path / 'x.safetensors', tensors)
  source = weight_files.read(path)
  return architectures.understand(source, kind, published_sources.UNTOLD | changes)


@pytest.mark.parametrize('number', [10**7, 10**8, int('9' * 4000)])
def test_a_block_of_a_high_number(tmp_path, number, within):
  """The model that is built is never larger than the tensors of the file."""
  one = np.ones(8, np.float32)
  tensors = {f'blocks.{number}.norm1.weight': one, f'blocks.{number}.norm1.bias': one}
  tensors |= {'patch_embed.proj.bias': one, 'norm.weight': one}
  message = f'has a part number {str(number)[:20]} .*, but only 1 of'
  with within(1), pytest.raises(InputError, match=message):
    understood(tmp_path, tensors)


def test_tensors_of_no_numbers(tmp_path):
  tensors = published_sources.encoder() | {'patch_embed.proj.bias': np.zeros(0, np.float32)}
  tensors = {name: tensor[:0] for name, tensor in tensors.items()}
  with pytest.raises(InputError, match='width=0 must be at least 1'):
    understood(tmp_path, tensors)


def test_a_type_that_numpy_does_not_know(tmp_path):
  pytest.importorskip('safetensors', reason=published_sources.NO_SAFETENSORS)
  entry = {'dtype': 'F8_E4M3', 'shape': [8], 'data_offsets': [0, 8]}
  header = json.dumps({'blocks.0.norm1.weight': entry}).encode()
  (tmp_path / 'x.safetensors').write_bytes(struct.pack('<Q', len(header)) + header + bytes(8))
  with pytest.raises(InputError, match='blocks.0.norm1.weight is F8_E4M3; they must be finite and'):
    weight_files.read(tmp_path / 'x.safetensors')


def test_tensors_that_show_one_number_again_and_again(tmp_path):
  """PyTorch files may hold such views: 4 TB made of 4 bytes."""
  (tmp_path / 'x.pth').write_bytes(bytes(100))
  endless = {'a': np.broadcast_to(np.float32(1), (10**6, 10**6))}
  source = weight_files.Source(tmp_path / 'x.pth', endless, '', '', '')
  with pytest.raises(
    InputError, match='its tensors would be 4,000,000,000,000 bytes, more than 8 times'
  ):
    weight_files._check_numbers(source)


def test_the_command_line(tmp_path):
  """One line and status 2, in a limited address space."""
  path = published_sources.write(
    tmp_path / 'x.safetensors', published_sources.detector(), cfg=LAUGHS
  )
  largest = 8 << 30  # bytes of address space, far more than is resident
  done = subprocess.run(
    [sys.executable, '-m', 'evad_jax.tools.convert_checkpoint', str(path), str(tmp_path / 'out')],
    capture_output=True,
    text=True,
    check=False,
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (largest, largest)),
  )
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert done.stderr.startswith(f'error: {path}: EVAD detector of no published size')
  assert not (tmp_path / 'out').exists()
  with pytest.raises(InputError, match='more than 10000 values.*give --keep-rate'):
    convert_checkpoint.to_evad_jax(path, tmp_path / 'out', published_sources.UNTOLD)
