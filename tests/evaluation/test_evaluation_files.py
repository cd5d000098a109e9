"""The files of an evaluation give the same metrics in tools.score, to the last digit."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from configs import common
from evad_jax import command_line
from evad_jax.data.record_index import RecordIndex
from evad_jax.data.record_writer import write_dataset_metadata, write_split
from evad_jax.data.records import Record
from evad_jax.data.tube_index import TrueTube, write_tubes
from evad_jax.errors import InputError, exit_on_input_error
from evad_jax.evaluation import evaluate
from evad_jax.formats import detections_csv
from evad_jax.metrics import frame_map
from evad_jax.structures import Detections, Targets
from evad_jax.tools import score
from tests.evaluation.batches import collected

PROPOSALS, PEOPLE = 5, 3


def configuration(scoring='action', linking='greedy', **more):
  config = common.get_config()
  config.eval.update(scoring=scoring, linking=linking, **more)
  return config


def prepared(directory, split, classes, videos, stored, keyframes=None, **manifest):
  """A data set whose records have the boxes of `videos`: name -> (frames, [TrueTube]).

  stored: height and width of the frames. keyframes: (frames, tubes) -> their numbers; all frames.
  """
  records = []
  for name, (frames, tubes) in videos.items():
    rows = {}
    for tube in tubes:
      for frame, box in zip(tube.frames.tolist(), tube.boxes, strict=True):
        rows.setdefault((frame, *box.tolist()), np.zeros(len(classes), np.uint8))[tube.label] = 1
    numbers = np.arange(frames)
    chosen = numbers if keyframes is None else keyframes(frames, tubes)
    rows = {key: label for key, label in sorted(rows.items()) if key[0] in chosen}
    records.append(
      Record(
        *(name, 25.0, frames, *stored, [b'not decoded here'] * frames, numbers, chosen),
        np.array([key[1:] for key in rows], np.float32).reshape(-1, 4),
        np.searchsorted(chosen, [key[0] for key in rows]),
        np.array(list(rows.values()), np.uint8).reshape(-1, len(classes)),
      )
    )
  write_split(directory, 'toy', split, len(classes), 1, records)
  write_dataset_metadata(directory, 'toy', classes, manifest, clip_frames=4, frame_stride=2)
  return RecordIndex.open(directory, split)


def evaluated(index, videos, seed, noise, scoring):
  """The state after all examples: true boxes moved by `noise`, random boxes, many tied scores."""
  rng, num_classes = np.random.default_rng(seed), len(index.classes)
  count = len(index)
  boxes = np.sort(rng.random((count, PROPOSALS, 2, 2)), axis=2).reshape(count, PROPOSALS, 4)
  actions = rng.choice([0.1, 0.25, 0.5, 0.9], (count, PROPOSALS, num_classes))
  person = rng.choice([0.3, 0.7, 0.95], (count, PROPOSALS))
  targets = Targets(
    np.zeros((count, PEOPLE, 4), np.float32),
    np.zeros((count, PEOPLE, num_classes), np.float32),
    np.zeros((count, PEOPLE), bool),
  )
  for example, (video, frame) in enumerate(zip(index.videos, index.keyframes, strict=True)):
    people = {}
    for tube in videos[video][1]:
      for place in np.flatnonzero(tube.frames == frame):
        people.setdefault(tuple(tube.boxes[place].tolist()), []).append(tube.label)
    for person_number, (box, labels) in enumerate(sorted(people.items())):
      targets.boxes[example, person_number] = box
      targets.labels[example, person_number, labels] = 1
      targets.box_mask[example, person_number] = True
      boxes[example, person_number] = np.clip(box + rng.normal(0, noise, 4), 0, 1)
      actions[example, person_number, labels], person[example, person_number] = 0.9, 0.95
  detections = Detections(*(x.astype(np.float32) for x in (boxes, person, actions)))
  return collected(detections, targets, rng.permutation(count), scoring)


def scored(tmp_path, protocol, truth, *flags):
  out = tmp_path / 'out.json'
  words = ['--protocol', protocol, '--groundtruth', str(truth), '--json', str(out)]
  with exit_on_input_error():
    score.main([*words, '--detections', str(tmp_path / 'found.csv'), *flags])
  return json.loads(out.read_text())


# ---- AVA: ids of a label map with gaps

IDS = [3, 11, 27, 80]


@pytest.fixture
def ava(tmp_path):
  """Two videos of five keyframes, a second apart, and their ground truth as a file."""
  rng, videos, truth = np.random.default_rng(1), {}, []
  for name in ('one', 'two'):
    tubes = []
    for person in range(2):
      corner = rng.integers(0, 500, 2)
      box = np.array([*corner, *(corner + rng.integers(200, 500, 2))]) / 1000
      for label in rng.choice(len(IDS), 2, replace=False).tolist():
        frames = np.array([0, 30, 60, 90, 120])
        tubes.append(TrueTube(name, label, frames, np.tile(box.astype(np.float32), (5, 1))))
        place = ','.join(f'{x:.3f}' for x in box)
        truth += [f'{name},{900 + f // 30},{place},{IDS[label]},{person}' for f in frames]
    videos[name] = 121, tubes
  (tmp_path / 'truth.csv').write_text('\n'.join(truth) + '\n')
  entries = [f'item {{\n  name: "action {i}"\n  id: {i}\n}}' for i in IDS]
  (tmp_path / 'labels.pbtxt').write_text('\n'.join(entries))
  index = prepared(
    tmp_path / 'data',
    'val',
    [f'action {number}' for number in IDS],
    videos,
    (120, 160),
    keyframes=lambda frames, tubes: tubes[0].frames,
    class_ids=IDS,
    timestamp_origin=900,
    timestamp_rate=30,
  )
  return index, videos


@pytest.mark.parametrize('scoring', ['action', 'person_times_action'])
@pytest.mark.parametrize('most', [0, 3])
def test_ids_of_a_label_map_with_gaps(ava, tmp_path, scoring, most):
  index, videos = ava
  config = configuration(scoring, max_per_frame=most)
  state = evaluated(index, videos, 2, 0.05, scoring)
  result, video = evaluate.score(config, state, index)
  found = evaluate.scored_detections(config, state, index)
  detections_csv.write_detections(tmp_path / 'found.csv', found)
  assert video is None and 0.05 < result.mean_ap < 0.95
  flags = ['--labels', str(tmp_path / 'labels.pbtxt'), *(['--max-per-frame', '3'] * bool(most))]
  own = scored(tmp_path, 'ava', tmp_path / 'truth.csv', *flags)
  assert own['mAP@0.5'] == pytest.approx(result.mean_ap, abs=1e-12)
  expected = {f'action {i}': ap.value for i, ap in zip(IDS, result.per_class, strict=True)}
  for name, each in own['per_class'].items():
    value = np.nan if each['AP@0.5'] is None else each['AP@0.5']
    assert value == pytest.approx(expected[name], abs=1e-12, nan_ok=True)
  lines = (tmp_path / 'found.csv').read_text().splitlines()
  assert lines[0] == 'video,timestamp,x1,y1,x2,y2,action_id,score'
  assert {int(line.split(',')[6]) for line in lines[1:]} == set(IDS)
  assert {line.split(',')[1] for line in lines[1:]} == {f'0{second}' for second in range(900, 905)}


def test_some_classes_of_a_label_map_are_scored(ava, tmp_path):
  """Like the 60 of AVA's 80: the others are in the file and do not count."""
  index, videos = ava
  some = dataclasses.replace(index, scored_classes=['action 11', 'action 80'])
  state = evaluated(some, videos, 3, 0.05, 'action')
  result, _ = evaluate.score(configuration(), state, some)
  found = evaluate.scored_detections(configuration(), state, some)
  detections_csv.write_detections(tmp_path / 'found.csv', found)
  labels = tmp_path / 'scored.pbtxt'
  labels.write_text('item { name: "action 11" id: 11 }\nitem { name: "action 80" id: 80 }')
  own = scored(tmp_path, 'ava', tmp_path / 'truth.csv', '--labels', str(labels))
  assert own['mAP@0.5'] == pytest.approx(result.mean_ap, abs=1e-12)
  assert own['counts']['detections_of_unlisted_classes'] == len(found.videos) * 2


