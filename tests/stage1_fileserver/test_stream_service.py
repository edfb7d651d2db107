"""Connections over streams, on a clock that jumps: the timeouts at their full length, and expiry."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fileserver.alone import AloneBackend
from fileserver.records import PART_BYTES
from fileserver.service import Limits
from fileserver.stream_service import StreamService
from tests.stage1_fileserver.fake_backend import ManualBackend
from tests.stage1_fileserver.protocol_client import ProtocolClient

MINUTE = 60.0


class Server:
    """A stream service with an alone backend."""

    def __init__(self, nursery: trio.Nursery, limits: Limits | None = None) -> None:
        self._nursery = nursery
        self.backend = AloneBackend()
        self.service = StreamService(self.backend, limits or Limits(max_connections=10))

    async def start(self) -> None:
        await self._nursery.start(self.backend.run)
        await self._nursery.start(self.service.run)

    def connect(self, *, lockstep: bool = False) -> ProtocolClient:
        """Connect; with `lockstep` nothing is sent that isn't taken at once."""
        pair = trio.testing.lockstep_stream_pair() if lockstep else trio.testing.memory_stream_pair()
        ours, theirs = pair
        self._nursery.start_soon(self.service.converse, theirs)
        return ProtocolClient(ours)


@pytest.fixture
async def server(nursery: trio.Nursery) -> Server:
    server = Server(nursery)
    await server.start()
    return server


@pytest.fixture
async def client(server: Server) -> ProtocolClient:
    return server.connect()


async def test_requests(client: ProtocolClient, autojump_clock: trio.testing.MockClock) -> None:
    await client.send(b"write x 3\r\nabc\r\nread x\r\nlist\r\nbad" + b"\xff" * 500)
    assert await client.replies(5) == [
        b"OK 1\r\n",
        b"CONTENTS 1 3 0\r\nabc\r\n",
        b"LIST 8\r\nx 1 3 0\n\r\n",
        b"ERR_CMD_ERR line is too long\r\n",
        b"",
    ]


async def test_quit(client: ProtocolClient, server: Server, autojump_clock: trio.testing.MockClock) -> None:
    await client.send(b"quit\r\n" + b"more" * 1000)
    assert await client.replies(2) == [b"OK\r\n", b""]
    await trio.sleep(3)
    assert server.service.connections == 0


async def test_an_end_of_input(client: ProtocolClient, server: Server, autojump_clock: trio.testing.MockClock) -> None:
    content = b"x" * (3 * PART_BYTES)
    await client.send(b"write x %d\r\n%b\r\nread x\r\nrea" % (len(content), content))
    await client.end()
    expected = b"CONTENTS 1 %d 0\r\n%b\r\n" % (len(content), content)
    assert await client.replies(3) == [b"OK 1\r\n", expected, b""]
    await trio.testing.wait_all_tasks_blocked()
    assert server.service.connections == 0


async def test_many_requests_at_once(client: ProtocolClient, autojump_clock: trio.testing.MockClock) -> None:
    await client.send(b"\n" * 1500 + b"append x 1\r\n1\r\n" * 1500 + b"stat x\r\n")
    assert await client.replies(1500) == [b"ERR_CMD_ERR empty line\r\n"] * 1500
    assert (await client.replies(1501))[-1] == b"STAT 1500 1500 0\r\n"


async def test_half_a_request_is_closed_after_a_minute(server: Server, autojump_clock: trio.testing.MockClock) -> None:
    for data in (b"rea", b"write x 3\r\n", b"write x 3\r\nabc", b"write x 3 never\r\na"):
        client = server.connect()
        start = trio.current_time()
        await client.send(data)
        assert await client.ends()
        assert MINUTE <= trio.current_time() - start < MINUTE + 3


async def test_slow_progress_is_progress(client: ProtocolClient, autojump_clock: trio.testing.MockClock) -> None:
    for byte in b"write x 3\r\nabc\r\n":
        await trio.sleep(MINUTE - 2)
        await client.send(bytes([byte]))
    assert await client.reply() == b"OK 1\r\n"


