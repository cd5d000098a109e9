"""The index of an AVI file: restores the times of packets after others have been lost.

AVI files state no times: the demuxer counts packets, so each lost packet would make all later ones
early.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import av

TAIL = 64 << 20  # bytes at the end of a file to search for the index: four million packets


class Entry(NamedTuple):
  """A packet as the index lists it."""

  place: int  # byte offset in the file, from some origin
  size: int  # bytes
  time: int  # ticks


class AviIndex:
  """Follows the packets of a stream."""

  def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
    """Empty for other containers, and if the index is lost."""
    self._entries: list[Entry] = []
    if container.format.name == 'avi':
      entries = [Entry(entry.pos, entry.size, entry.timestamp) for entry in stream.index_entries]
      if len(entries) < stream.frames:  # only packets read so far: the index is misplaced
        # The prefix keeps FFmpeg from taking a name's colon for the end of a protocol.
        entries = _at_the_end(container.name.removeprefix('file:'), stream.index)
      self._entries = entries
    self._next = 0  # entry
    self._moved: int | None = None  # from a packet's offset to its entry's
    self._late = 0  # ticks

  def mend(self, packet: av.Packet) -> bool:
    """Gives a non-empty packet the time that the index has for it.

    Returns whether packets before it are missing.
    """
    if not self._entries or packet.dts is None or packet.pos is None:
      return False
    late = self._late
    for number in range(self._next, len(self._entries)):
      place, size, time = self._entries[number]
      # Where bytes are missing, everything after them lies earlier than the index says.
      if size == packet.size and (self._moved is None or place >= packet.pos + self._moved):
        self._next, self._moved = number + 1, place - packet.pos
        self._late = time - packet.dts
        break
    packet.dts += self._late
    if packet.pts is not None:
      packet.pts += self._late
    return self._late > late


def _at_the_end(path: str, stream: int) -> list[Entry]:
  """The index if it is not at the byte that the header names."""
  if not Path(path).is_file():
    return []
  with open(path, 'rb') as file:
    file.seek(max(0, Path(path).stat().st_size - TAIL))
    tail = file.read()
  start = tail.rfind(b'idx1') + 8
  length = len(tail) - start
  if start < 8 or length < 16:
    return []
  entries = struct.iter_unpack('<4sIII', tail[start : start + length // 16 * 16])
  own = (b'%02ddc' % stream, b'%02ddb' % stream)
  listed = [(place, size) for name, _, place, size in entries if name in own]
  return [Entry(place, size, time) for time, (place, size) in enumerate(listed)]