def test_score_cannot_mistake_what_was_written(ava, tmp_path, capsys):
  index, videos = ava
  state = evaluated(index, videos, 2, 0.05, 'action')
  found = evaluate.scored_detections(configuration(), state, index)
  detections_csv.write_detections(tmp_path / 'found.csv', found)
  (tmp_path / 'tubes.csv').write_text('one,1,0,0,9,9,0,0\n')
  with pytest.raises(SystemExit) as stop:
    scored(tmp_path, 'frame', tmp_path / 'tubes.csv')
  assert stop.value.code == 2
  assert 'found.csv: has the seconds and normalised boxes of AVA' in capsys.readouterr().err


# ---- Data sets with annotation files: pixels, frames from 1, labels from 0

CLASSES = ['catch', 'run']
STORED, ANNOTATED = (60, 80), (240, 320)  # stored smaller than annotated
# Name, frames, and tubes: label, first frame (from 0), length, box in pixels. The second video's
# action takes half of it, to the frame.
TUBES = {
  'run/a': (40, [(1, 5, 30, (37, 41, 111, 203)), (1, 0, 40, (201, 17, 283, 199))]),
  'run/b': (60, [(1, 20, 30, (37, 41, 111, 203))]),
  'catch/a': (50, [(0, 10, 40, (50, 60, 170, 230)), (1, 10, 20, (50, 60, 170, 230))]),
}


