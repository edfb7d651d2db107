"""What waits to be sent to one peer (sans-IO): bounded, cut into frames, urgent messages first.

Theory of operation. ``put`` takes messages; ``peek`` gives the bytes to send next, whole frames of about CHUNK_BYTES
together, big messages uncopied, and ``advance`` says how many of them went. Each time such a chunk is built, all
urgent messages go in first and then as much of the bulk as fits: so an urgent message waits for one chunk at most,
however large the bulk message that it overtakes.

Both queues have a limit. Bulk over its limit is refused, newest first, since what waits already is owed in order. Of
urgent messages the oldest are dropped: they report a state, and a newer report makes an older one useless.
"""

from __future__ import annotations

from collections import deque

from raftnode.buffers import Chunk, gathered
from raftnode.frames import FRAME_BYTES_MAX, HEAD_BYTES, Channel, frame, frame_head

CHUNK_BYTES = FRAME_BYTES_MAX + HEAD_BYTES
"""About how many bytes are handed to the network at once."""
URGENT_BYTES_MAX = 16 * 1024
"""A message larger than this is never urgent: it would be what the others wait for."""
APART_BYTES_MIN = 16 * 1024
"""Messages, and pieces of them, from this size on aren't copied to be sent together with others."""


class Outbox:
    """The messages that wait for one peer.

    Invariant: ``queued_bytes`` is the sum of the bytes of bulk messages not yet put into a chunk.
    """

    __slots__ = (
        "_bulk",
        "_bulk_bytes_max",
        "_chunk",
        "_cut_offset",
        "_urgent",
        "_urgent_count_max",
        "dropped_count",
        "queued_bytes",
    )

    def __init__(self, bulk_bytes_max: int, urgent_count_max: int) -> None:
        self._bulk_bytes_max = bulk_bytes_max
        self._urgent_count_max = urgent_count_max
        self._bulk: deque[bytes] = deque()
        self._urgent: deque[bytes] = deque()
        self._chunk: list[Chunk] = []
        """What ``peek`` last gave and ``advance`` has not yet counted as sent."""
        self._cut_offset = 0
        """How much of the first bulk message has gone into chunks."""
        self.queued_bytes = 0
        self.dropped_count = 0
        """How many messages were refused or dropped for want of room, ever."""

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to send."""
        return not (self._chunk or self._bulk or self._urgent)

    def has_room(self, size_bytes: int) -> bool:
        """Whether a bulk message of that size would be taken. One always is when no other waits."""
        return not self._bulk or self.queued_bytes + size_bytes <= self._bulk_bytes_max

    def put(self, message: bytes, *, urgent: bool = False) -> bool:
        """Queues a message; False if there was no room for it, and then it is counted as dropped.

        An urgent message larger than URGENT_BYTES_MAX is queued as bulk.
        """
        if urgent and len(message) <= URGENT_BYTES_MAX:
            if len(self._urgent) >= self._urgent_count_max:
                self._urgent.popleft()
                self.dropped_count += 1
            self._urgent.append(message)
            return True
        if not self.has_room(len(message)):
            self.dropped_count += 1
            return False
        self._bulk.append(message)
        self.queued_bytes += len(message)
        return True

    def put_unsent(self, rest: memoryview) -> None:
        """Takes the rest of frames that were sent in part without the outbox, which must be empty."""
        assert self.is_empty
        self._chunk = [rest]

    def peek(self) -> list[Chunk]:
        """The bytes to send next, in some parts, one behind the other; empty when there are none."""
        if not self._chunk and not self.is_empty:
            self._chunk = self._build_chunk()
        return self._chunk

    def advance(self, sent_bytes: int) -> None:
        """So many of the bytes that ``peek`` gave have gone."""
        rest = []
        for part in self._chunk:
            if sent_bytes < len(part):
                rest.append(memoryview(part)[sent_bytes:] if sent_bytes > 0 else part)
            sent_bytes -= len(part)
        self._chunk = rest

    def restart(self) -> None:
        """The connection is a new one: a message that was cut is sent again from its beginning."""
        self._chunk = []
        self.queued_bytes += self._cut_offset
        self._cut_offset = 0

    def clear(self) -> None:
        """Forgets everything that waits. What is forgotten is not counted as dropped."""
        self._chunk = []
        self._bulk.clear()
        self._urgent.clear()
        self._cut_offset = 0
        self.queued_bytes = 0

    def _build_chunk(self) -> list[Chunk]:
        parts: list[Chunk] = [frame(message, Channel.URGENT) for message in self._urgent]
        self._urgent.clear()
        room_bytes = CHUNK_BYTES - sum(map(len, parts))
        while self._bulk and room_bytes > HEAD_BYTES:
            message = self._bulk[0]
            rest_bytes = len(message) - self._cut_offset
            piece_bytes = min(rest_bytes, FRAME_BYTES_MAX)
            if parts and piece_bytes + HEAD_BYTES > room_bytes:
                break
            parts.append(frame_head(piece_bytes, Channel.BULK, more=piece_bytes < rest_bytes))
            if piece_bytes == len(message):
                parts.append(message)
            else:
                parts.append(memoryview(message)[self._cut_offset : self._cut_offset + piece_bytes])
            room_bytes -= piece_bytes + HEAD_BYTES
            self.queued_bytes -= piece_bytes
            if piece_bytes == rest_bytes:
                self._bulk.popleft()
                self._cut_offset = 0
            else:
                self._cut_offset += piece_bytes
        return gathered(parts, APART_BYTES_MIN)
