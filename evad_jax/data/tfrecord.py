"""The TFRecord container, written and read without TensorFlow.

A record is a little-endian uint64 length, the masked crc32c of those eight bytes, the data, and the
masked crc32c of the data. The container is TensorFlow's (see its `lib/io/record_writer.h`).
"""

import os
import struct
from pathlib import Path

import google_crc32c

from evad_jax.errors import InputError

HEADER_BYTES = 12  # length and its checksum
FOOTER_BYTES = 4  # the data's checksum
_HEADER, _FOOTER = struct.Struct('<QI'), struct.Struct('<I')


def masked_crc(data: bytes) -> int:
  """crc32c, rotated right by 15 bits, plus a constant: safe where the data contain checksums."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def header(data: bytes) -> bytes:
  """The 12 bytes before the data."""
  length = struct.pack('<Q', len(data))
  return length + struct.pack('<I', masked_crc(length))


def footer(data: bytes) -> bytes:
  """The 4 bytes after the data."""
  return _FOOTER.pack(masked_crc(data))


def read_record(descriptor: int, path: Path, offset: int, length: int, crc: int) -> bytes:
  """Reads the data of one record of an open file and verifies every checksum.

  Args:
    descriptor: of the shard, open for reading; its file position is neither used nor moved.
    path: of the shard, for messages.
    offset: of the record's header in the file, in bytes.
    length, crc: of the data, from the index (crc masked).

  Raises:
    InputError: the file ends early, a checksum differs, or the index describes another record.
  """
  head = os.pread(descriptor, HEADER_BYTES, offset)
  data = os.pread(descriptor, length, offset + HEADER_BYTES)
  foot = os.pread(descriptor, FOOTER_BYTES, offset + HEADER_BYTES + length)
  if len(head) + len(data) + len(foot) < HEADER_BYTES + length + FOOTER_BYTES:
    raise _damaged(path, offset, 'the file ends inside it')
  stored_length, length_crc = _HEADER.unpack(head)
  if masked_crc(head[:8]) != length_crc:
    raise _damaged(path, offset, 'the checksum of its length is wrong')
  (data_crc,) = _FOOTER.unpack(foot)
  if stored_length != length or data_crc != crc:
    raise _damaged(path, offset, 'it is not the record that the index describes')
  if masked_crc(data) != data_crc:
    raise _damaged(path, offset, 'the checksum of its data is wrong')
  return data


def _damaged(path: Path, offset: int, what: str) -> InputError:
  return InputError(
    f'{path}: the record at byte {offset} is damaged ({what}); copy or prepare the data set again'
  )