def own_tubes(name, entries):
  parts = [1 / 320, 1 / 240] * 2
  return [
    TrueTube(name, label, first + np.arange(length), np.tile(np.float32(parts) * box, (length, 1)))
    for label, first, length, box in entries
  ]


def annotation_pickle(path):
  def rows(first, length, box):
    return np.array([[first + 1 + i, *box] for i in range(length)], np.float32)

  content = {
    'labels': CLASSES,
    'gttubes': {name: {} for name in TUBES},
    'nframes': {name: frames for name, (frames, _) in TUBES.items()},
    'resolution': dict.fromkeys(TUBES, ANNOTATED),
    'train_videos': [[]],
    'test_videos': [list(TUBES)],
  }
  for name, (_, entries) in TUBES.items():
    for label, first, length, box in entries:
      content['gttubes'][name].setdefault(label, []).append(rows(first, length, box))
  path.write_bytes(pickle.dumps(content, protocol=2))
  return path


def videos_with_tubes():
  return {name: (TUBES[name][0], own_tubes(name, TUBES[name][1])) for name in sorted(TUBES)}


def own_data(directory, every_frame):
  """A prepared data set of every frame of the videos, or of the annotated ones alone."""
  videos = videos_with_tubes()

  def annotated(frames, tubes):
    return np.unique(np.concatenate([tube.frames for tube in tubes]))

  keyframes = None if every_frame else annotated
  index = prepared(directory, 'test', CLASSES, videos, STORED, keyframes=keyframes)
  tubes = [tube for _, some in videos.values() for tube in some]
  write_tubes(directory, 'test', tubes, trimmed=False, every_frame=every_frame)
  there = [
    frame in annotated(*videos[video])
    for video, frame in zip(index.videos.tolist(), index.keyframes.tolist(), strict=True)
  ]
  sizes = np.tile(ANNOTATED, (len(videos), 1))
  return dataclasses.replace(index, annotated=np.array(there), record_annotated_size=sizes), videos


@pytest.mark.parametrize('linking', ['greedy', 'viterbi', 'multisports'])
@pytest.mark.parametrize('scoring, noise', [('action', 0.0), ('person_times_action', 0.03)])
def test_frames_and_tubes_of_every_frame(tmp_path, scoring, noise, linking):
  """Without noise a tube over all of run/b has an overlap of exactly 0.5, which decides there."""
  index, videos = own_data(tmp_path / 'data', every_frame=True)
  config = configuration(scoring, linking)
  state = evaluated(index, videos, 4, noise, scoring)
  frames, video = evaluate.score(config, state, index)
  assert evaluate.video_note(index) == ''
  found = evaluate.scored_detections(config, state, index)
  detections_csv.write_detections(tmp_path / 'found.csv', found)
  truth = annotation_pickle(tmp_path / 'truth.pkl')
  own = scored(tmp_path, 'frame', truth)
  assert own['frame_mAP@0.5'] == pytest.approx(frames.mean_ap, abs=1e-12)
  assert own['counts']['frames'] == frames.num_frames == 40 + 30 + 40
  own = scored(tmp_path, 'video', truth, '--linking', linking)
  for figure in video.figures:
    assert own[f'video_mAP@{figure}'] == pytest.approx(video.mean_ap(figure), abs=1e-12), figure
  assert own['counts']['tubes'] == video.num_tubes > 0


def test_tubes_that_go_on_beyond_the_annotation_count(tmp_path):
  """A person is detected on all 60 frames of run/b, whose action lasts 30: an overlap of 0.5."""
  index, videos = own_data(tmp_path / 'data', every_frame=True)
  count, box = len(index), np.float32([37 / 320, 41 / 240, 111 / 320, 203 / 240])
  here = index.videos == 'run/b'
  detections = Detections(
    np.tile(box, (count, 1, 1)),
    np.where(here, 0.9, 0.1).astype(np.float32)[:, None],
    np.stack([np.zeros(count), np.where(here, 0.9, 0.0)], 1).astype(np.float32)[:, None],
  )
  nobody = Targets(np.zeros((count, 1, 4)), np.zeros((count, 1, 2)), np.zeros((count, 1), bool))
  state = collected(detections, nobody, np.arange(count))
  _, video = evaluate.score(configuration(), state, index)
  runs = {figure: aps[1] for figure, aps in video.figures.items()}
  assert (runs['0.2'].value, runs['0.5'].value, runs['0.75'].value) == (0.25, 0.25, 0.0)  # 1 of 4


