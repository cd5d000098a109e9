"""Every reader of external files, with good files for it, to be corrupted."""

import contextlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from configs import common
from data_prep.common.splits import choose_splits
from evad_jax.checkpoints.manager import Checkpoints, newest_settings
from evad_jax.data import example_proto, tfrecord, tube_index
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.records import RecordReader
from evad_jax.errors import InputError
from evad_jax.formats import ava_files, class_lists, detections_csv, ground_truth, video_lists
from evad_jax.formats.annotations import read_annotations
from evad_jax.formats.problems import Problems
from evad_jax.inference.detector import Detector
from evad_jax.published import architectures, weight_files, weight_settings
from evad_jax.settings import config_rules, from_config
from evad_jax.tools import score
from tests import micro_checkpoint, micro_evad, published_sources
from tests.data import toy_records
from tests.formats.one_tube import act_content, pyannot_entry
from tests.mutations import as_json, wrong_arrays, wrong_bytes, wrong_content

ACT = act_content()
OWN = {
  'classes': ['walk', 'wave'],
  'fps': 25,
  'videos': {
    'a': {
      'split': 'test',
      'width': 80,
      'height': 40,
      'num_frames': 9,
      'tubes': [{'labels': ['walk', 'wave'], 'start': 2, 'boxes': [[1, 2, 30, 20]] * 3}],
      'boxes': [{'frame': 7, 'box': [5, 5, 9, 9], 'labels': ['wave']}, {'time': 0.3, 'labels': []}],
    },
    'b': {'file': 'x/b.mp4', 'normalised': True, 'boxes': []},
  },
}
AVA = b'v,0902,0.1,0.2,0.3,0.4,12,0\nv,0903\n"w, 2",904,0.1,0.2,0.3,0.4,3,1\n'
AVA_FOUND = b'video,timestamp,x1,y1,x2,y2,action_id,score\nv,0902,0.1,0.2,0.3,0.4,12,0.5\n'
TUBES = b'v,1,1,2,30,40,0,a\nv,2,1,2,31,40,0,a\nw,1,5,5,9,9,1,b\n'
FOUND = b'v,1,1,2,30,40,0,0.9\nv,2,1,2,31,41,0,0.8\nw,1,5,5,9,9,1,0.5\n'
LABELS = b'item {\n  name: "stand"\n  id: 3\n}\nlabel { name: "sit (a chair)" label_id: 12 }\n'
LIST = b'Diving/v_Diving_g01_c01.avi 6\nv_2\n'
CFG = 'VIT:\n  KEEP_RATE: 0.7\n  ENHANCED_WEIGHT: 1\nDETECTION: {ROI_EXTENSION: [0.4, 0.2]}\n'


def act_as_json():
  tubes = {
    n: {str(k): [r.tolist() for r in v] for k, v in t.items()} for n, t in ACT['gttubes'].items()
  }
  return ACT | {'gttubes': tubes, 'resolution': {n: list(s) for n, s in ACT['resolution'].items()}}


def pickles(content):
  """Corrupted bytes, or the pickle of corrupted content."""
  protocols = (0, 2, 4)
  whole = [pickle.dumps(content, protocol) for protocol in protocols]  # not the same every time
  return st.one_of(
    st.tuples(wrong_content(content), st.sampled_from(protocols)).map(
      lambda made: pickle.dumps(*made)
    ),
    st.sampled_from(whole).flatmap(wrong_bytes),
  )  # fmt: skip


def jsons(content):
  return st.one_of(wrong_content(content).map(as_json), wrong_bytes(as_json(content)))


class Place:
  """A directory of files to read, of which one at a time is corrupted."""

  def __init__(self, root: Path):
    self.root = root
    root.mkdir(exist_ok=True)
    self.data = root / 'data'
    toy_records.write_toy(self.data, [toy_records.make_record(video) for video in range(4)])
    tubes = [
      tube_index.TrueTube(f'video_{i}', i % 3, np.array([1, 4, 6]), np.eye(3, 4, dtype=np.float32))
      for i in range(3)
    ]
    tube_index.write_tubes(self.data, 'train', tubes, True)
    micro_checkpoint.write(root / 'checkpoint')
    (root / 'truth.csv').write_bytes(TUBES)
    (root / 'found.csv').write_bytes(FOUND)
    (root / 'ava.csv').write_bytes(AVA)
    (root / 'ava_found.csv').write_bytes(AVA_FOUND)
    (root / 'labels.pbtxt').write_bytes(LABELS)
    published_sources.write(root / 'x.safetensors', published_sources.detector(), CFG)

  @contextlib.contextmanager
  def with_wrong(self, path: Path, data: bytes):
    """Inside the block the file holds other bytes, and its checkpoint has no seal."""
    seal = self.root / 'checkpoint' / '0' / 'crc32c.json'
    kept = {p: p.read_bytes() for p in (path, seal) if p.exists()}
    try:
      seal.unlink(missing_ok=True)
      path.write_bytes(data)
      yield path
    finally:
      for each in (path, seal):
        each.unlink(missing_ok=True)
      for each, content in kept.items():
        each.write_bytes(content)


