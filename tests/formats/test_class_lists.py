"""Lists of classes: names by position, label maps from 0, from 1, with gaps; names given twice."""

import pytest

from evad_jax.errors import InputError
from evad_jax.formats import class_lists


def written(tmp_path, text):
  (tmp_path / 'labels').write_text(text, encoding='utf-8')
  return tmp_path / 'labels'


def label_map(*ids):
  return ''.join(f'item {{\n  name: "action {number}"\n  id: {number}\n}}\n' for number in ids)


@pytest.mark.parametrize(
  ('ids', 'num_actions', 'class_ids', 'expected'),
  [
    ((0, 1, 2), 3, None, '0 1 2'),
    ((1, 2, 3), 3, None, '1 2 3'),
    ((80, 3, 27), 3, None, '3 27 80'),  # with gaps, not in order
    ((1, 3), 3, None, '1 2 3'),  # some of them
    ((0, 2), 3, None, '0 1 2'),
    ((3, 80), 3, [3, 27, 80], '3 27 80'),  # the model knows its ids
    ((0, 1, 2), 3, [1, 2, 3], '0 1 2'),  # the same list, counted from 0
  ],
)
def test_label_maps_for_a_model(tmp_path, ids, num_actions, class_ids, expected):
  names = class_lists.read(written(tmp_path, label_map(*ids)))
  found = class_lists.of_model(names, num_actions, class_ids)
  assert found == [f'action {number}' for number in expected.split()]


@pytest.mark.parametrize(
  ('names', 'class_ids', 'message'),
  [
    (['a', 'b'], None, '2 class names were given, but the checkpoint has 3 actions'),
    ({5: 'a', 9: 'b'}, None, '2 class names'),
    ({4: 'a'}, [3, 27, 80], r'1 class names .* 3 actions, of ids \[3, 27, 80\]'),
    ({1: 'a', 2: 'b', 3: 'c', 4: 'd'}, None, '4 class names'),
  ],
)
def test_names_that_do_not_suit_a_model(names, class_ids, message):
  with pytest.raises(InputError, match=message):
    class_lists.of_model(names, 3, class_ids)


def test_names_a_line(tmp_path):
  path = written(tmp_path, '\ufeffsit\n\n geh\u00fcpft \nrun\r\n')
  assert class_lists.read(path) == class_lists.by_label(path) == ['sit', 'geh\u00fcpft', 'run']
  path.write_bytes('g\xe4hnen\n'.encode('latin1'))
  with pytest.raises(InputError, match='labels is not UTF-8'):
    class_lists.read(path)


def test_labels_from_0(tmp_path):
  for ids in ((0, 1), (1, 2)):
    assert class_lists.by_label(written(tmp_path, label_map(*ids))) == [f'action {i}' for i in ids]
  with pytest.raises(InputError, match='must be consecutive, and start at 0 or 1'):
    class_lists.by_label(written(tmp_path, label_map(1, 3)))


def test_names_given_twice():
  assert class_lists.distinct(['a', 'b', 'a'], [2, 5, 9]) == ['a (2)', 'b', 'a (9)']
  assert class_lists.of_model(['a', 'a'], 2) == ['a (0)', 'a (1)']
  assert class_lists.of_model(['a', 'a'], 2, [3, 7]) == ['a (3)', 'a (7)']
  found = class_lists.distinct(['a', 'a', 'a (1)'], [0, 1, 2])  # a name that looks like a made one
  assert len(set(found)) == 3 and class_lists.distinct(found, [0, 1, 2]) == found
