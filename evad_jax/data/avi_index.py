"""The index of an AVI file, which tells the numbers of its packets where some have been lost.

AVI files state no times: the demuxer counts packets, so each one that it loses would make all after
it early.
"""

import av

HEAD = 8  # bytes of a chunk in front of its payload


class AviIndex:
  """Follows the packets of a stream."""

  def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
    """Empty for other containers, and where the index is lost, too."""
    entries = stream.index_entries if container.format.name == 'avi' else ()
    self._entries = [(entry.pos + HEAD, entry.size, entry.timestamp) for entry in entries]
    self._next = 0  # entry
    self._moved = 0  # bytes that are missing in front of what is read
    self._late = 0  # ticks

  def mend(self, packet: av.Packet) -> None:
    """Gives a packet, not an empty one, the time that the index has for it."""
    if not self._entries:
      return
    for place in range(self._next, len(self._entries)):
      at, size, time = self._entries[place]
      # Where bytes are gone, all behind them lie before the places that the index names.
      if size == packet.size and at >= packet.pos + self._moved:
        self._next, self._moved = place + 1, at - packet.pos
        self._late = time - packet.dts if packet.dts is not None else self._late
        break
    if self._late and packet.dts is not None:
      packet.dts += self._late
      if packet.pts is not None:
        packet.pts += self._late