@contextlib.contextmanager
def quiet():
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    yield


def open_index(place):
  index = RecordIndex.open(place.data, 'train')
  reader = RecordReader(index)
  try:
    for number in range(len(index)):
      reader[number]
    for number in range(len(index.record_shard)):
      reader.read_record(number)
  finally:
    reader.close()
  tube_index.read_tubes(index)


def open_weights(path):
  source = weight_files.read(path)
  kind, own = weight_settings.read_own(path, source.cfg)
  kind = kind or architectures.recognise(source)
  told = {'depth': 4, 'prune_blocks': (1, 2)}
  if not own and kind == 'detector':
    weight_settings.detector_settings(path, source.cfg, {}, told)
  architectures.understand(source, kind, own | published_sources.UNTOLD)


def open_checkpoint(directory):
  newest_settings(directory)
  with Checkpoints(directory, read_only=True) as checkpoints:
    checkpoints.best_step()
    checkpoints.settings(0)
    with contextlib.suppress(InputError):
      checkpoints.position(0)
  Detector.from_checkpoint(directory)


def score_files(place, protocol, **changed):
  names = {'groundtruth': 'truth.csv', 'detections': 'found.csv'}
  flags = ['--protocol', protocol]
  if protocol == 'ava':
    names = {'groundtruth': 'ava.csv', 'detections': 'ava_found.csv', 'labels': 'labels.pbtxt'}
  for flag, name in names.items():
    flags += [f'--{flag}', str(changed.get(flag, place.root / name))]
  score.run(score._parser().parse_args(flags))


def check_config(values):
  config = common.get_config()
  config.model.update(micro_evad.MODEL)
  config.clip.update(canvases=((32, 32),), short_side=32, max_boxes=3)
  with config.unlocked(), config.ignore_type():
    for (section, key), value in values.items():
      if section:
        config[section][key] = value
      else:
        config[key] = value
  config_rules.check(config)
  model = from_config.make_model(config)
  from_config.clip_settings(config)
  model.block_keep_rates()


def config_values():
  keys = [('', key) for key in config_rules.TOP]
  keys += [(name, key) for name, rules in config_rules.SECTIONS.items() for key in rules]
  from tests.mutations import STRANGE

  values = st.sampled_from([value for value in STRANGE if not isinstance(value, dict)])
  return st.dictionaries(st.sampled_from(keys), values, min_size=1, max_size=2)


def wrong_record(place):
  """The first record with other contents, its offset and length, and its shard."""
  index = RecordIndex.open(place.data, 'train')
  data = place.data.joinpath(index.shard_path(0).name).read_bytes()
  start, length = int(index.record_offset[0]), int(index.record_length[0])
  message = data[start + tfrecord.HEADER_BYTES :][:length]
  features = example_proto.Example.FromString(message).features.feature
  names = sorted(features)

  @st.composite
  def made(draw):
    if draw(st.booleans()):
      changed = draw(wrong_bytes(message))
    else:
      example = example_proto.Example.FromString(message)
      feature = example.features.feature[draw(st.sampled_from(names))]
      kind = feature.WhichOneof('kind')
      values = getattr(feature, kind).value
      how = draw(st.sampled_from(('clear', 'twice', 'other', 'kind')))
      if how == 'clear':
        del values[:]
      elif how == 'twice':
        values.extend(list(values))
      elif how == 'kind':
        feature.float_list.value.extend([1.0, float('nan')])
      elif kind == 'int64_list':
        values[0] = draw(st.sampled_from((-1, 0, 7, 2**40, 2**63 - 1)))
      elif kind == 'float_list':
        values[0] = draw(st.sampled_from((-1.0, float('nan'), float('inf'), 2.0)))
      else:
        values[0] = draw(wrong_bytes(values[0]))
      changed = example.SerializeToString()
    return changed

  return index, data, start, length, made()


