"""A client of the line protocol for these tests. It shares no code with the product, whose bugs it would hide."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

_SIZE_FIELDS: Final = {b"CONTENTS": 2, b"LIST": 1, b"STATUS": 1, b"HELP": 1}
"""Where the size stands in the replies that have a content."""
ANSWER_SECONDS: Final = 60.0
"""No test waits longer than that for a reply: beyond it the server has forgotten the request."""
NOT_FOUND: Final = b"ERR_FILE_NOT_FOUND\r\n"
_OK: Final = re.compile(rb"OK (\d+)\r\n")


class Refused(AssertionError):
    """A request that had to work got an error; the text is the reply."""


@attrs.frozen(slots=True)
class File:
    """What a read or a stat says. A stat leaves the content empty."""

    version: int
    size_bytes: int
    seconds_left: int
    content: bytes = b""


class LineClient:
    """Sends requests, takes replies."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream: Final = stream
        self._received = bytearray()

    # Bytes

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def ask(self, data: bytes) -> bytes:
        """Send one request and give its reply, with its content line where it has one."""
        await self.send(data)
        return await self.reply()

    async def reply(self) -> bytes:
        """Give the next reply; b"" when the server has closed the connection instead."""
        with trio.fail_after(ANSWER_SECONDS):
            line = await self._take_line()
            words = line.split()
            if not words or words[0] not in _SIZE_FIELDS:
                return line
            size = int(words[_SIZE_FIELDS[words[0]]]) + 2
            while len(self._received) < size:
                if not await self._receive():
                    raise AssertionError("the connection ended within a content")
            content = bytes(memoryview(self._received)[:size])
            del self._received[:size]
            return line + content

    async def replies(self, count: int) -> list[bytes]:
        """Give that many replies."""
        return [await self.reply() for _ in range(count)]

    async def is_closed(self) -> bool:
        """Wait for the server to close the connection; False if it sends something instead."""
        with trio.fail_after(ANSWER_SECONDS):
            return not self._received and not await self._receive()

    async def _take_line(self) -> bytes:
        while (end := self._received.find(b"\n") + 1) == 0:
            if not await self._receive():
                assert not self._received, f"the connection ended within a line: {bytes(self._received)!r}"
                return b""
        line = bytes(self._received[:end])
        del self._received[:end]
        return line

    async def _receive(self) -> bool:
        try:
            data = await self.stream.receive_some(1 << 18)
        except trio.BrokenResourceError:
            return False
        self._received += data
        return bool(data)

    # Requests that have to work

    async def write(self, name: str, content: bytes, exptime: int | None = None) -> int:
        """Write a file; gives its version."""
        return version_in(await self.ask(change("write", name, content, exptime)))

    async def append(self, name: str, content: bytes) -> int:
        """Add to a file; gives its version."""
        return version_in(await self.ask(change("append", name, content)))

    async def delete(self, name: str) -> None:
        """Delete a file."""
        reply = await self.ask(f"delete {name}\r\n".encode())
        if reply != b"OK\r\n":
            raise Refused(reply)

    async def read(self, name: str) -> File | None:
        """Read a file; None if there is none."""
        reply = await self.ask(f"read {name}\r\n".encode())
        if reply == NOT_FOUND:
            return None
        line, _, content_line = reply.partition(b"\r\n")
        if not line.startswith(b"CONTENTS "):
            raise Refused(reply)
        version, size_bytes, seconds_left = map(int, line.split()[1:])
        assert len(content_line) == size_bytes + 2
        assert content_line.endswith(b"\r\n")
        return File(version, size_bytes, seconds_left, content_line[:-2])

    async def stat(self, name: str) -> File | None:
        """Look at a file without its content; None if there is none."""
        reply = await self.ask(f"stat {name}\r\n".encode())
        if reply == NOT_FOUND:
            return None
        if not reply.startswith(b"STAT "):
            raise Refused(reply)
        version, size_bytes, seconds_left = map(int, reply.split()[1:])
        return File(version, size_bytes, seconds_left)

    async def list(self, prefix: str = "") -> dict[str, File]:
        """List files by name, in the order of the reply."""
        reply = await self.ask(f"list {prefix}\r\n".encode())
        line, _, content_line = reply.partition(b"\r\n")
        if not line.startswith(b"LIST "):
            raise Refused(reply)
        rows = [row.split(" ") for row in content_line[:-2].decode().splitlines()]
        return {name: File(int(version), int(size), int(left)) for name, version, size, left in rows}

    async def status(self) -> dict[str, Any]:
        """Ask the server about itself."""
        reply = await self.ask(b"status\r\n")
        if not reply.startswith(b"STATUS "):
            raise Refused(reply)
        status: dict[str, Any] = json.loads(reply.partition(b"\r\n")[2])
        return status


def version_in(reply: bytes) -> int:
    """The version that a change was given; raises Refused for any other reply."""
    match = _OK.fullmatch(reply)
    if match is None:
        raise Refused(reply)
    return int(match[1])


def change(word: str, name: str, content: bytes, exptime: int | None = None) -> bytes:
    """A request that carries a content."""
    expiry = "" if exptime is None else f" {exptime}"
    return b"%b %b %d%b\r\n%b\r\n" % (word.encode(), name.encode(), len(content), expiry.encode(), content)


def cas(name: str, version: int, content: bytes, exptime: int | None = None) -> bytes:
    """A cas request."""
    return change("cas", f"{name} {version}", content, exptime)


@asynccontextmanager
async def connected(port: int, receive_buffer_bytes: int | None = None) -> AsyncIterator[LineClient]:
    """A client of the server on that port of this machine, if wished with a small receive buffer."""
    client = trio.socket.socket()
    try:
        if receive_buffer_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await client.connect(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        client.close()
        raise
    stream = trio.SocketStream(client)
    try:
        yield LineClient(stream)
    finally:
        await trio.aclose_forcefully(stream)
