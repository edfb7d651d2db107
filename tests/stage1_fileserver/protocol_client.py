"""A client of the line protocol over any Trio stream, for tests."""

from __future__ import annotations

import socket
from typing import Final

import trio

_SIZE_FIELDS: Final = {b"CONTENTS": 2, b"LIST": 1, b"STATUS": 1, b"HELP": 1}
"""Where the size stands in the replies that have a content."""


class ProtocolClient:
    """Sends requests, takes replies."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream: Final = stream
        self._received = bytearray()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def ask(self, data: bytes) -> bytes:
        """Send one request and give its reply."""
        await self.send(data)
        return await self.reply()

    async def reply(self) -> bytes:
        """Give the next reply, content line included; empty at the end of the stream."""
        line = await self._take_line()
        words = line.split()
        if not words or words[0] not in _SIZE_FIELDS:
            return line
        size = int(words[_SIZE_FIELDS[words[0]]]) + 2
        while len(self._received) < size:
            if not await self._receive():
                raise AssertionError("the stream ended within a content")
        content = bytes(self._received[:size])
        del self._received[:size]
        return line + content

    async def replies(self, count: int) -> list[bytes]:
        """Give the next replies."""
        return [await self.reply() for _ in range(count)]

    async def ends(self) -> bool:
        """Wait for the end of the stream; True if nothing came before it."""
        while await self._receive():
            pass
        return not self._received

    async def end(self) -> None:
        """Send nothing more."""
        assert isinstance(self.stream, trio.abc.HalfCloseableStream)
        await self.stream.send_eof()

    async def _take_line(self) -> bytes:
        while (end := self._received.find(b"\n") + 1) == 0:
            if not await self._receive():
                assert not self._received, "the stream ended within a line"
                return b""
        line = bytes(self._received[:end])
        del self._received[:end]
        return line

    async def _receive(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return False
        self._received += data
        return bool(data)


_connected: Final[list[ProtocolClient]] = []


async def connect(port: int, receive_buffer_bytes: int | None = None) -> ProtocolClient:
    """Connect to a server on this machine, if wished with a small receive buffer."""
    client = trio.socket.socket()
    if receive_buffer_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    try:
        await client.connect(("127.0.0.1", port))
    except OSError:
        client.close()
        raise
    _connected.append(ProtocolClient(trio.SocketStream(client)))
    return _connected[-1]


async def close_clients() -> None:
    """Close every client that a test has connected."""
    while _connected:
        await trio.aclose_forcefully(_connected.pop().stream)
