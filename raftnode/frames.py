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

_HEAD = Struct(">IBB")
HEAD_BYTES = _HEAD.size
_pack_head = _HEAD.pack
_unpack_head = _HEAD.unpack_from


class Channel(IntEnum):
    """Which of a connection's two streams of messages a frame belongs to."""

    BULK = 0
    URGENT = 1


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

    Invariants: between two calls, what is buffered is less than one frame plus, for each channel, less than
    ``message_bytes_max`` bytes, all of which have arrived.
    """

    __slots__ = ("_broken", "_buffer", "_pieces", "message_bytes_max")

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self.message_bytes_max = message_bytes_max
        self._buffer = bytearray()
        """The beginning of a frame whose end has not come."""
        self._pieces = {Channel.BULK: bytearray(), Channel.URGENT: bytearray()}
        """The pieces so far of each channel's unfinished message."""
        self._broken: str | None = None

    @property
    def is_between_messages(self) -> bool:
        """True when nothing has come of the next message."""
        return not self._buffer and not any(self._pieces.values())

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now, in order.

        Raises:
            BadFrame: on what is no frame, now and from then on.
        """
        if self._broken is not None:
            raise BadFrame(self._broken)
        try:
            return self._feed(data)
        except BadFrame as why:
            self._broken = str(why)
            raise

    def _feed(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        offset = 0
        if self._buffer:
            offset = self._complete_buffered(data, messages)
            if self._buffer:
                return messages
        end = len(data)
        while end - offset >= HEAD_BYTES:
            size_bytes, channel, more = _unpack_head(data, offset)
            if more or channel or size_bytes > self.message_bytes_max or size_bytes > FRAME_BYTES_MAX:
                self._check_head(size_bytes, channel, more)
            start = offset + HEAD_BYTES
            stop = start + size_bytes
            if stop > end:
                break
            pieces = self._pieces[channel]
            if more:
                pieces += data[start:stop]
            elif pieces:
                messages.append(self._join(channel, data[start:stop]))
            else:
                messages.append(data[start:stop])
            offset = stop
        if offset < end:
            self._buffer += memoryview(data)[offset:]
        return messages

    def _complete_buffered(self, data: bytes, messages: list[bytes]) -> int:
        """Takes from ``data`` what the buffered frame lacks; where the rest begins."""
        buffer = self._buffer
        offset = 0
        if len(buffer) < HEAD_BYTES:
            offset = HEAD_BYTES - len(buffer)
            buffer += data[:offset]
            if len(buffer) < HEAD_BYTES:
                return len(data)
        size_bytes: int
        size_bytes, channel, more = _unpack_head(buffer)
        self._check_head(size_bytes, channel, more)
        lacking_bytes = HEAD_BYTES + size_bytes - len(buffer)
        buffer += memoryview(data)[offset : offset + lacking_bytes]
        if len(buffer) < HEAD_BYTES + size_bytes:
            return len(data)
        with memoryview(buffer) as view:
            if more:
                self._pieces[channel] += view[HEAD_BYTES:]
            else:
                messages.append(self._join(channel, view[HEAD_BYTES:]))
        self._buffer = bytearray()
        return offset + lacking_bytes

    def _join(self, channel: Channel, last_piece: bytes | memoryview) -> bytes:
        pieces = self._pieces[channel]
        if not pieces:
            return bytes(last_piece)
        message = b"".join((pieces, last_piece))
        self._pieces[channel] = bytearray()
        return message

    def _check_head(self, size_bytes: int, channel: int, more: int) -> None:
        if channel not in self._pieces or more > 1:
            raise BadFrame(f"no such channel or flag: {channel}, {more}")
        if size_bytes > FRAME_BYTES_MAX:
            raise BadFrame(f"a frame of {size_bytes} bytes, more than {FRAME_BYTES_MAX}")
        if more and not size_bytes:
            raise BadFrame("an empty piece with more to follow")
        total_bytes = len(self._pieces[Channel(channel)]) + size_bytes
        if total_bytes > self.message_bytes_max:
            raise BadFrame(f"a message of {total_bytes} bytes or more, the limit is {self.message_bytes_max}")
