"""Keep rates, enhanced weight and RoI extension: from text, from flags, or asked for."""

from pathlib import Path

import pytest

from evad_jax.errors import InputError
from evad_jax.published import weight_settings

TOLD = {'depth': 12, 'prune_blocks': (3, 6, 9)}
TEXT = """
TRAIN: {BATCH_SIZE: 16}
VIT:
  KEEP_RATE: 0.6
  ENHANCED_WEIGHT: 4
DETECTION: {ROI_EXTENSION: [0.4, 0.2]}
"""


def find(cfg='', **flags):
  return weight_settings.detector_settings(Path('x.pth'), cfg, flags, TOLD)


def test_the_text_is_enough_and_its_keys_are_told():
  settings, lines = find(TEXT)
  assert settings == {
    'keep_rate': 0.6,
    'enhanced_weight': 4.0,
    'roi_extension': (0.4, 0.2),
    'token_restoring': 'released',
    'padding': 'released',
  }
  assert lines[0] == 'keep_rate: 0.6 (cfg VIT.KEEP_RATE)' and len(lines) == 3


def test_flags_are_enough():
  settings, lines = find(keep_rate=1.0, roi_extension=(0.0, 0.0))
  assert settings['keep_rate'] == 1.0 and settings['enhanced_weight'] == 1.0
  # Nothing is pruned, so both ways of restoring are the same; padding is not.
  assert (settings['token_restoring'], settings['padding']) == ('scatter', 'released')
  assert not any('no published' in line for line in lines)


def test_a_flag_wins_and_that_is_told():
  settings, lines = find(TEXT, keep_rate=0.7, enhanced_weight=1.0)
  assert (settings['keep_rate'], settings['enhanced_weight']) == (0.7, 1.0)
  assert 'keep_rate: the given value overrides cfg VIT.KEEP_RATE = 0.6' in lines


def test_unpublished_combinations_are_told():
  assert any('no published detector' in line for line in find(TEXT, roi_extension=(0.0, 0.0))[1])


@pytest.mark.parametrize(
  'rates, expected',
  [
    ([1, 1, 1, 0.7, 1, 1, 0.7, 1, 1, 0.7, 1, 1], {'keep_rate': 0.7, 'prune_blocks': (3, 6, 9)}),
    (
      [1, 1, 1, 1, 0.8, 1, 1, 1, 0.7, 1, 1, 1],
      {'keep_rate': (0.8, 0.7), 'prune_blocks': (4, 8)},
    ),
    ([0.9, 0.8, 0.7], {'keep_rate': (0.9, 0.8, 0.7), 'prune_blocks': (3, 6, 9)}),
    ([1.0] * 12, {'keep_rate': 1.0, 'prune_blocks': ()}),
  ],
)
def test_a_rate_for_each_block(rates, expected):
  settings, _ = find(f'KEEP_RATES: {rates}', enhanced_weight=1.0, roi_extension=(0.4, 0.2))
  assert expected.items() <= settings.items()


@pytest.mark.parametrize(
  'cfg, flags, words',
  [
    ('', {}, ['no cfg text', '--keep-rate RATE --enhanced-weight WEIGHT --roi-extension EX EY']),
    ('A: {B: 1}', {'keep_rate': 0.7}, ['enhanced weight, roi extension', 'none of the 1 keys']),
    ('PRUNE: {KEEPING: 0.7}', {}, ['similar: PRUNE.KEEPING']),
    ('A: {KEEP_RATE: 0.7}\nB: {KEEP_RATE: 1.0}', {}, ['different values', 'A.KEEP_RATE', 'B.']),
    ('KEEP_RATE: 7', {'enhanced_weight': 1, 'roi_extension': (0, 0)}, ['keep_rate = 7']),
    ('KEEP_RATE: yes please', {'enhanced_weight': 1, 'roi_extension': (0, 0)}, ['not valid']),
    ('KEEP_RATE: [0.7, 0.7]', {'enhanced_weight': 1, 'roi_extension': (0, 0)}, ['not valid']),
    ('KEEP_RATE: .nan', {'enhanced_weight': 1, 'roi_extension': (0, 0)}, ['not valid']),
    ('!!python/object/apply:os.system ["touch owned"]', {}, ['not plain YAML']),
    ('[1, 2]', {}, ['holds no keys']),
  ],
)
def test_what_is_not_told_is_asked_for(cfg, flags, words):
  with pytest.raises(InputError) as error:
    find(cfg, **flags)
  for word in words:
    assert word in str(error.value)
