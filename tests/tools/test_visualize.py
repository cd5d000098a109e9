"""The command line: three complete files from a video, and one clear sentence on bad input."""

import numpy as np
import pytest
from PIL import Image

from evad_jax.checkpoints.manager import Checkpoints
from evad_jax.errors import InputError
from evad_jax.inference.detector import Detector
from evad_jax.tools import visualize
from evad_jax.video import video_source
from evad_jax.video.video_clip import read_clip
from evad_jax.visualization import pruning_sheets
from tests import micro_evad
from tests.video.tiny_videos import write_video

CLIP = {'clip_frames': 8, 'frame_stride': 1, 'short_side': 32, 'max_long': 64}
RATES = ['--keep-rate', '0.9', '0.6']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A video, a checkpoint that prunes in blocks 1 and 2, and one that does not prune."""
  folder = tmp_path_factory.mktemp('visualize')
  write_video(folder / 'walk.mp4', 12, size=(48, 64))
  params = micro_evad.random_parameters(micro_evad.micro_model())
  for name, changes in (('pruning', {}), ('none', {'prune_blocks': ()})):
    settings = {'model': micro_evad.MODEL | changes, 'clip': CLIP, 'classes': list('abcde')}
    with Checkpoints(folder / name) as checkpoints:
      checkpoints.save(0, {'params': params}, settings, {}, None)
  return folder


def run(folder, *flags, video='walk.mp4', checkpoint='pruning', output='out'):
  paths = [str(folder / video), '--checkpoint', str(folder / checkpoint)]
  visualize.main([*paths, '--output', str(folder / output), *flags])


def test_three_files_and_what_they_are_of(folder, capsys):
  run(folder, '--time', '0.2', *RATES, output='new/out')
  assert capsys.readouterr().out.splitlines() == [
    'walk.mp4, keyframe 5 at 0.20 s, keep rate (0.9, 0.6)',
    *(f'  {folder / "new" / "out" / n}' for n in ('pruning.png', 'importance.png', 'pruning.gif')),
  ]
  with Image.open(folder / 'new' / 'out' / 'pruning.gif') as animation:
    assert animation.n_frames == 8
  detector = Detector.from_checkpoint(folder / 'pruning', keep_rate=(0.9, 0.6))
  with video_source.opened(video_source.find(str(folder / 'walk.mp4'))) as video:
    clip = read_clip(video, 8, 1, seconds=0.2)
  pruned = visualize.look(detector, clip, 'walk.mp4, keyframe 5 at 0.20 s, keep rate (0.9, 0.6)')
  for name, draw in (
    ('pruning.png', pruning_sheets.pruning_sheet),
    ('importance.png', pruning_sheets.importance_sheet),
  ):
    np.testing.assert_array_equal(Image.open(folder / 'new' / 'out' / name), draw(pruned))
  assert len(list((folder / 'new' / 'out').iterdir())) == 3


def test_what_is_drawn_is_the_picture_and_its_tokens(folder):
  detector = Detector.from_checkpoint(folder / 'pruning', keep_rate=(0.9, 0.6))
  with video_source.opened(video_source.find(str(folder / 'walk.mp4'))) as video:
    clip = read_clip(video, 8, 1, keyframe=1)
  pruned = visualize.look(detector, clip, 'title')
  # 32 x 43 pixels on a canvas of 32 x 48: 4 slots of 4 x 6 tokens, none of padding alone.
  assert pruned.frames.shape == (8, 32, 43, 3) and pruned.grid() == (4, 4, 6)
  assert pruned.number(pruned.keyframe()) == 1 and pruned.number(0) == 0
  levels = [float(frame.mean()) for frame in pruned.frames]
  np.testing.assert_allclose(levels, [float(frame.mean()) for frame in clip.frames], atol=1)
  assert [(stage.block, int(stage.kept.sum())) for stage in pruned.stages] == [(1, 87), (2, 53)]
  pruned.check()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'flags': ['--keyframe', '12']}, r'walk\.mp4: frame 12 is past its end; it has 12 frames'),
    ({'flags': ['--keep-rate', '1']}, r'keeps every token \(keep rate 1\.0\).* --keep-rate below'),
    ({'checkpoint': 'none'}, r'none: none of its blocks prunes'),
    ({'flags': ['--keep-rate', 'nan']}, r'keep_rate=nan must be in \(0, 1\]'),
    ({'flags': ['--keep-rate', '0.4']}, '0.4 at block 2 would drop tokens of the keyframe'),
    ({'flags': ['--keep-rate', '0.9', '0.8', '0.7']}, '3 rates for 2 prune_blocks'),
    ({'video': 'run.mp4'}, r'run\.mp4: there is no such file'),
    ({'checkpoint': 'other'}, r'other: there is no such checkpoint directory'),
    ({'output': 'walk.mp4', 'flags': RATES}, r'cannot be written to .* choose another --output'),
  ],
)
def test_what_cannot_be_is_told(folder, change, message):
  paths = {key: value for key, value in change.items() if key != 'flags'}
  with pytest.raises(InputError, match=message):
    run(folder, *change.get('flags', []), **paths)
  assert not (folder / 'out').exists()
