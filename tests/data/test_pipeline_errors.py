"""How the stream of batches reports unusable input: in threads and in worker processes."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evad_jax.data.pipeline import eval_batches, train_batches
from evad_jax.errors import InputError
from tests.damage import flip_bit
from tests.data.toy_records import SETTINGS, make_record, write_toy

ROOT = Path(__file__).resolve().parents[2]


def _first_batch(index):
  with train_batches(index, SETTINGS, seed=1, batch_size=4) as batches:
    next(batches)


def test_too_many_boxes(index):
  settings = dataclasses.replace(SETTINGS, max_boxes=1)
  message = "video 'video_0': keyframe 11 has 2 boxes, more than 1; raise config.clip.max_boxes to"
  with pytest.raises(InputError, match=message), eval_batches(index, settings, batch_size=4) as b:
    list(b)


@pytest.mark.parametrize('batches', [train_batches, eval_batches])
def test_refused_before_the_first_batch(index, batches):
  seed = {'seed': 0} if batches is train_batches else {}
  small = dataclasses.replace(SETTINGS, short_side=24, canvases=((24, 48),))  # upright: 48
  with pytest.raises(
    InputError, match=r'a picture of 48 x 24, larger than every canvas \(24 x 48\)'
  ):
    batches(index, small, batch_size=4, **seed)
  with pytest.raises(InputError, match='batch size 5 cannot be shared equally by 2 processes'):
    batches(index, SETTINGS, batch_size=5, process_count=2, **seed)


def test_an_empty_split(tmp_path):
  index = write_toy(tmp_path, [])
  with pytest.raises(InputError, match="split 'train' has no examples; prepare it with `python"):
    _first_batch(index)


def test_a_frame_that_is_not_stored(tmp_path):
  index = write_toy(tmp_path, [make_record(1, frames=[1, 3, 5])])  # keyframe 5 needs 1, 3, 5, 7
  with pytest.raises(InputError, match="video 'video_1': frame 7 of a clip is not stored"):
    _first_batch(index)


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
  record = make_record(1)
  record.frames[3] = record.frames[3][:-20]
  return write_toy(tmp_path_factory.mktemp('damaged'), [record])


def test_a_corrupt_frame_in_a_thread(damaged):
  batches = train_batches(damaged, SETTINGS, seed=0, batch_size=1)
  with pytest.raises(InputError, match="video 'video_1': the JPEG of frame 3 is corrupt"):
    next(batches)
  batches.close()  # closed already; closing twice is harmless
  assert list(batches) == []


def test_a_damaged_shard_in_a_thread(tmp_path):
  index = write_toy(tmp_path, [make_record(1)])
  shard = index.shard_path(0)
  flip_bit(shard)
  with pytest.raises(InputError, match='tfrecord-00000-of-00002'):
    _first_batch(index)
  shard.write_bytes(shard.read_bytes()[:-20])
  with pytest.raises(InputError, match='tfrecord-00000-of-00002'):
    _first_batch(index)


SCRIPT = """
import sys
from evad_jax.data.pipeline import ClipSettings, eval_batches
from evad_jax.data.record_index import RecordIndex
from evad_jax.errors import exit_on_input_error
if __name__ == '__main__':
  settings = ClipSettings(4, 2, ((32, 48),), None, 3)
  with exit_on_input_error():
    index = RecordIndex.open(sys.argv[1], 'train')
    with eval_batches(index, settings, batch_size=1, workers=1) as batches:
      list(batches)
"""


def test_a_command_line_says_what_its_worker_process_met(damaged, tmp_path):
  """A script run as __main__, no absl flags parsed: status 2 and the one sentence."""
  script = tmp_path / 'script.py'
  script.write_text(SCRIPT)
  done = subprocess.run(
    [sys.executable, script, damaged.directory],
    capture_output=True,
    text=True,
    timeout=600,
    env={'PYTHONPATH': str(ROOT), 'PATH': ''},
  )
  assert done.returncode == 2, done.stderr
  assert re.fullmatch(
    r"error: video 'video_1': the JPEG of frame 3 is corrupt \(.+\); "
    'extract the frames of this video and prepare the data again\n',
    done.stderr,
  )


def test_making_clips_imports_no_accelerator_library():
  command = (
    "import sys, evad_jax.data.clips; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
  )
  subprocess.run([sys.executable, '-c', command], check=True, cwd=ROOT)
