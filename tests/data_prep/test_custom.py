"""Custom data: the format, how faults in it are reported, and what happens to the rest."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import custom
from evad_jax.data.records import RecordIndex, RecordReader
from evad_jax.errors import InputError
from evad_jax.formats.annotations import read_annotations
from evad_jax.formats.problems import Problems
from evad_jax.video.jpeg import encode_frame
from tests import external
from tests.sample_annotations import in_act_layout
from tests.video.tiny_videos import UNEVEN, break_metadata, level, write_video

SHARED = external.DATA
HALF = [0.25, 0.25, 0.75, 0.75]


def example() -> dict:
  """The file in the docstring of the module."""
  text = custom.__doc__
  return json.loads(text[text.index('  {') : text.index('\n  }') + 4])


def save(path: Path, content) -> str:
  path.write_text(json.dumps(content))
  return str(path)


def one_video(**entry) -> dict:
  return {'classes': ['run', 'sit', 'wave'], 'videos': {'v': entry}}


def test_the_example_of_the_documentation_is_prepared(tmp_path):
  write_video(tmp_path / 'cams' / 'kitchen_01.mp4', 20)
  write_video(tmp_path / 'deeper' / 'kitchen_02.mp4', 50, rate=25)
  path, output = save(tmp_path / 'kitchen.json', example()), tmp_path / 'out'
  custom.main(['--annotations', path, '--output', str(output)])
  problems = json.loads((output / 'manifest.json').read_text())['problem_counts']
  assert problems == {'empty keyframe': 1}
  train = RecordReader(RecordIndex.open(output, 'train'))
  assert train.index.classes == ['walk', 'wave', 'pour']
  assert train.index.keyframes.tolist() == [12, 13] and train[1].video == 'kitchen_01'
  size = [1280, 720, 1280, 720]
  np.testing.assert_allclose(train[1].boxes, [np.array([404, 90, 566, 702]) / size], atol=1e-6)
  assert train[1].labels.tolist() == [[1, 1, 0]]
  test = RecordReader(RecordIndex.open(output, 'test'))
  assert test.index.keyframes.tolist() == [15, 45]  # 0.5 and 1.5 s, at 30 a second
  assert test[0].boxes.tolist() == [pytest.approx([0.25, 0.1, 0.5, 0.9])]
  assert test[0].labels.tolist() == [[0, 0, 1]]
  assert test[1].boxes.shape == (0, 4) and test[1].num_frames == 60
  # Frame 15 is half a second after the start, when picture 12 of 25 a second is on the screen.
  position = test[0].frame_numbers.tolist().index(15)
  picture = simplejpeg.decode_jpeg(test[0].frames[position])
  assert abs(picture.mean() - level(12)) < 2.4


def test_the_documents_show_a_file_that_can_be_read(tmp_path):
  page = (Path(__file__).resolve().parents[2] / 'docs' / 'data.md').read_text()
  block = re.search(r'```json\n(.*?)```', page, re.DOTALL)[1]
  annotations = read_annotations(save(tmp_path / 'a.json', json.loads(block)))
  assert sum(len(v.tubes) + len(v.single_boxes) for v in annotations.videos.values()) > 1


def test_what_the_reader_gives_against_a_table(tmp_path):
  entry = {
    'num_frames': 9,
    'width': 64,
    'height': 48,
    'split': 'val',
    'fps': 10,
    'tubes': [{'labels': ['wave', 'run'], 'start': 3, 'boxes': [[1, 2, 3, 4], [5, 6, 7, 8]]}],
    'boxes': [
      {'time': 0.25, 'box': [0, 0, 8, 8], 'labels': ['sit']},
      {'frame': 7, 'labels': []},
    ],
  }
  annotations = read_annotations(save(tmp_path / 'a.json', one_video(**entry)))
  assert annotations.classes == ('run', 'sit', 'wave')
  assert annotations.splits == {'val': ['v']}
  assert annotations.train_videos is None and annotations.test_videos is None
  video = annotations.videos['v']
  assert (video.num_frames, video.height, video.width, video.fps) == (9, 48, 64, 10)
  assert [(t.label, t.frames.tolist()) for t in video.tubes] == [(2, [3, 4]), (0, [3, 4])]
  assert video.tubes[1].boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
  (single,) = video.single_boxes
  assert (single.label, single.frames.tolist()) == (1, [3])  # 2.5 rounds up
  assert single.boxes.tolist() == [[0, 0, 8, 8]] and video.empty_frames.tolist() == [7]


TUBE = {'labels': ['run'], 'start': 0, 'boxes': [[0, 0, 1, 1]]}
BOX = {'labels': ['run'], 'frame': 0, 'box': [0, 0, 1, 1]}


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    ({'tubes': [TUBE | {'labels': ['walk']}]}, "v: unknown label: 'walk' is not in"),
    ({'tubes': [TUBE, TUBE | {'start': -1}]}, r'tubes\[1\]: "start" is -1'),
    ({'tubes': [TUBE | {'boxes': [[0, 0, 1, 1], [0, 0, 1]]}]}, r'tubes\[0\]: boxes\[1\] is not'),
    ({'tubes': [TUBE | {'boxes': 3}]}, r'tubes\[0\]: "boxes" is not a list'),
    ({'tubes': [TUBE | {'lables': []}]}, r"tubes\[0\]: it has the unknown key 'lables'"),
    ({'tubes': [TUBE | {'labels': []}]}, r'tubes\[0\]: "labels" is empty'),
    ({'boxes': [BOX | {'time': 1}]}, r'boxes\[0\]: it needs either "frame" or "time"'),
    ({'boxes': [BOX | {'box': [0, 0, float('nan'), 1]}]}, r'boxes\[0\]: "box" is not'),
    ({'boxes': [BOX, {'labels': ['run'], 'time': 1, 'box': HALF}]}, '"fps" must say'),
    ({'width': 64}, 'width is given alone'),
    ({'width': 64, 'height': 64, 'normalised': True}, 'not both'),
    ({'split': 'Test'}, '"split" \'Test\' is not a lower-case word'),
    ({'speed': 3}, "unknown key 'speed'"),
  ],
)
def test_a_fault_names_its_place_and_the_rest_is_read(tmp_path, entry, message):
  content = one_video(**entry)
  content['videos']['good'] = {'tubes': [TUBE]}
  path, problems = save(tmp_path / 'a.json', content), Problems()
  with pytest.raises(InputError, match=f'a.json: .*{message}'):
    read_annotations(path)
  annotations = read_annotations(path, problems)
  assert len(annotations.videos['good'].tubes) == 1
  assert [entry['name'] for entry in problems.entries] == ['v']
  assert re.search(message, 'v: {kind}: {detail}'.format(**problems.entries[0]))


def test_a_file_of_which_no_video_can_be_used_is_no_other_file(tmp_path, capsys):
  (tmp_path / 'a.json').write_text('{"classes": ["a"], "videos": {"v": {"split": "Test"}}}')
  with pytest.raises(InputError, match='a.json: none of its videos can be used; correct the prob'):
    custom.main(['--annotations', str(tmp_path / 'a.json'), '--output', str(tmp_path / 'o')])
  assert 'problem: v: bad annotation: "split"' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"classes": ["a"]', 'is not JSON'),
    ('[]', 'the file is not an object'),
    ('{"videos": {}}', '"classes" is not a list'),
    ('{"classes": ["a", "a"], "videos": {}}', 'has a name twice'),
    ('{"classes": ["a"], "videos": {"v": {}, "v": {}}}', "'v' occurs twice"),
    ('{"classes": ["a"], "videos": []}', '"videos" is not an object'),
    ('{"labels": ["a"], "videos": {"v": {}}}', "unknown key 'labels' .* shows how it must look"),
    ('{"gttubes": {"v": {}}}', 'shows how JSON must look'),
  ],
)
def test_other_files_are_refused(tmp_path, text, message):
  (tmp_path / 'a.json').write_text(text)
  with pytest.raises(InputError, match=message):
    read_annotations(tmp_path / 'a.json', Problems())
  with pytest.raises(InputError, match='cannot be read'):
    read_annotations(tmp_path / 'missing.json')


@pytest.mark.skipif(not SHARED.is_dir(), reason=external.missing(SHARED))
@pytest.mark.parametrize(
  ('sample', 'pickled'),
  [('ucf24_mini', 'UCF24mini-GT.pkl'), ('jhmdb_mini', 'JHMDBmini-GT.pkl')],
)
def test_the_samples_in_json_are_those_in_pickles(tmp_path, sample, pickled):
  source = SHARED / sample / 'annotations.json'
  one = read_annotations(in_act_layout(source, tmp_path / 'a.json'))
  two = read_annotations(SHARED / sample / pickled)
  assert one.classes == two.classes and one.videos.keys() == two.videos.keys()
  for lists, others in zip(one[2:4], two[2:4], strict=True):
    assert [sorted(names) for names in lists] == [sorted(names) for names in others]
  for name in one.videos:
    assert one.videos[name][:3] == two.videos[name][:3]
    tubes = [
      sorted((t.label, t.frames.tolist(), t.boxes.tolist()) for t in v.videos[name].tubes)
      for v in (one, two)
    ]
    assert tubes[0] == tubes[1]


# Bad data


def tube(start: int, count: int, label: str = 'run', box=HALF) -> dict:
  return {'labels': [label], 'start': start, 'boxes': [box] * count}


FAULTS = {  # video -> the kind of problem, and its entry; each also has one good box on frame 2
  'unreadable': ('undecodable video', {}),
  'metadata': ('broken metadata', {}),
  'zero_frames': ('header without frame count', {}),
  'uneven': ('variable frame rate', {}),
  'beyond': ('annotation beyond the end', {'tubes': [tube(2, 1), tube(8, 5)]}),
  'twice': ('duplicate row', {'tubes': [tube(2, 1), tube(2, 1)]}),
  'label': ('unknown label', {'tubes': [tube(2, 1), tube(3, 1, 'fly')]}),
  'empty': (
    'empty keyframe',
    {'boxes': [{'frame': 2, 'box': HALF, 'labels': ['run']}, {'frame': 4, 'labels': []}]},
  ),
  'missing': ('missing video', {}),
  'outside': ('box outside the frame', {'tubes': [tube(2, 1, box=[-1, 0.25, 0.5, 0.75])]}),
  'no_area': ('box without area', {'tubes': [tube(2, 1), tube(3, 1, box=[0.5, 0, 0.5, 1])]}),
  'length': ('other number of frames', {'num_frames': 12}),
  'pictures': ('unreadable frame', {'file': 'pictures', 'tubes': [tube(2, 1), tube(9, 1)]}),
  'nothing': ('no usable box', {'tubes': []}),
}
LOST = {'unreadable', 'missing', 'nothing'}


@pytest.fixture(scope='module')
def faulty(tmp_path_factory) -> Path:
  """A directory with a video for each fault, and annotations.json."""
  root = tmp_path_factory.mktemp('faulty')
  for name in FAULTS.keys() - {'unreadable', 'missing', 'pictures'}:
    suffix = {'metadata': 'avi', 'zero_frames': 'mkv'}.get(name, 'mp4')
    write_video(
      root / f'{name}.{suffix}',
      10,
      times=UNEVEN if name == 'uneven' else None,
      options={'live': '1'} if name == 'zero_frames' else None,
      metadata={'title': 'cafebar'} if name == 'metadata' else None,
    )
  break_metadata(root / 'metadata.avi')
  (root / 'unreadable.mp4').write_bytes(b'\0\0\0 ftypisom nonsense')
  (root / 'pictures').mkdir()
  for number in range(1, 11):
    data = encode_frame(np.full((64, 96, 3), level(number - 1), np.uint8), None, 95)
    (root / 'pictures' / f'{number:05d}.jpg').write_bytes(data[: len(data) // (1 + (number == 9))])
  videos = {'good': {'split': 'train', 'normalised': True, 'tubes': [tube(0, 10)]}}
  write_video(root / 'good.mp4', 10)
  for name, (_, entry) in FAULTS.items():
    base = {'split': 'train', 'normalised': True, 'tubes': [tube(2, 1)] * ('boxes' not in entry)}
    videos[name] = base | entry
  save(root / 'annotations.json', {'classes': ['run', 'sit'], 'videos': videos})
  return root


def test_every_fault_is_told_by_name_and_the_rest_is_prepared(faulty, tmp_path, capsys):
  flags = ['--clip-frames', '4', '--frame-stride', '1']
  command = ['--annotations', str(faulty / 'annotations.json'), '--output', str(tmp_path / 'out')]
  custom.main([*command, *flags])
  manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
  told = {(problem['name'], problem['kind']) for problem in manifest['problems']}
  assert told == {(name, kind) for name, (kind, _) in FAULTS.items()}
  assert sum(manifest['problem_counts'].values()) == len(FAULTS)
  assert manifest['missing_videos'] == ['missing']
  errors = capsys.readouterr().err
  assert all(f'problem: {name}: {kind}:' in errors for name, kind in told)
  index = RecordIndex.open(tmp_path / 'out', 'train')
  got = {name: index.keyframes[index.videos == name].tolist() for name in ('good', *FAULTS)}
  expected = {name: [] if name in LOST else [2] for name in FAULTS}
  # Of `beyond`, 8 and 9 exist; of `pictures`, the clip of 9 needs the picture 8, which is cut.
  assert got == expected | {'good': list(range(10)), 'beyond': [2, 8, 9]}
  boxes = {
    example.video: example.boxes.tolist()
    for example in map(RecordReader(index).__getitem__, range(len(index)))
  }
  assert boxes['outside'] == [[0, 0.25, 0.5, 0.75]]
  with pytest.raises(InputError, match='--strict stops at the first problem'):
    custom.main([*command[:-1], str(tmp_path / 'strict'), '--strict'])


def test_frames_where_nobody_is_are_kept_where_one_is_tested(faulty, tmp_path):
  content = json.loads((faulty / 'annotations.json').read_text())
  content['videos'] = {
    'good': content['videos']['good'],
    'empty': content['videos']['empty'] | {'split': 'test'},
  }
  path = save(tmp_path / 'a.json', content)
  command = ['--annotations', path, '--videos', str(faulty), '--output', str(tmp_path / 'out')]
  custom.main(command)
  reader = RecordReader(RecordIndex.open(tmp_path / 'out', 'test'))
  assert reader.index.keyframes.tolist() == [2, 4]
  assert reader[0].boxes.tolist() == [HALF] and reader[1].boxes.shape == (0, 4)


def test_boxes_in_the_videos_own_pixels(tmp_path):
  """Without a size, boxes are pixels of the video: 96 x 64."""
  write_video(tmp_path / 'v.mp4', 5)
  entry = {'tubes': [tube(1, 1, 'run', [24, 16, 72, 48])]}
  path = save(tmp_path / 'a.json', one_video(**entry))
  custom.main(['--annotations', path, '--output', str(tmp_path / 'out'), '--short-side', '32'])
  example = RecordReader(RecordIndex.open(tmp_path / 'out', 'train'))[0]
  assert example.boxes.tolist() == [HALF] and (example.height, example.width) == (32, 48)
