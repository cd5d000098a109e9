"""Clips of a video that arrives frame by frame, against those cut from the full video."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evad_jax.data.clip_sampling import clip_frame_numbers
from evad_jax.errors import InputError
from evad_jax.video import clip_stream
from evad_jax.video.clip_stream import Plan


class Cut:
  """A video of `num_frames` numbers, cut: the clips after each frame, and the placed frames."""

  def __init__(self, plan, num_frames):
    self.placed, self.clips, self.most_held = [], [], 0
    state = clip_stream.start()
    for number in range(num_frames):
      state, complete = clip_stream.push(state, number, plan, self.place)
      self.clips += [(number, clip) for clip in complete]
      assert len(complete) <= 1
      self.most_held = max(self.most_held, len(state.placed))
    self.clips += [('end', clip) for clip in clip_stream.finish(state, plan, self.place)]

  def place(self, number):
    self.placed.append(number)
    return np.full((1, 1, 3), number)

  def numbers(self):
    """Keyframe -> the numbers of its clip's frames."""
    return {clip.keyframe: [int(x[0, 0, 0]) for x in clip.frames] for _, clip in self.clips}


plans = st.builds(Plan, st.integers(1, 9), st.integers(1, 5), st.integers(1, 24))


@settings(max_examples=300, deadline=None)
@given(plans, st.integers(0, 70))
def test_clips_are_those_of_the_whole_video(plan, num_frames):
  cut = Cut(plan, num_frames)
  t, stride, keyframe_stride = plan
  keyframes = list(range(0, num_frames, keyframe_stride))
  assert [clip.keyframe for _, clip in cut.clips] == keyframes
  assert cut.numbers() == {
    keyframe: clip_frame_numbers(keyframe, num_frames, t, stride).tolist() for keyframe in keyframes
  }


@settings(max_examples=300, deadline=None)
@given(plans, st.integers(0, 70))
def test_a_clip_comes_with_its_last_frame(plan, num_frames):
  ends = {
    k: k + (plan.clip_frames - 1 - plan.clip_frames // 2) * plan.frame_stride for k in range(70)
  }
  for moment, clip in Cut(plan, num_frames).clips:
    end = ends[clip.keyframe]
    assert moment == (end if end < num_frames else 'end')


@settings(max_examples=300, deadline=None)
@given(plans, st.integers(0, 70))
def test_no_more_than_the_reach_is_held_and_placed(plan, num_frames):
  cut = Cut(plan, num_frames)
  assert cut.most_held <= (plan.clip_frames - 1) * plan.frame_stride // plan.grid() + 1
  assert len(set(cut.placed)) == len(cut.placed)
  used = {number for numbers in cut.numbers().values() for number in numbers}
  reached = {
    number
    for keyframe in range(0, num_frames + plan.before() + 1, plan.keyframe_stride)
    for number in range(keyframe - plan.before(), keyframe + plan.after() + 1)
    if number % plan.grid() == 0
  }
  assert used <= set(cut.placed) <= used | reached


def test_by_hand():
  """T 4 at stride 3 reaches from 6 before its keyframe to 3 after; keyframes 0 and 20 of 23."""
  plan = Plan(4, 3, 20)
  cut = Cut(plan._replace(keyframe_stride=21), 23)
  assert (plan._replace(keyframe_stride=21).grid(), plan.before(), plan.after()) == (3, 6, 3)
  assert cut.numbers() == {0: [0, 0, 0, 3], 21: [15, 18, 21, 22]}
  assert cut.placed == [0, 3, 15, 18, 21, 22]  # 22 replaces 24, which never arrives
  assert [moment for moment, _ in cut.clips] == [3, 'end']
  assert cut.most_held == 3
  # With keyframe 20 the grid is 1: between its own frames others are placed.
  assert Cut(plan, 23).placed == [0, 1, 2, 3, *range(14, 23)]


def test_a_state_is_not_changed():
  plan = Plan(2, 1, 1)
  first, _ = clip_stream.push(clip_stream.start(), 5, plan, lambda x: np.full((1, 1, 3), x))
  a, clips_a = clip_stream.push(first, 6, plan, lambda x: np.full((1, 1, 3), x))
  b, clips_b = clip_stream.push(first, 7, plan, lambda x: np.full((1, 1, 3), x))
  assert first.count == 1 and a.count == b.count == 2
  assert [int(clips[0].frames[1].max()) for clips in (clips_a, clips_b)] == [6, 7]


@pytest.mark.parametrize('field', Plan._fields)
def test_a_plan_without_clips_is_refused(field):
  Plan(1, 1, 1).check()
  with pytest.raises(InputError, match=f'{field}=0 must be 1 or more'):
    Plan(1, 1, 1)._replace(**{field: 0}).check()
