"""Messages cut into frames on a byte stream, and put together again (sans-IO).

Theory of operation. A frame is a head of six bytes (length of the piece, channel, whether more pieces of the message
follow) and a piece of at most FRAME_BYTES_MAX bytes. A message up to that size is one frame; a larger one is several
on the same channel, in order. There are two channels, so that a heartbeat (URGENT) passes between the pieces of a
message of many megabytes (BULK). Within a channel messages keep their order; between channels they don't.

:class:`FrameDecoder` takes what has arrived in chunks of any size. It holds no more than has arrived: a length is
compared with the limits before anything is kept for it. Whoever sends what is no frame gets BadFrame, and the rest
of that stream means nothing any more.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from raftnode.buffers import Chunk

FRAME_BYTES_MAX = 1024 * 1024
"""Most bytes in one piece: nearly every message is one, and none waits long behind one."""
MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""Most bytes in one message, unless a decoder or an outbox is told otherwise."""

_HEAD = Struct(">IBB")
HEAD_BYTES = _HEAD.size
ROOM_BYTES_MIN = 4096
"""A decoder has room for that much more at any time."""
VIEW_BYTES_MIN = 16 * 1024
"""A message of so many bytes is given as a view of where it lies: to copy a smaller one costs less than it saves."""
_BUFFER_BYTES_MIN = 2 * ROOM_BYTES_MIN
_BUFFER_BYTES_MAX = 2 * (HEAD_BYTES + FRAME_BYTES_MAX)
"""Room for the beginning of a frame, and for as much again."""
_pack_head = _HEAD.pack
_unpack_head = _HEAD.unpack_from


class Channel(IntEnum):
    """Which of a connection's two streams of messages a frame belongs to."""

    BULK = 0
    URGENT = 1


_LAST_CHANNEL = int(max(Channel))


class BadFrame(ValueError):
    """The other side sent what is no frame, or a message over the limit."""


def frame_head(size_bytes: int, channel: Channel, *, more: bool) -> bytes:
    """The head for a piece of that size; ``more``: further pieces of the same message follow."""
    return _pack_head(size_bytes, channel, more)


def parse_head(data: bytes, offset: int) -> tuple[int, int, int]:
    """Size of the piece, channel and ``more`` of the head that stands there, unchecked; for who looks on."""
    size_bytes, channel, more = _unpack_head(data, offset)
    return size_bytes, channel, more


def frame(message: bytes, channel: Channel = Channel.BULK) -> bytes:
    """A message of at most FRAME_BYTES_MAX bytes, as its one frame."""
    return _pack_head(len(message), channel, 0) + message


class FrameDecoder:
    """From chunks of a stream to messages.

    What arrives is put into a buffer of the decoder's own (:meth:`room`), and messages are taken from where they lie
    there: big ones are views, which nobody has copied.

    Invariants: between two calls, what is kept is less than one frame plus, for each channel, less than
    ``message_bytes_max`` bytes, all of which have arrived. What has come of a frame stands in a row.
    """

    __slots__ = (
        "_broken",
        "_buffer",
        "_end",
        "_start",
        "_unfinished",
        "_unfinished_bytes",
        "_view",
        "message_bytes_max",
    )

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self.message_bytes_max = message_bytes_max
        self._take_buffer(_BUFFER_BYTES_MIN)
        self._start = 0
        """Where what has come of the next frame begins in the buffer."""
        self._end = 0
        self._unfinished: dict[int, list[bytes]] = {Channel.BULK: [], Channel.URGENT: []}
        """The whole pieces of each channel's unfinished message."""
        self._unfinished_bytes = dict.fromkeys(self._unfinished, 0)
        self._broken: str | None = None

    @property
    def is_between_messages(self) -> bool:
        """True when nothing has come of the next message."""
        return self._start == self._end and not any(self._unfinished.values())

    def room(self) -> memoryview:
        """Where what arrives next is to be put, `ROOM_BYTES_MIN` at least. It may be where messages were, as views."""
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._end < ROOM_BYTES_MIN:
            rest = self._view[self._start : self._end]
            if len(self._buffer) < _BUFFER_BYTES_MAX:
                self._take_buffer(_BUFFER_BYTES_MAX)
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._view[self._end :]

    def received(self, size_bytes: int) -> list[Chunk]:
        """So much has been put into the room: the messages that are complete now, in order. Views hold till `room`.

        Raises:
            BadFrame: on what is no frame, now and from then on.
        """
        if self._broken is not None:
            raise BadFrame(self._broken)
        end = self._end = self._end + size_bytes
        view = self._view
        messages: list[Chunk] = []
        while end - self._start >= HEAD_BYTES:
            piece_bytes, channel, more = _unpack_head(view, self._start)
            if (
                more
                or channel > _LAST_CHANNEL
                or piece_bytes > self.message_bytes_max
                or piece_bytes > FRAME_BYTES_MAX
                or self._unfinished[channel]
            ):
                self._check_head(piece_bytes, channel, more)
            begin = self._start + HEAD_BYTES
            if begin + piece_bytes > end:
                break
            self._start = begin + piece_bytes
            piece = view[begin : self._start]
            if more:
                self._unfinished[channel].append(bytes(piece))
                self._unfinished_bytes[channel] += piece_bytes
            elif self._unfinished[channel]:
                messages.append(b"".join((*self._unfinished[channel], piece)))
                self._unfinished[channel].clear()
                self._unfinished_bytes[channel] = 0
            else:
                messages.append(piece if piece_bytes >= VIEW_BYTES_MIN else bytes(piece))
        return messages

    def feed(self, data: Chunk) -> list[bytes]:
        """The messages that are complete with these bytes, in order.

        Raises:
            BadFrame: on what is no frame, now and from then on.
        """
        messages: list[bytes] = []
        left = memoryview(data)
        while True:
            room = self.room()
            taken = left[: len(room)]
            room[: len(taken)] = taken
            messages += map(bytes, self.received(len(taken)))
            left = left[len(taken) :]
            if not left:
                return messages

    def _take_buffer(self, size_bytes: int) -> None:
        self._buffer = bytearray(size_bytes)
        self._view = memoryview(self._buffer)

    def _check_head(self, size_bytes: int, channel: int, more: int) -> None:
        if channel not in self._unfinished or more > 1:
            raise self._break(f"no such channel or flag: {channel}, {more}")
        if size_bytes > FRAME_BYTES_MAX:
            raise self._break(f"a frame of {size_bytes} bytes, more than {FRAME_BYTES_MAX}")
        if more and not size_bytes:
            raise self._break("an empty piece with more to follow")
        total_bytes = self._unfinished_bytes[channel] + size_bytes
        if total_bytes > self.message_bytes_max:
            raise self._break(f"a message of {total_bytes} bytes or more, the limit is {self.message_bytes_max}")

    def _break(self, why: str) -> BadFrame:
        """What to raise now; the same is raised from now on."""
        self._broken = why
        return BadFrame(why)
