"""Bytes that devices exchange, from lines as XLA writes them, by hand."""

import pytest

from evad_jax.cost import hlo_collectives
from evad_jax.cost.hlo_collectives import Collective

ALL = "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2]"


@pytest.mark.parametrize(
  'line, wanted, sent',
  [
    (
      f"%a.1 = f32[128,32]{{1,0}} all-reduce(%dot), {ALL} {{'axis_0'}}, to_apply=%add",
      Collective('all-reduce', 16384, 4),
      24576,
    ),
    (
      '%a = (f32[2,64]{1,0}, bf16[8]{0}) all-reduce(%x, %y), replica_groups=[4,2]<=[8], x=%a',
      Collective('all-reduce', 528, 2),
      528,
    ),
    (
      "ROOT %g = s32[8,48]{1,0} all-gather(%x), replica_groups=mesh['axis_0'=2,'axis_1'=4], "
      "device_ids=([4,2]T(1,0)) {'axis_0','axis_1'}, dimensions={0}",
      Collective('all-gather', 1536, 8),
      1344,
    ),
    (
      '%s = (bf16[8]{0}, bf16[32]{0}) all-gather-start(%x), replica_groups={{0,1,2,3},{4,5,6,7}}',
      Collective('all-gather', 64, 4),
      48,
    ),
    (
      '%r = f32[8]{0} reduce-scatter(%x), replica_groups={{0,1,2,3}}, dimensions={0}',
      Collective('reduce-scatter', 32, 4),
      96,
    ),
    (
      '%t = pred[8]{0} all-to-all(%x), replica_groups={{0,1},{2,3}}, dimensions={0}',
      Collective('all-to-all', 8, 2),
      4,
    ),
    (
      '%p = f64[3]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}',
      Collective('collective-permute', 24, 2),
      24,
    ),
  ],
)
def test_one_exchange(line, wanted, sent):
  assert hlo_collectives.read(f'HloModule x\n  {line}\n  %d = f32[4] add(%a, %b)\n') == [wanted]
  assert wanted.sent_bytes() == sent


def test_groups_of_one_exchange_nothing():
  assert hlo_collectives.read('%a = f32[8]{0} all-reduce(%x), replica_groups={{0},{1}}') == []


def test_sums_by_kind():
  line = '%a = f32[8]{0} all-reduce(%x), replica_groups={{0,1}}\n'
  other = '%b = f32[8]{0} all-gather(%x), replica_groups={{0,1}}\n'
  found = hlo_collectives.sent_by_kind(hlo_collectives.read(line + other + line))
  assert found == {'all-reduce': 64, 'all-gather': 16}


def test_an_unknown_way_of_writing_groups_is_no_silent_zero():
  with pytest.raises(ValueError, match='No replica groups'):
    hlo_collectives.read('%a = f32[8]{0} all-reduce(%x), channel_id=1')
