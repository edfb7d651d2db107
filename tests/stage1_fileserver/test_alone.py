"""A server without Raft: the contract's table row by row over TCP, and its backend."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from fileserver.alone import AloneBackend, listen, serve_alone
from fileserver.backend import Failure
from fileserver.service import Limits
from tests.stage1_fileserver.protocol_client import ProtocolClient, close_clients, connect

LIMITS = Limits(max_file_bytes=1000, max_connections=50)


@pytest.fixture
async def port(nursery: trio.Nursery) -> AsyncIterator[int]:
    number: int = await nursery.start(lambda task_status: serve_alone(port=0, limits=LIMITS, task_status=task_status))
    yield number
    await close_clients()


@pytest.fixture
async def client(port: int) -> ProtocolClient:
    return await connect(port)


ROWS = [
    (b"read x\r\n", b"ERR_FILE_NOT_FOUND\r\n"),
    (b"stat x\r\n", b"ERR_FILE_NOT_FOUND\r\n"),
    (b"delete x\r\n", b"ERR_FILE_NOT_FOUND\r\n"),
    (b"delete x 3\r\n", b"ERR_FILE_NOT_FOUND\r\n"),
    (b"touch x 5\r\n", b"ERR_FILE_NOT_FOUND\r\n"),
    (b"cas x 1 3\r\nabc\r\n", b"ERR_FILE_NOT_FOUND\r\n"),
    (b"read x\r\n", b"ERR_FILE_NOT_FOUND\r\n"),
    (b"list\r\n", b"LIST 0\r\n\r\n"),
    (b"write x 3\r\nabc\r\n", b"OK 1\r\n"),
    (b"read x\r\n", b"CONTENTS 1 3 0\r\nabc\r\n"),
    (b"cas x 2 3\r\ndef\r\n", b"ERR_VERSION 1\r\n"),
    (b"cas x 0 3\r\ndef\r\n", b"ERR_VERSION 1\r\n"),
    (b"cas x 1 3 100\r\ndef\r\n", b"OK 2\r\n"),
    (b"read x\r\n", b"CONTENTS 2 3 100\r\ndef\r\n"),
    (b"cas new 0 0\r\n\r\n", b"OK 3\r\n"),
    (b"stat new\r\n", b"STAT 3 0 0\r\n"),
    (b"append x 2\r\n\r\n\r\n", b"OK 4\r\n"),
    (b"read x\r\n", b"CONTENTS 4 5 100\r\ndef\r\n\r\n"),
    (b"append a/b 1 60\r\n1\r\n", b"OK 5\r\n"),
    (b"touch x 0\r\n", b"OK 4\r\n"),
    (b"list\r\n", b"LIST 29\r\na/b 5 1 60\nnew 3 0 0\nx 4 5 0\n\r\n"),
    (b"list a/\r\n", b"LIST 11\r\na/b 5 1 60\n\r\n"),
    (b"list zzz\r\n", b"LIST 0\r\n\r\n"),
    (b"delete x 3\r\n", b"ERR_VERSION 4\r\n"),
    (b"delete x 4\r\n", b"OK\r\n"),
    (b"read x\r\n", b"ERR_FILE_NOT_FOUND\r\n"),
    (b"delete new\r\n", b"OK\r\n"),
    (b"write x 0\r\n\r\n", b"OK 8\r\n"),
    (b"append x 1000\r\n" + b"y" * 1000 + b"\r\n", b"OK 9\r\n"),
    (b"append x 1\r\ny\r\n", b"ERR_CMD_ERR the file would become too large\r\n"),
    (b"stat x\r\n", b"STAT 9 1000 0\r\n"),
]


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
async def test_every_row(client: ProtocolClient, line_end: bytes) -> None:
    for request, reply in ROWS:
        line, _, content = request.partition(b"\r\n")
        assert await client.ask(line + line_end + content) == reply, request


async def test_every_row_at_once(client: ProtocolClient) -> None:
    await client.send(b"".join(request for request, _ in ROWS))
    assert await client.replies(len(ROWS)) == [reply for _, reply in ROWS]


async def test_every_row_byte_by_byte(client: ProtocolClient) -> None:
    for byte in b"".join(request for request, _ in ROWS[:20]):
        await client.send(bytes([byte]))
    assert await client.replies(20) == [reply for _, reply in ROWS[:20]]


async def test_binary_contents(client: ProtocolClient) -> None:
    content = bytes(range(256)) + b"\r\nread x\r\n\x00"
    assert await client.ask(b"write x %d\r\n%b\r\n" % (len(content), content)) == b"OK 1\r\n"
    assert await client.ask(b"read x\r\n") == b"CONTENTS 1 %d 0\r\n%b\r\n" % (len(content), content)


async def test_names_are_utf_8(client: ProtocolClient) -> None:
    name = "grüße/日本語".encode()
    assert await client.ask(b"write %b 1\r\n1\r\n" % name) == b"OK 1\r\n"
    assert await client.ask(b"list gr\r\n") == b"LIST %d\r\n%b 1 1 0\n\r\n" % (len(name) + 7, name)


async def test_status(client: ProtocolClient) -> None:
    await client.ask(b"write x 3\r\nabc\r\n")
    reply = await client.ask(b"status\r\n")
    status = json.loads(reply.partition(b"\r\n")[2])
    assert status["role"] == "leader"
    assert status["leader"] == status["id"] == 1
    assert (status["version"], status["files"], status["bytes"]) == (1, 1, 3)
    assert status["applied_index"] == status["commit_index"] == status["last_index"] == 1
    assert int(status["state_hash"], 16)
    assert status["clock"] >= 0
    assert {"cluster", "term", "first_index"} < set(status)
    (server,) = status["servers"]
    assert set(server) == {"id", "client", "peer", "http", "voter", "match_index", "alive"}


async def test_help_and_quit(client: ProtocolClient) -> None:
    assert (await client.ask(b"help\r\n")).startswith(b"HELP ")
    assert await client.ask(b"quit\r\n") == b"OK\r\n"
    assert await client.ends()


@pytest.mark.parametrize(
    "request_",
    [b"\r\n", b"delete\r\n", b"read\r\n", b"read a b\r\n", b"write x 3 z\r\nabc\r\n", b"cas x y 3\r\nabc\r\n"],
)
async def test_recoverable_errors(client: ProtocolClient, request_: bytes) -> None:
    assert (await client.ask(request_)).startswith(b"ERR_CMD_ERR ")
    assert await client.ask(b"read x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"bogus\r\n",
        b"write x\r\n",
        b"write x -1\r\n",
        b"write x 1001\r\n",
        b"write x 3\r\nabcd\r\n",
        b"read " + b"x" * 500 + b"\r\n",
    ],
)
async def test_final_errors(port: int, client: ProtocolClient, request_: bytes) -> None:
    await client.send(request_ + b"write x 1\r\n1\r\n")
    assert (await client.reply()).startswith(b"ERR_CMD_ERR ")
    assert await client.ends()
    assert await (await connect(port)).ask(b"read x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"


async def test_a_port_in_use_is_an_error() -> None:
    (listener,) = listen("127.0.0.1", 0)
    with listener, pytest.raises(OSError, match="in use"):
        await serve_alone(port=listener.getsockname()[1])


async def test_an_unknown_host_is_an_error() -> None:
    with pytest.raises(socket.gaierror):
        listen("127.0.0.1.invalid", 0)


def test_listening_at_every_address() -> None:
    listeners = listen("localhost", 0)
    for listener in listeners:
        assert not listener.getblocking()
        listener.close()
    if socket.has_ipv6:
        for listener in listen("::1", 0):
            assert listener.family == socket.AF_INET6
            listener.close()


# The backend by itself


async def test_waiting_for_the_clock(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(1000)
    backend = AloneBackend()
    await nursery.start(backend.run)
    calls: list[tuple[float, Failure | None]] = []

    def note(failure: Failure | None) -> None:
        calls.append((trio.current_time(), failure))

    assert backend.clock_us() == 0
    backend.wait_for_clock(0, note)
    assert calls == [(1000.0, None)]
    backend.wait_for_clock(9_000_000, note)
    backend.wait_for_clock(3_000_000, note)
    backend.wait_for_clock(3_000_000, note)
    await trio.sleep(20)
    assert calls[1:] == [(1003.0, None), (1003.0, None), (1009.0, None)]


async def test_the_clock_goes_on_where_the_store_stands(autojump_clock: trio.testing.MockClock) -> None:
    first = AloneBackend()
    await trio.sleep(5)
    first.store.advance(first.clock_us())
    await trio.sleep(100)
    second = AloneBackend(first.store)
    assert second.clock_us() == 5_000_000


async def test_two_long_lists_at_once(port: int) -> None:
    """The second comes while the first is being made, and each is whole."""
    first, second = await connect(port), await connect(port)
    await first.send(b"".join(b"write f%05d 0\r\n\r\n" % number for number in range(3000)))
    assert await first.replies(3000) == [b"OK %d\r\n" % (number + 1) for number in range(3000)]
    await first.send(b"list\r\n" * 3)
    await second.send(b"list\r\n" * 3)
    lines = b"".join(b"f%05d %d 0 0\n" % (number, number + 1) for number in range(3000))
    expected = b"LIST %d\r\n%b\r\n" % (len(lines), lines)
    for client in (first, second, first, second, first, second):
        assert await client.reply() == expected