def readers(place):
  """Name -> a strategy for corrupted content, and the call that reads it."""
  root, data, step = place.root, place.data, place.root / 'checkpoint' / '0'

  def at(path, read):
    def call(content):
      with place.with_wrong(path, content):
        read(path)

    return call

  manifest = json.loads((data / 'manifest.json').read_text())
  settings_of = json.loads((step / 'settings' / 'metadata').read_text())
  seal = json.loads((step / 'crc32c.json').read_text())
  weights = (root / 'x.safetensors').read_bytes()
  header = int.from_bytes(weights[:8], 'little')
  own = json.dumps(weight_settings.own_text('detector', {'depth': 4, 'width': 32}))
  texts = st.one_of(
    wrong_bytes(CFG.encode()).map(lambda text: text.decode('utf-8', 'replace')),
    wrong_content(json.loads(own)).map(json.dumps),
    st.sampled_from(
      [
        'a0: &a0 {x: 1}\n'
        + ''.join(f'a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}\n' for i in range(1, 40)),
        'a: &a\n  b: *a\n',
        'a: &a {b: 1}\nc: {<<: [*a, *a]}\n',
        'KEEP_RATE: 2024-99-99',
        '!!binary x',
        'a: 1:1:1:1',
        '? [1]\n: 2',
        'KEEP_RATE: [[[1]]]',
        '%YAML 9.9\n---\na',
        'a: ' + '9' * 5000,
      ]
    ),
  )

  def with_text(text):
    with place.with_wrong(root / 'y.safetensors', b''):
      published_sources.write(root / 'y.safetensors', published_sources.detector(), text)
      open_weights(root / 'y.safetensors')

  def with_record(message):
    index, shard, start, length, _ = record
    whole = tfrecord.header(message) + message + tfrecord.footer(message)
    end = start + tfrecord.HEADER_BYTES + length + tfrecord.FOOTER_BYTES
    moved = len(whole) - (end - start)
    columns = dict(np.load(data / 'index-train.npz'))
    mine = columns['record_shard'] == 0
    columns['record_offset'] += moved * (mine & (columns['record_offset'] > start))
    columns['record_length'][0] = len(message)
    columns['record_crc'][0] = tfrecord.masked_crc(message)
    columns['shard_bytes'][0] += moved
    made = io.BytesIO()
    np.savez(made, **columns)
    path = index.shard_path(0)
    with place.with_wrong(path, shard[:start] + whole + shard[end:]):
      with place.with_wrong(data / 'index-train.npz', made.getvalue()):
        open_index(place)

  record = wrong_record(place)
  files = sorted(
    path for path in (step / 'state').rglob('*') if path.is_file() and path.stat().st_size
  )
  state = st.sampled_from(files).flatmap(
    lambda path: wrong_bytes(path.read_bytes()).map(lambda made: (path, made))
  )

  def with_state(pair):
    with place.with_wrong(*pair):
      open_checkpoint(step.parent)

  def with_seal(content):
    with place.with_wrong(step / 'x', b''):  # removes the seal, and restores it
      (step / 'crc32c.json').write_bytes(content)
      open_checkpoint(step.parent)

  def index(_):
    open_index(place)

  def checkpoint(_):
    open_checkpoint(step.parent)

  def prepare(path):
    read_annotations(path, Problems())

  def lists(path):
    annotations = read_annotations(root / 'act.json')
    video_lists.read(path, annotations.videos)
    choose_splits(str(path), None, annotations, ('Diving',), str(path))

  (root / 'act.json').write_bytes(as_json(act_as_json()))
  pyannot = {'Diving/v': pyannot_entry()}
  return {
    'pickles to score': (pickles(ACT), at(root / 'a.pkl', ground_truth.read)),
    'pickles to prepare': (pickles(pyannot), at(root / 'a.pkl', prepare)),
    'JSON of own data': (jsons(OWN), at(root / 'a.json', prepare)),
    'JSON to score': (jsons(OWN), at(root / 'a.json', ground_truth.read)),
    'JSON of ACT': (jsons(act_as_json()), at(root / 'a.json', ground_truth.read)),
    'JSON of ACT to prepare': (jsons(act_as_json()), at(root / 'a.json', prepare)),
    'csv of AVA': (wrong_bytes(AVA), at(root / 'b.csv', ava_files.read_truth)),
    'csv of exclusions': (
      wrong_bytes(b'v,0902\nw,3\n'),
      at(root / 'b.csv', ava_files.read_exclusions),
    ),
    'csv of detections': (
      wrong_bytes(AVA_FOUND),
      at(root / 'b.csv', detections_csv.read_with_lines),
    ),
    'csv to score, AVA': (
      wrong_bytes(AVA),
      at(root / 'b.csv', lambda p: score_files(place, 'ava', groundtruth=p)),
    ),
    'csv to score, frames': (
      wrong_bytes(TUBES),
      at(root / 'b.csv', lambda p: score_files(place, 'frame', groundtruth=p)),
    ),
    'csv to score, videos': (
      wrong_bytes(FOUND),
      at(root / 'b.csv', lambda p: score_files(place, 'video', detections=p)),
    ),
    'label maps': (wrong_bytes(LABELS), at(root / 'b.pbtxt', class_lists.read)),
    'lists of videos': (wrong_bytes(LIST), at(root / 'b.txt', lists)),
    'manifests': (jsons(manifest), at(data / 'manifest.json', index)),
    'indices': (
      wrong_arrays((data / 'index-train.npz').read_bytes()),
      at(data / 'index-train.npz', index),
    ),
    'tubes': (
      wrong_arrays((data / 'tubes-train.npz').read_bytes()),
      at(data / 'tubes-train.npz', index),
    ),
    'records': (record[-1], with_record),
    'safetensors, header': (
      wrong_bytes(weights[: 8 + header]).map(lambda made: made + weights[8 + header :]),
      at(root / 'z.safetensors', open_weights),
    ),
    'safetensors, text': (texts, with_text),
    'settings of checkpoints': (jsons(settings_of), at(step / 'settings' / 'metadata', checkpoint)),
    'seals of checkpoints': (jsons(seal), with_seal),
    'figures of checkpoints': (
      jsons({'frame_mAP@0.5': 0.5}),
      at(step / 'metrics' / 'metrics', checkpoint),
    ),
    'state of checkpoints': (state, with_state),
    'configurations': (config_values(), check_config),
  }
