"""A checkpoint of the micro model, with settings of clips and class names."""

import json
from pathlib import Path

from evad_jax.checkpoints.manager import Checkpoints
from tests import micro_evad

CLIP = {
  'clip_frames': micro_evad.FRAMES,
  'frame_stride': 1,
  'short_side': micro_evad.SIDE,
  'max_long': 1333,
  'canvases': [[32, 32]],
}
CLASSES = ['stand', 'walk', 'jump', 'wave', 'talk to (e.g., self, a person, a group)']


def write(directory: Path, step: int = 0, sure: bool = False, **changes) -> Path:
  """Writes the checkpoint, with `changes` of its settings; returns the directory.

  sure: every proposal is a person, whatever the clip; otherwise none scores 0.7.
  """
  model = json.loads(json.dumps(micro_evad.MODEL))
  settings = {'model': model, 'clip': CLIP, 'classes': CLASSES} | changes
  params = micro_evad.random_parameters(micro_evad.micro_model())
  if sure:
    params['person_detector']['stage_0']['class_logits']['bias'][:] = 9, -9
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(step, {'params': params}, settings, {}, None)
  return directory
