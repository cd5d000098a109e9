"""Malicious pickles are refused by name, within a second, whatever they ask for."""

import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from evad_jax.errors import InputError
from evad_jax.files.plain_pickle import load_plain_pickle

TEMPLATE = b'\x80\x02]q\x00.'  # an empty list, in the first memory cell


class Call:
  """Pickled as a function call, followed by a change of its result."""

  def __init__(self, function, *arguments, state=None):
    self.parts = (function, arguments) if state is None else (function, arguments, state)

  def __reduce__(self):
    return self.parts


def dtype(kind, **change):
  """A dtype as NumPy pickles it, with parts of its state changed by index."""
  make, arguments, state = np.dtype(kind).__reduce__()
  return Call(
    make, *arguments, state=tuple(change.get(f's{i}', part) for i, part in enumerate(state))
  )


def array(kind, shape, data):
  """An array as NumPy pickles it."""
  make = np.zeros(0).__reduce__()[0]
  return Call(make, np.ndarray, (0,), b'b', state=(1, shape, kind, False, data))


SECRET = ['an object of this process']
POINTER = struct.pack('<Q', id(SECRET))
FIELDS = np.dtype([('a', 'O')])
HOSTILE = {
  'ndarray of objects, called': (Call(np.ndarray, (1,), np.dtype('O'), POINTER), "dtype('O8')"),
  'ndarray of numbers, called': (Call(np.ndarray, (1,), np.dtype('f8'), POINTER), 'numpy.ndarray'),
  'array of objects': (np.array([{}, 'a'], object), "dtype('O8')"),
  'objects by the state of a number': (array(dtype('f8', s7=63), (1,), POINTER), 'fields or flags'),
  'fields': (np.zeros(2, [('a', 'f4'), ('b', 'i4')]), "dtype('V8')"),
  'fields without flags': (array(dtype(FIELDS, s7=0), (1,), POINTER), "dtype('V8')"),
  'fields of a number': (array(dtype('f8', s3=('a',)), (1,), POINTER), 'fields or flags'),
  'dates': (np.array(['2024-01-01'], 'M8[D]'), "dtype('M8"),
  'a number that is a pointer': (
    Call(np.float64(0).__reduce__()[0], np.dtype('O'), POINTER),
    "dtype('O8')",
  ),
  'shape beyond the bytes': (array(np.dtype('f8'), (10**12,), POINTER), 'shape (1000000000000,)'),
  'a side below 0': (array(np.dtype('f8'), (-1, -1), POINTER), 'shape (-1, -1)'),
  'no bytes, without end': (array(np.dtype('f8'), (10**18, 0), b''), 'numpy.ndarray of shape'),
  'text without letters': (array(np.dtype('U1'), (10**18, 0), b''), 'numpy.ndarray of shape'),
  'objects in a list': (array(np.dtype('f8'), (1,), [SECRET]), 'ndarray of objects'),
  'bytes by a number': (Call(bytes, 10**10), 'builtin__.bytes'),
  'bytearray by a number': (Call(bytearray, 10**10), 'builtin__.bytearray'),
  'list of a call': (Call(list, 'abc'), 'builtin__.list'),
  'int of a call': (Call(float, '1'), 'builtin__.float'),
  'a class': (float, 'builtin__.float'),
  'a huge number': (1 << 10_000, '64 bits'),
  'another array type': (np.matrix([[1]]), 'matrix'),
  'a function of numpy': (Call(np.load, 'x'), 'numpy.load'),
}


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize(('content', 'name'), HOSTILE.values(), ids=HOSTILE)
def test_refused_by_name(tmp_path, content, name, protocol):
  path = tmp_path / 'a.pkl'
  path.write_bytes(pickle.dumps({'x': content}, protocol))
  name = name if protocol == 2 else name.replace('builtin__', 'builtins')
  with pytest.raises(InputError, match='a.pkl: the pickle asks for ') as refused:
    load_plain_pickle(path)
  assert name in str(refused.value)