async def test_an_idle_connection_is_kept(client: ProtocolClient, autojump_clock: trio.testing.MockClock) -> None:
    for _ in range(3):
        assert await client.ask(b"read x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"
        await trio.sleep(1000)


async def test_an_idle_connection_is_closed_where_that_is_wished(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server(nursery, Limits(idle_timeout_seconds=300.0, max_connections=10))
    await server.start()
    client = server.connect()
    await trio.sleep(290)
    assert await client.ask(b"read x\r\n")
    start = trio.current_time()
    assert await client.ends()
    assert 300 <= trio.current_time() - start < 303


async def test_a_client_that_does_not_read_is_closed_after_a_minute(
    server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    client = server.connect(lockstep=True)
    await client.send(b"write x 100000\r\n" + b"y" * 100_000 + b"\r\n" + b"read x\r\n" * 100)
    start = trio.current_time()
    while server.service.connections:  # noqa: ASYNC110 - the clock jumps
        await trio.sleep(1)
    assert MINUTE <= trio.current_time() - start < MINUTE + 5


async def test_a_client_that_reads_slowly_gets_everything(
    server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    client = server.connect(lockstep=True)
    await client.send(b"write x 100000\r\n" + b"y" * 100_000 + b"\r\n" + b"read x\r\n" * 30)
    assert await client.reply() == b"OK 1\r\n"
    for _ in range(30):
        await trio.sleep(MINUTE / 3)
        assert await client.reply() == b"CONTENTS 1 100000 0\r\n" + b"y" * 100_000 + b"\r\n"


async def test_clients_that_vanish(server: Server, autojump_clock: trio.testing.MockClock) -> None:
    for data in (b"", b"rea", b"write x 1\r\n1\r\n", b"quit\r\n"):
        client = server.connect(lockstep=True)
        await trio.testing.wait_all_tasks_blocked()
        if data:
            await client.send(data)
        await trio.aclose_forcefully(client.stream)
        await trio.sleep(5)
        assert server.service.connections == 0


async def test_too_many_connections(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    server = Server(nursery, Limits(max_connections=1))
    await server.start()
    first, second = server.connect(), server.connect()
    await trio.testing.wait_all_tasks_blocked()
    refused, served = (
        (first, second) if server.service.connections == 1 and await _is_refused(first) else (second, first)
    )
    if refused is second:
        assert await second.reply() == b"ERR_BUSY 5 too many connections\r\n"
    assert await refused.ends()
    assert await served.ask(b"read x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"
    vanished = server.connect(lockstep=True)
    await trio.aclose_forcefully(vanished.stream)
    await trio.testing.wait_all_tasks_blocked()
    assert server.service.connections == 1


async def _is_refused(client: ProtocolClient) -> bool:
    with trio.move_on_after(0.1):
        return await client.reply() == b"ERR_BUSY 5 too many connections\r\n"
    return False


async def test_replies_after_a_batch_completed_elsewhere(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    backend = ManualBackend()
    service = StreamService(backend, Limits(max_connections=10))
    await nursery.start(service.run)
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(service.converse, theirs)
    client = ProtocolClient(ours)
    await client.send(b"write x 1\r\n1\r\nread x\r\n")
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(10 * MINUTE)  # the client has nothing to do with that
    backend.complete_changes()
    service.flush()
    assert await client.reply() == b"OK 1\r\n"
    await trio.testing.wait_all_tasks_blocked()
    backend.complete_reads()
    service.flush()
    assert await client.reply() == b"CONTENTS 1 1 0\r\n1\r\n"


async def test_listeners(nursery: trio.Nursery) -> None:
    backend = AloneBackend()
    service = StreamService(backend)
    await nursery.start(backend.run)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(service.run, listeners)
    async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as stream:
        assert await ProtocolClient(stream).ask(b"write x 1\r\n1\r\n") == b"OK 1\r\n"


# Expiry, as a client sees it.


async def test_a_file_expires_on_time(client: ProtocolClient, autojump_clock: trio.testing.MockClock) -> None:
    assert await client.ask(b"write x 1 10\r\n1\r\n") == b"OK 1\r\n"
    await trio.sleep(9.5)
    assert await client.ask(b"read x\r\n") == b"CONTENTS 1 1 1\r\n1\r\n"
    await trio.sleep(0.5)
    assert await client.ask(b"read x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"
    assert await client.ask(b"write y 1\r\n1\r\n") == b"OK 3\r\n"


async def test_remaining_time_counts_down(client: ProtocolClient, autojump_clock: trio.testing.MockClock) -> None:
    await client.ask(b"write x 1 100\r\n1\r\n")
    assert await client.ask(b"stat x\r\n") == b"STAT 1 1 100\r\n"
    await trio.sleep(30)
    assert await client.ask(b"stat x\r\n") == b"STAT 1 1 70\r\n"
    assert await client.ask(b"list\r\n") == b"LIST 9\r\nx 1 1 70\n\r\n"


async def test_an_earlier_deadline_wakes_expiry(
    client: ProtocolClient, server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    await client.ask(b"write x 1 100\r\n1\r\n")
    await client.ask(b"write y 1 5\r\n1\r\n")
    await trio.sleep(5.001)
    assert server.backend.store.files == 1
    await trio.sleep(95)
    assert server.backend.store.files == 0
    assert server.backend.store.version == 4


async def test_a_later_write_replaces_the_expiry(
    client: ProtocolClient, autojump_clock: trio.testing.MockClock
) -> None:
    await client.ask(b"write x 1 5\r\n1\r\n")
    await client.ask(b"write x 1\r\n1\r\n")
    await trio.sleep(100)
    assert await client.ask(b"stat x\r\n") == b"STAT 2 1 0\r\n"


async def test_append_keeps_the_expiry_and_touch_changes_it(
    client: ProtocolClient, autojump_clock: trio.testing.MockClock
) -> None:
    await client.ask(b"write x 1 10\r\n1\r\n")
    await client.ask(b"append x 1\r\n2\r\n")
    assert await client.ask(b"stat x\r\n") == b"STAT 2 2 10\r\n"
    assert await client.ask(b"touch x 50\r\n") == b"OK 2\r\n"
    await trio.sleep(20)
    assert await client.ask(b"stat x\r\n") == b"STAT 2 2 30\r\n"
    assert await client.ask(b"append x 1 0\r\n3\r\n") == b"OK 3\r\n"
    assert await client.ask(b"stat x\r\n") == b"STAT 3 3 0\r\n"


async def test_expiry_in_a_big_content(client: ProtocolClient, autojump_clock: trio.testing.MockClock) -> None:
    content = b"x" * (PART_BYTES + 1)
    assert await client.ask(b"write x %d 7\r\n%b\r\n" % (len(content), content)) == b"OK 1\r\n"
    assert await client.ask(b"stat x\r\n") == b"STAT 1 %d 7\r\n" % len(content)
    await trio.sleep(7)
    assert await client.ask(b"stat x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"