def test_annotated_frames_alone_give_no_tubes_and_say_what_does(tmp_path):
  index, videos = own_data(tmp_path / 'data', every_frame=False)
  index = dataclasses.replace(index, prepare_command='python -m data_prep.toy --output d')
  state = evaluated(index, videos, 4, 0.0, 'action')
  frames, video = evaluate.score(configuration(), state, index)
  assert video is None and frames.num_frames == 110
  note = evaluate.video_note(index)
  assert '`python -m data_prep.toy --output d --every-test-frame --overwrite`' in note
  evaluation = evaluate.Evaluation(frames, None, None, [], CLASSES, note)
  assert evaluation.metrics()['note'] == note and evaluation.table().endswith(note)
  assert not any(name.startswith('video') for name in evaluation.metrics())


def test_frames_that_nobody_annotated_do_not_change_frame_map(tmp_path):
  every, videos = own_data(tmp_path / 'every', every_frame=True)
  some, _ = own_data(tmp_path / 'some', every_frame=False)
  state = evaluated(every, videos, 5, 0.02, 'action')
  frames, _ = evaluate.score(configuration(), state, every)
  places = list(zip(some.videos.tolist(), some.keyframes.tolist(), strict=True))
  here = zip(every.videos.tolist(), every.keyframes.tolist(), strict=True)
  number = {place: places.index(place) for place in here if place in places}
  chosen = frame_map.only(state, every.annotated_examples.tolist())
  keys = [number[(every.videos[i], every.keyframes[i])] for i in every.annotated_examples]
  assert keys == list(range(len(some)))
  expected = frame_map.compute(chosen, every.annotated_examples.tolist())
  assert frames.mean_ap == pytest.approx(expected.mean_ap, abs=1e-12)
  assert frames.person.num_detections == PROPOSALS * len(some)


# ---- JHMDB: three runs, one command


def test_three_runs_are_averaged_by_one_command(tmp_path, capsys):
  """The metrics are 1, 0 and 1 for splits whose only clip is found, missed, found."""
  box = (10, 20, 110, 220)
  tubes = {f'run/{i}': {1: [np.array([[f + 1, *box] for f in range(20)])]} for i in range(3)}
  content = {
    'labels': CLASSES,
    'gttubes': tubes,
    'nframes': dict.fromkeys(tubes, 20),
    'resolution': dict.fromkeys(tubes, ANNOTATED),
    'train_videos': [[]] * 3,
    'test_videos': [[name] for name in tubes],
  }
  (tmp_path / 'truth.pkl').write_bytes(pickle.dumps(content))
  for i, found in enumerate((True, False, True)):
    row = np.float32(box) / [320, 240, 320, 240] if found else np.float32([0.6, 0.1, 0.9, 0.3])
    detections = detections_csv.ScoredDetections(
      tuple('video frame x1 y1 x2 y2 label score'.split()),
      np.array([f'run/{i}'] * 20),
      np.arange(20) + 1,
      (np.tile(row, (20, 1)).astype(np.float64) * [320, 240, 320, 240]).round(3),
      np.arange(2),
      np.tile(np.float32([0.1, 0.9]), (20, 1)),
    )
    name = f'eval_test{i + 1}_detections.csv'
    detections_csv.write_detections(tmp_path / f'run{i + 1}' / name, detections)
  runs = [str(tmp_path / f'run{i}') for i in (1, 2, 3)]
  words = ['--groundtruth', str(tmp_path / 'truth.pkl'), '--split', '1', '2', '3']
  for protocol, key in (('frame', 'frame_mAP@0.5'), ('video', 'video_mAP@0.5')):
    out = tmp_path / f'{protocol}.json'
    score.main(['--protocol', protocol, *words, '--detections', *runs, '--json', str(out)])
    result = json.loads(out.read_text())
    assert [each[key] for each in result['splits']] == [1, 0, 1]
    assert result[key] == pytest.approx(2 / 3, abs=1e-15)
  with pytest.raises(SystemExit):
    command_line.run(score.main, ['--protocol', 'frame', *words, '--detections', *runs[::-1]])
  assert 'run3: eval_test1_detections.csv was looked for, but there are' in capsys.readouterr().err


def test_a_directory_without_an_evaluation(tmp_path):
  with pytest.raises(
    InputError, match='eval_test_detections.csv was looked for, .* none; evaluate'
  ):
    score._file_of(tmp_path)