PROGRAMS = {
  'memory cell 2**31 - 1': (b'\x80\x02]r\xff\xff\xff\x7f.', 'memory cell 2147483647'),
  'memory cell in words': (b']p4000000000\n.', 'memory cell 4000000000'),
  'bytes of 2**60': (b'\x80\x04\x8e' + struct.pack('<Q', 2**60) + b'abc.', 'not a complete pickle'),
  'bytearray of 2**34': (b'\x80\x05\x96' + struct.pack('<Q', 2**34) + b'abc.', 'not a complete'),
  'a frame of 2**62': (b'\x80\x04\x95' + struct.pack('<Q', 2**62) + b'].', 'not a complete'),
  'an object of another file': (b'\x80\x02X\x01\x00\x00\x00aQ.', 'instruction BINPERSID'),
  'an instance': (b'(i__builtin__\nlist\n.', 'instruction INST'),
  'a change of a name': (b'cnumpy\nndarray\n(N}X\x01\x00\x00\x00aK\x01stb.', 'change of numpy'),
  'a list in itself': (b'\x80\x02]q\x00h\x00a.', 'the same parts again and again|deep'),
  'lists in lists': (b'\x80\x02' + b'](' * 2000 + b'e' * 2000 + b'.', 'lists in lists'),
  # Each of 25 lists has the one before it 10 times: 10**25 in all.
  'laughs': (
    b'\x80\x02' + b']q\x00' + b''.join(
      b']q' + bytes([i]) + b'(' + b'h' + bytes([i - 1]) + (b'h' + bytes([i - 1])) * 9 + b'e'
      for i in range(1, 26)
    ) + b'.',
    'the same parts again and again',
  ),
}  # fmt: skip


@pytest.mark.parametrize(('data', 'message'), PROGRAMS.values(), ids=PROGRAMS)
def test_programs_that_no_writer_wrote(tmp_path, data, message, within):
  (tmp_path / 'a.pkl').write_bytes(data)
  with within(1), pytest.raises(InputError, match=message):
    load_plain_pickle(tmp_path / 'a.pkl')


def test_an_array_that_a_thousand_names_share_is_not_multiplied(tmp_path):
  """100 kB that would become 100 MB of boxes is refused; one shared array is read."""
  rows = np.ones((2500, 5))
  for number, message in ((1000, 'again and again'), (1, None)):
    content = {str(i): rows for i in range(number)}
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content, 2))
    if message:
      with pytest.raises(InputError, match=message):
        load_plain_pickle(tmp_path / 'a.pkl')
    else:
      assert load_plain_pickle(tmp_path / 'a.pkl')['0'].sum() == 12500


def test_protocol_0_as_python_2_wrote_it(tmp_path):
  """By hand: text, a list, and an array of two numbers whose bytes are a Python 2 string."""
  program = (
    b"(dp0\nS'a'\np1\n(lp2\nI1\naF2.5\nasS'b'\np3\ncnumpy.core.multiarray\n_reconstruct\np4\n"
    b"(cnumpy\nndarray\np5\n(I0\ntp6\nS'b'\np7\ntp8\nRp9\n(I1\n(I2\ntp10\ncnumpy\ndtype\np11\n"
    b"(S'i2'\np12\nI0\nI1\ntp13\nRp14\n(I3\nS'<'\np15\nNNNI-1\nI-1\nI0\ntp16\nbI00\n"
    b"S'\\x05\\x00\\xff\\xff'\np17\ntp18\nbs."
  )
  (tmp_path / 'a.pkl').write_bytes(program)
  content = load_plain_pickle(tmp_path / 'a.pkl')
  assert content['a'] == [1, 2.5]
  assert content['b'].tolist() == [5, -1] and content['b'].dtype == np.int16


@pytest.mark.parametrize(
  'command',
  [
    ('evad_jax.tools.score', '--protocol', 'frame', '--detections', 'd.csv', '--groundtruth'),
    ('data_prep.jhmdb', '--frames', '.', '--output', 'o', '--annotations'),
  ],
)
def test_command_lines_answer_in_one_sentence(tmp_path, command):
  """Rows of a tube that are pointers to objects, which would crash the process."""
  rows = Call(np.ndarray, (1, 5), np.dtype('O'), b'\x41' * 40)
  content = {
    'labels': ['a'],
    'train_videos': [['v']],
    'test_videos': [['v']],
    'nframes': {'v': 3},
    'resolution': {'v': (240, 320)},
    'gttubes': {'v': {0: [rows]}},
  }
  (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content, 2))
  done = subprocess.run(
    [sys.executable, '-m', *command, str(tmp_path / 'a.pkl')],
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert "a.pkl: the pickle asks for numpy.dtype('O8')" in done.stderr
