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

FRAME_BYTES_MAX = 256 * 1024
"""Most bytes in one piece."""
MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""Most bytes in one message, unless a decoder or an outbox is told otherwise."""

_CHUNKS_MAX = 64
"""In so many chunks a frame's beginning is kept at most."""

_HEAD = Struct(">IBB")
HEAD_BYTES = _HEAD.size
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

    Chunks are kept as they came and joined once, when the rest is there, so nothing is copied more often than that.

    Invariants: between two calls, what is kept is less than one frame plus, for each channel, less than
    ``message_bytes_max`` bytes, all of which have arrived.
    """

    __slots__ = (
        "_body",
        "_broken",
        "_channel",
        "_head",
        "_lacking_bytes",
        "_more",
        "_pieces",
        "_pieces_bytes",
        "message_bytes_max",
    )

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self.message_bytes_max = message_bytes_max
        self._head = b""
        """The beginning of a head whose end has not come."""
        self._lacking_bytes = 0
        """How much has not come of a frame of which the head has; 0 if there is none."""
        self._channel = 0
        self._more = 0
        """What that head says."""
        self._body: list[bytes | memoryview] = []
        """What has come of that frame."""
        self._pieces: dict[int, list[bytes]] = {Channel.BULK: [], Channel.URGENT: []}
        """What has come, in chunks, of the whole pieces of each channel's unfinished message."""
        self._pieces_bytes = dict.fromkeys(self._pieces, 0)
        self._broken: str | None = None

    @property
    def is_between_messages(self) -> bool:
        """True when nothing has come of the next message."""
        return not self._head and not self._lacking_bytes and not any(self._pieces.values())

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The messages that are complete now, in order. ``data`` may be changed afterwards.

        Raises:
            BadFrame: on what is no frame, now and from then on.
        """
        if self._broken is not None:
            raise BadFrame(self._broken)
        messages: list[bytes] = []
        offset = 0
        if self._lacking_bytes:
            offset = self._complete_body(data, messages)
        elif self._head:
            # Seldom: a head has been cut, and so there are only a few bytes of it.
            data = b"".join((self._head, data))
            self._head = b""
        end = len(data)
        while end - offset >= HEAD_BYTES:
            size_bytes, channel, more = _unpack_head(data, offset)
            if (
                more
                or channel > _LAST_CHANNEL
                or size_bytes > self.message_bytes_max
                or size_bytes > FRAME_BYTES_MAX
                or self._pieces[channel]
            ):
                self._check_head(size_bytes, channel, more)
            start = offset + HEAD_BYTES
            offset = start + size_bytes
            if offset > end:
                self._channel, self._more = channel, more
                self._lacking_bytes = offset - end
                self._body.append(bytes(data[start:end]))
                return messages
            if more or self._pieces[channel]:
                self._add_piece([data[start:offset]], channel, more, messages)
            else:
                messages.append(bytes(data[start:offset]))
        if offset < end:
            self._head = bytes(data[offset:end])
        return messages

    def _complete_body(self, data: bytes | memoryview, messages: list[bytes]) -> int:
        """Takes from ``data`` what the unfinished frame lacks; where the rest begins."""
        body = self._body
        lacking_bytes = self._lacking_bytes
        if len(data) < lacking_bytes:
            if len(body) == _CHUNKS_MAX:
                body[:] = [b"".join(body)]
            body.append(bytes(data))
            self._lacking_bytes -= len(data)
            return len(data)
        body.append(data[:lacking_bytes])
        self._lacking_bytes = 0
        self._add_piece(body, self._channel, self._more, messages)
        body.clear()
        return lacking_bytes

    def _add_piece(self, chunks: list[bytes | memoryview], channel: int, more: int, messages: list[bytes]) -> None:
        """A piece is whole, in chunks, and with it perhaps its message."""
        pieces = self._pieces[channel]
        if more:
            pieces += map(bytes, chunks)
            self._pieces_bytes[channel] += sum(map(len, chunks))
        else:
            messages.append(b"".join((*pieces, *chunks)))
            pieces.clear()
            self._pieces_bytes[channel] = 0

    def _check_head(self, size_bytes: int, channel: int, more: int) -> None:
        if channel not in self._pieces or more > 1:
            raise self._break(f"no such channel or flag: {channel}, {more}")
        if size_bytes > FRAME_BYTES_MAX:
            raise self._break(f"a frame of {size_bytes} bytes, more than {FRAME_BYTES_MAX}")
        if more and not size_bytes:
            raise self._break("an empty piece with more to follow")
        total_bytes = self._pieces_bytes[channel] + size_bytes
        if total_bytes > self.message_bytes_max:
            raise self._break(f"a message of {total_bytes} bytes or more, the limit is {self.message_bytes_max}")

    def _break(self, why: str) -> BadFrame:
        """What to raise now; the same is raised from now on."""
        self._broken = why
        return BadFrame(why)
