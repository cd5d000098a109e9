"""Costs read from hand-written programs, whose every byte and operation is counted by hand."""

import pytest

from evad_jax.cost import compiled_cost

PROGRAM = """HloModule jit_f

%fused (p0: f32[10,4], p1: s32[]) -> f32[1,4] {
  %p0 = f32[10,4]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %ds = f32[1,4]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,4}
}

%body (arg: (s32[], f32[10,4])) -> (s32[], f32[10,4]) {
  %arg = (s32[], f32[10,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[10,4]{1,0} get-tuple-element(%arg), index=1
  %slice = f32[1,4]{1,0} fusion(%x, %i), kind=kLoop, calls=%fused, \
metadata={op_name="jit(f)/EVAD/encoder/block_3/attention/x"}, \
backend_config={"estimated_cycles":"70"}
  ROOT %t = (s32[], f32[10,4]{1,0}) tuple(%i, %x)
}

%condition (arg: (s32[], f32[10,4])) -> pred[] {
  %arg.1 = (s32[], f32[10,4]{1,0}) parameter(0)
  ROOT %c = pred[] constant(true)
}

%few (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %n = f32[4]{0} negate(%a)
}

%many (b: f32[4]) -> f32[4] {
  %b = f32[4]{0} parameter(0)
  %m = f32[4]{0} negate(%b)
  ROOT %m2 = f32[4]{0} negate(%m)
}

ENTRY %main (x: bf16[2,3,5]) -> f32[4] {
  %x.1 = bf16[2,3,5]{2,1,0} parameter(0)
  %y = bf16[2,5,7]{2,1,0} parameter(1)
  %z = f32[4]{0} parameter(2)
  %s = s32[] parameter(3)
  %w = (s32[], f32[10,4]{1,0}) parameter(4)
  %dot = bf16[2,3,7]{2,1,0} dot(%x.1, %y), lhs_batch_dims={0}, lhs_contracting_dims={2}, \
rhs_batch_dims={0}, rhs_contracting_dims={1}, metadata={op_name="jit(f)/EVAD/fpn/dot"}
  %loop = (s32[], f32[10,4]{1,0}) while(%w), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"9"}}
  ROOT %cond = f32[4]{0} conditional(%s, %z, %z), branch_computations={%few, %many}
}
"""


def test_product_loop_slice_and_branch():
  product, sliced, *branch = compiled_cost.read(PROGRAM)
  assert (product.kind, product.part) == ('product', 'pyramid')
  assert product.flops == 2 * 2 * 3 * 5 * 7
  assert product.bytes == 2 * (2 * 3 * 5 + 2 * 5 * 7 + 2 * 3 * 7)
  assert (sliced.times, sliced.part, sliced.cycles) == (9, 'attention', 70)
  assert sliced.bytes == 16 + 4 + 16  # a row of the array, its number, the result
  assert [(x.times, x.bytes) for x in branch] == [(1, 32)]
  assert len(compiled_cost.read(PROGRAM, branch=1)) == 4
  assert len(compiled_cost.read(PROGRAM, branch=9)) == 4  # there are two


def test_a_search_in_a_loop_takes_the_sum_of_its_columns():
  """Like the matcher: 9 columns, and an inner loop of unknown length."""
  inner = PROGRAM.replace(
    '  ROOT %t = (s32[], f32[10,4]{1,0}) tuple(%i, %x)\n',
    '  %s2 = (s32[], f32[10,4]{1,0}) while(%arg), condition=%condition, body=%search\n'
    '  ROOT %t = (s32[], f32[10,4]{1,0}) tuple(%i, %x)\n',
  ).replace(
    '%condition (arg',
    '%search (q: f32[4]) -> f32[4] {\n'
    '  %q = f32[4]{0} parameter(0)\n  ROOT %r = f32[4]{0} exponential(%q)\n}\n\n%condition (arg',
    1,
  )
  found = compiled_cost.read(inner)
  assert sum(x.times for x in found) == 1 + 9 + sum(range(1, 10)) + 1


def test_turns_from_what_the_counter_is_compared_with():
  """As in programs for TPUs, which do not state the number of iterations."""
  for direction, turns in (('LT', 9), ('GT', 1)):
    text = PROGRAM.replace(', backend_config={"known_trip_count":{"n":"9"}}', '').replace(
      '  ROOT %c = pred[] constant(true)\n',
      '  %count = s32[] get-tuple-element(%arg.1), index=0\n  %nine = s32[] constant(9)\n'
      f'  ROOT %c = pred[] compare(%count, %nine), direction={direction}\n',
    )
    assert compiled_cost.read(text)[1].times == turns


def test_kernels_of_libraries():
  text = """ENTRY %main (q: bf16[2,50,3,8]) -> bf16[2,3,50,8] {
  %q = bf16[2,50,3,8]{3,2,1,0} parameter(0)
  %a = (bf16[2,3,50,8]{3,1,2,0}, f32[2,3,50]{2,1,0}, u8[64]{0}) custom-call(%q, %q, %q), \
custom_call_target="__cudnn$fmhaSoftmax"
  %g = (bf16[2,3,50,8]{3,1,2,0}, u8[64]{0}) custom-call(%q, %q, %q), \
custom_call_target="__cudnn$fmhaSoftmaxBackward"
  %k = bf16[2,50,3,8]{3,2,1,0} custom-call(%q, %q), custom_call_target="__cublas$lt$matmul", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["3"]}}}
}
"""
  forward, backward, product = compiled_cost.read(text)
  assert forward.flops == 2 * 2 * (2 * 3 * 50 * 50 * 8)
  assert forward.bytes == 2 * 4 * 2400 + 4 * 300  # without the workspace
  assert backward.flops == 2 * 5 * (2 * 3 * 50 * 50 * 8)
  assert product.flops == 2 * 2400 * 8


def test_parts_add_up():
  work = compiled_cost.read(PROGRAM)
  parts = compiled_cost.by_part(work, lambda item: item.bytes)
  assert parts['attention'] == 9 * 36
  assert sum(parts.values()) == sum(x.times * x.bytes for x in work)


def test_what_is_no_program_is_an_error():
  with pytest.raises(ValueError, match='no ENTRY'):
    compiled_cost.read('nothing')
