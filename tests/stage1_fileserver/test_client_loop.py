"""One task for all sockets: real connections, in this process, to a backend under the test's control or a real one."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress

import pytest
import trio
import trio.testing

from fileserver import client_loop
from fileserver.alone import AloneBackend, listen
from fileserver.backend import Backend, Failure, FailureKind
from fileserver.client_loop import ClientLoop
from fileserver.commands import WRITE
from fileserver.records import PART_BYTES
from fileserver.service import Limits, raise_open_files_limit
from raftnode import reactor, same_machine
from raftnode.joint_sends import SOCKETS_MAX
from raftnode.polling import SelectorPoller
from raftnode.reactor import Reactor
from raftnode.trio_runtime import monotonic_us
from tests.congestion import control, usual_and_another
from tests.stage1_fileserver.fake_backend import ManualBackend
from tests.stage1_fileserver.protocol_client import ProtocolClient, close_clients, connect

pytestmark = pytest.mark.usefixtures("poller")

LIMITS = Limits(max_connections=200)
QUICK = Limits(request_progress_timeout_seconds=0.2, max_connections=100)


@pytest.fixture(params=["best poller", "portable poller"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without what only Linux has."""
    if request.param == "portable poller":
        monkeypatch.setattr(reactor, "make_poller", SelectorPoller)
        monkeypatch.setattr(client_loop, "make_joint_sends", lambda: None)
    return str(request.param)


@pytest.fixture(autouse=True)
async def _clients() -> AsyncIterator[None]:
    yield
    await close_clients()


class Server:
    """A client loop under test, with its port."""

    def __init__(self, backend: Backend, listeners: list[socket.socket], limits: Limits = LIMITS) -> None:
        self.reactor = Reactor(now_us=monotonic_us)
        self.loop = ClientLoop(backend, listeners, self.reactor, limits)
        self.port = listeners[0].getsockname()[1]

    async def connect(self) -> ProtocolClient:
        return await connect(self.port)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let everything run until the condition holds."""
        with trio.fail_after(30):
            while not condition():  # noqa: ASYNC110 - it comes about in sockets, which tell no one
                await trio.sleep(0.001)


@pytest.fixture
async def manual(nursery: trio.Nursery) -> ManualBackend:
    return ManualBackend()


@pytest.fixture
async def server(nursery: trio.Nursery, manual: ManualBackend) -> Server:
    """A server whose backend is the test's."""
    return await start(nursery, manual)


@pytest.fixture
async def alone(nursery: trio.Nursery) -> Server:
    """A server that answers by itself."""
    return await start_alone(nursery)


async def start(nursery: trio.Nursery, backend: Backend, limits: Limits = LIMITS) -> Server:
    server = Server(backend, listen("127.0.0.1", 0), limits)
    nursery.start_soon(server.reactor.run)
    await nursery.start(server.loop.run)
    return server


async def start_alone(nursery: trio.Nursery, limits: Limits = LIMITS) -> Server:
    backend = AloneBackend()
    await nursery.start(backend.run)
    return await start(nursery, backend, limits)


async def test_requests_in_any_pieces(alone: Server) -> None:
    client = await alone.connect()
    assert await client.ask(b"write x 3\r\nabc\r\n") == b"OK 1\r\n"
    for byte in b"write x 3\r\ndef\r\nread x\r\n":
        await client.send(bytes([byte]))
    assert await client.replies(2) == [b"OK 2\r\n", b"CONTENTS 2 3 0\r\ndef\r\n"]


async def test_batches_of_requests(alone: Server) -> None:
    client = await alone.connect()
    requests = b"".join(b"write x 1\r\n%d\r\nread x\r\n" % (number % 10) for number in range(500))
    await client.send(requests)
    for number in range(500):
        assert await client.reply() == b"OK %d\r\n" % (number + 1)
        assert await client.reply() == b"CONTENTS %d 1 0\r\n%d\r\n" % (number + 1, number % 10)


async def test_more_requests_than_a_pass_takes(alone: Server, nursery: trio.Nursery) -> None:
    count = 3000

    async def send(client: ProtocolClient) -> None:
        await client.send(b"write x 1\r\n1\r\n" * count)

    clients = [await alone.connect() for _ in range(4)]
    for client in clients:
        nursery.start_soon(send, client)
    versions = [int((await client.reply()).split()[1]) for client in clients for _ in range(count)]
    assert sorted(versions) == list(range(1, 4 * count + 1))


async def test_more_content_than_a_pass_takes(
    alone: Server, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_loop, "PASS_BYTES", 1000)
    request = b"append x 2000\r\n" + b"y" * 2000 + b"\r\n"
    clients = [await alone.connect() for _ in range(8)]
    for client in clients:
        await client.send(request * 2)
    for client in clients:
        assert all(await client.replies(2))
    assert (await clients[0].ask(b"stat x\r\n")).split()[1:3] == [b"16", b"32000"]


async def test_replies_after_a_batch_completed_elsewhere(server: Server, manual: ManualBackend) -> None:
    clients = [await server.connect() for _ in range(3)]
    for client in clients:
        await client.send(b"write x 1\r\n1\r\nread x\r\n")
    await server.until(lambda: sum(map(len, manual.batches)) == 3)
    manual.complete_changes()
    server.loop.flush()
    await server.until(lambda: sum(map(len, manual.reads)) == 3)
    manual.complete_reads()
    server.loop.flush()
    server.loop.flush()
    for number, client in enumerate(clients, 1):
        assert await client.replies(2) == [b"OK %d\r\n" % number, b"CONTENTS 3 1 0\r\n1\r\n"]


async def test_many_replies_at_once(server: Server, manual: ManualBackend) -> None:
    """More than one call takes, and among them: several of one client, a long one, the last one, and one too late."""
    content = b"x" * (client_loop.JOINT_BYTES_MAX + 1)
    manual.apply(WRITE, b"long", 0, 0, content)
    written, last, read = b"write x 1\r\n1\r\n", b"write x 1\r\n1\r\nquit\r\n", b"read long\r\n"
    requests = [written * 5, last, read, written] + [written] * SOCKETS_MAX
    clients = [await server.connect() for _ in requests]
    for client, request in zip(clients, requests, strict=True):
        await client.send(request)
    await server.until(lambda: sum(map(len, manual.batches)) + sum(map(len, manual.reads)) == len(clients) + 4)
    vanished = clients.pop(3)
    assert isinstance(vanished.stream, trio.SocketStream)
    vanished.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    vanished.stream.socket.close()
    manual.complete_changes()
    manual.complete_reads()
    server.loop.flush()
    assert [reply[:3] for reply in await clients[0].replies(5)] == [b"OK "] * 5
    assert (await clients[1].reply())[:3] == b"OK "
    assert await clients[1].replies(2) == [b"OK\r\n", b""]
    assert (await clients[2].reply()).split(b"\r\n")[1] == content
    versions = {int((await client.reply()).removeprefix(b"OK ")) for client in clients[3:]}
    assert len(versions) == SOCKETS_MAX
    assert manual.store.version == len(requests) + 4


async def test_many_replies_take_one_call(server: Server, manual: ManualBackend, poller: str) -> None:
    if poller == "portable poller" or not sys.platform.startswith("linux"):
        pytest.skip("replies go singly here")
    clients = [await server.connect() for _ in range(client_loop.JOINT_MIN)]
    for client in clients:
        await client.send(b"write x 1\r\n1\r\n")
    await server.until(lambda: sum(map(len, manual.batches)) == len(clients))

    def send(_data: bytes) -> int:
        raise AssertionError("a call for a single reply")

    for connection in server.loop._connections.values():
        connection.send = send  # type: ignore[assignment, misc]
    manual.complete_changes()
    server.loop.flush()
    for client in clients:
        assert (await client.reply())[:3] == b"OK "


async def test_one_of_many_replies_waits_for_its_turn(server: Server, manual: ManualBackend) -> None:
    """A client's last answer is there before the one in the middle: it doesn't go, and isn't lost, with the first."""
    client, *others = [await server.connect() for _ in range(client_loop.JOINT_MIN + 1)]
    written = b"write x 1\r\n1\r\n"
    for count in range(3):
        await client.send(written)
        await server.until(lambda count=count: len(manual.batches) > count)  # type: ignore[misc]
    for other in others:
        await other.send(written)
    await server.until(lambda: sum(map(len, manual.batches)) == 3 + len(others))
    middle = manual.batches.pop(1)
    manual.complete_changes()
    server.loop.flush()
    assert await client.reply() == b"OK 1\r\n"
    for other in others:
        assert (await other.reply())[:3] == b"OK "
    manual.batches.append(middle)
    manual.complete_changes()
    server.loop.flush()
    assert await client.replies(2) == [b"OK %d\r\n" % manual.store.version, b"OK 2\r\n"]


async def test_a_client_that_takes_some_of_many_replies(server: Server, manual: ManualBackend) -> None:
    """Its socket gets full while those of the others aren't; in the end it has got each of its replies, in order."""
    manual.apply(WRITE, b"x", 0, 0, b"x" * 4000)
    others = [await server.connect() for _ in range(client_loop.JOINT_MIN)]
    slow = await connect(server.port, receive_buffer_bytes=4096)
    await server.until(lambda: server.loop.connections == len(others) + 1)
    connections = list(server.loop._connections.values())
    for connection in connections:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    is_full = False
    rounds = 0
    while not is_full:
        rounds += 1
        for client in (*others, slow):
            await client.send(b"read x\r\n")
        await server.until(lambda: sum(map(len, manual.reads)) == len(others) + 1)
        manual.complete_reads()
        server.loop.flush()
        is_full = any(connection.output for connection in connections)
        for client in others:
            assert len(await client.reply()) > 4000
    for _ in range(rounds):
        assert len(await slow.reply()) > 4000
    assert rounds > 1


async def test_failures(server: Server, manual: ManualBackend) -> None:
    client = await server.connect()
    await client.send(b"write x 1\r\n1\r\n")
    await server.until(lambda: bool(manual.batches))
    manual.batches.pop().failed(Failure(FailureKind.OUTCOME_UNKNOWN, "no leader"))
    server.loop.flush()
    assert await client.reply() == b"ERR_INTERNAL outcome unknown: no leader\r\n"
    manual.refused = Failure(FailureKind.REDIRECT, address="localhost:8081")
    assert await client.ask(b"write x 1\r\n1\r\n") == b"ERR_REDIRECT localhost:8081\r\n"


async def test_an_end_of_input_is_answered_before_the_connection_ends(server: Server, manual: ManualBackend) -> None:
    client = await server.connect()
    await client.send(b"write x 1\r\n1\r\nread x\r\nread")
    await client.end()
    await server.until(lambda: bool(manual.batches))
    manual.complete_changes()
    server.loop.flush()
    await server.until(lambda: bool(manual.reads))
    manual.complete_reads()
    server.loop.flush()
    assert await client.replies(3) == [b"OK 1\r\n", b"CONTENTS 1 1 0\r\n1\r\n", b""]
    await server.until(lambda: server.loop.connections == 0)


async def test_quit(alone: Server) -> None:
    client = await alone.connect()
    await client.send(b"write x 1\r\n1\r\nquit\r\nwrite x 1\r\n2\r\n")
    assert await client.replies(3) == [b"OK 1\r\n", b"OK\r\n", b""]
    await client.stream.aclose()
    await alone.until(lambda: alone.loop.connections == 0)


async def test_a_refusal_reaches_a_client_that_goes_on_sending(alone: Server) -> None:
    client = await alone.connect()
    await client.send(b"write x 99999999999\r\n" + b"y" * 500_000)
    assert (await client.reply()).startswith(b"ERR_CMD_ERR content is larger")
    assert await client.ends()


async def test_a_lingering_connection_is_closed_in_the_end(alone: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_loop, "LINGER_SECONDS", 0.0)
    client = await alone.connect()
    await client.send(b"quit\r\n")
    await alone.until(lambda: alone.loop.connections == 0)
    assert await client.reply() == b"OK\r\n"


async def test_a_client_that_vanishes_harms_no_one(alone: Server) -> None:
    other = await alone.connect()
    for data in (b"write x 5\r\nab", b"wri", b"list\r\nread x\r\nwrite x 1\r\n1\r\n", b""):
        client = await alone.connect()
        assert isinstance(client.stream, trio.SocketStream)
        await client.send(data)
        # An immediate close with a reset.
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.stream.socket.close()
        assert await other.ask(b"write x 1\r\n1\r\n")
    await alone.until(lambda: alone.loop.connections == 1)


async def test_a_client_that_vanishes_before_its_reply(server: Server, manual: ManualBackend) -> None:
    client = await server.connect()
    await client.send(b"write x 1\r\n1\r\n")
    await server.until(lambda: bool(manual.batches))
    await trio.aclose_forcefully(client.stream)
    manual.complete_changes()
    server.loop.flush()
    await server.until(lambda: server.loop.connections == 0)
    assert manual.store.version == 1


@pytest.mark.parametrize("requests", [1, 2])
async def test_a_reset_that_shows_when_the_reply_is_sent(server: Server, manual: ManualBackend, requests: int) -> None:
    client = await server.connect()
    assert isinstance(client.stream, trio.SocketStream)
    await client.send(b"write x 1\r\n1\r\n" * requests)
    await server.until(lambda: sum(map(len, manual.batches)) == requests)
    manual.complete_changes()
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.stream.socket.close()
    server.loop.flush()
    assert server.loop.connections == 0


async def test_a_reset_while_its_request_is_under_way(server: Server, manual: ManualBackend) -> None:
    client = await server.connect()
    assert isinstance(client.stream, trio.SocketStream)
    await client.send(b"write x 1\r\n1\r\n")
    await server.until(lambda: bool(manual.batches))
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.stream.socket.close()
    await server.until(lambda: server.loop.connections == 0)
    manual.complete_changes()
    server.loop.flush()


async def test_a_client_on_this_machine_is_not_sent_to_at_a_pace(
    alone: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, another = usual_and_another()
    monkeypatch.setattr(same_machine, "_PLAINEST", another)
    client = await connect(alone.port)
    assert await client.ask(b"write x 1\r\n1\r\n") == b"OK 1\r\n"
    (connection,) = alone.loop._connections.values()
    assert control(connection.socket) == another


async def test_a_client_that_does_not_read_gets_all_of_it_later(alone: Server) -> None:
    client = await connect(alone.port, receive_buffer_bytes=4096)
    content = os.urandom(100_000)
    assert await client.ask(b"write x 100000\r\n" + content + b"\r\n") == b"OK 1\r\n"
    await client.send(b"read x\r\n" * 150 + b"quit\r\n")
    (connection,) = alone.loop._connections.values()
    await alone.until(lambda: connection.unsent_bytes > 2**20)
    for _ in range(150):
        assert connection.unsent_bytes < 2**20 + 200_000
        assert await client.reply() == b"CONTENTS 1 100000 0\r\n" + content + b"\r\n"
    assert await client.replies(2) == [b"OK\r\n", b""]


async def test_a_client_that_never_reads_is_closed(nursery: trio.Nursery) -> None:
    server = await start_alone(nursery, QUICK)
    client = await connect(server.port, receive_buffer_bytes=4096)
    await client.send(b"write x 100000\r\n" + b"y" * 100_000 + b"\r\n" + b"read x\r\n" * 150)
    await server.until(lambda: server.loop.connections == 0)


async def test_half_a_request_is_closed_when_it_makes_no_progress(nursery: trio.Nursery) -> None:
    server = await start_alone(nursery, QUICK)
    idle = await server.connect()
    for data in (b"rea", b"write x 3\r\n", b"write x 3\r\nabc"):
        client = await server.connect()
        await client.send(data)
        with trio.fail_after(30):
            assert await client.ends()
    assert await idle.ask(b"read x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"


async def test_waiting_for_the_backend_is_no_lack_of_progress(nursery: trio.Nursery) -> None:
    backend = ManualBackend()
    server = await start(nursery, backend, QUICK)
    client = await server.connect()
    await client.send(b"write x 1\r\n1\r\nread x\r\nwrite y")
    await server.until(lambda: bool(backend.batches))
    watched = await server.connect()
    await watched.send(b"half")
    assert await watched.ends()  # by now the first one would be closed, too
    backend.complete_changes()
    server.loop.flush()
    await server.until(lambda: bool(backend.reads))
    backend.complete_reads()
    server.loop.flush()
    assert await client.replies(2) == [b"OK 1\r\n", b"CONTENTS 1 1 0\r\n1\r\n"]


async def test_idle_connections_are_closed_where_that_is_wished(nursery: trio.Nursery) -> None:
    server = await start_alone(nursery, Limits(idle_timeout_seconds=0.2, max_connections=100))
    client = await server.connect()
    assert await client.ask(b"write x 1\r\n1\r\n") == b"OK 1\r\n"
    with trio.fail_after(30):
        assert await client.ends()


async def test_input_stops_while_the_backend_is_slow(server: Server, manual: ManualBackend) -> None:
    client = await server.connect()
    assert isinstance(client.stream, trio.SocketStream)
    await client.send(b"write x 1\r\n1\r\n" + b"read x\r\n" * 2)
    await server.until(lambda: bool(manual.batches))
    (connection,) = server.loop._connections.values()
    sent_bytes = 0
    request = b"read x".ljust(498) + b"\r\n"

    def send_until_full() -> bool:
        """The client's own socket may be full before the server's buffer is, if the system sends at a pace."""
        nonlocal sent_bytes
        with suppress(BlockingIOError):
            sent_bytes += client.stream.socket._sock.send(request * 100)  # type: ignore[attr-defined]
        return connection.input_full

    await server.until(send_until_full)
    assert connection.mask == 0
    manual.complete_changes()
    server.loop.flush()
    answered = 0
    assert await client.reply() == b"OK 1\r\n"
    while answered < 2 + sent_bytes // len(request):
        await server.until(lambda: bool(manual.reads))
        wanted = sum(map(len, manual.reads))
        manual.complete_reads()
        server.loop.flush()
        assert await client.replies(wanted) == [b"CONTENTS 1 1 0\r\n1\r\n"] * wanted
        answered += wanted


async def test_too_many_connections(nursery: trio.Nursery) -> None:
    server = await start_alone(nursery, Limits(max_connections=2))
    clients = [await server.connect() for _ in range(2)]
    for client in clients:
        assert await client.ask(b"read x\r\n")
    for _ in range(2):
        refused = await server.connect()
        assert await refused.reply() == b"ERR_BUSY 5 too many connections\r\n"
        assert await refused.ends()
    await clients[0].stream.aclose()
    await server.until(lambda: server.loop.connections == 1)
    assert await (await server.connect()).ask(b"read x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"


class ScarceListener(socket.socket):
    """A listener whose next accepts fail."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            raise OSError(self.failures.pop(0), "injected")
        return super().accept()


async def test_running_out_of_files_is_a_pause(nursery: trio.Nursery) -> None:
    (listener,) = listen("127.0.0.1", 0)
    scarce = ScarceListener(fileno=listener.detach())
    scarce.setblocking(False)
    scarce.failures = [errno.ECONNABORTED, errno.EMFILE, errno.ENFILE]
    backend = AloneBackend()
    await nursery.start(backend.run)
    server = Server(backend, [scarce])
    nursery.start_soon(server.reactor.run)
    await nursery.start(server.loop.run)
    client = await server.connect()
    with trio.fail_after(30):
        assert await client.ask(b"read x\r\n") == b"ERR_FILE_NOT_FOUND\r\n"
    assert scarce.failures == []


async def test_stopping_answers_what_is_under_way(server: Server, manual: ManualBackend, nursery: trio.Nursery) -> None:
    idle, busy = await server.connect(), await server.connect()
    await busy.send(b"write x 1\r\n1\r\nread x\r\n")
    await server.until(lambda: bool(manual.batches) and server.loop.connections == 2)
    stopped = trio.Event()

    async def stop() -> None:
        await server.loop.stop(30)
        stopped.set()

    nursery.start_soon(stop)
    with trio.fail_after(30):
        assert await idle.ends()
        with pytest.raises(OSError, match="refused"):
            await server.connect()
        assert not stopped.is_set()
        manual.complete_changes()
        server.loop.flush()
        assert await busy.replies(2) == [b"OK 1\r\n", b""]
        await stopped.wait()
    assert server.loop.connections == 0


async def test_stopping_takes_no_longer_than_its_grace(server: Server, manual: ManualBackend) -> None:
    client = await server.connect()
    await client.send(b"write x 1\r\n1\r\n")
    await server.until(lambda: bool(manual.batches))
    await server.loop.stop(0.01)
    assert server.loop.connections == 1


async def test_cancelling_closes_every_socket(manual: ManualBackend) -> None:
    listeners = listen("127.0.0.1", 0)
    server = Server(manual, listeners)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.reactor.run)
        await nursery.start(server.loop.run)
        client = await server.connect()
        await server.until(lambda: server.loop.connections == 1)
        nursery.cancel_scope.cancel()
    assert listeners[0].fileno() == -1
    assert await client.ends()


async def test_a_big_content_and_a_long_list(alone: Server) -> None:
    client, other = await alone.connect(), await alone.connect()
    content = os.urandom(20 * PART_BYTES + 123)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, b"write big %d\r\n" % len(content) + content + b"\r\nread big\r\nlist\r\n")
        for number in range(1200):
            await other.ask(b"write file-%d 1\r\n1\r\n" % number)
    version = int((await client.reply()).split()[1])
    assert await client.reply() == b"CONTENTS %d %d 0\r\n" % (version, len(content)) + content + b"\r\n"
    assert b"\nfile-" in await client.reply()
    listing = await client.ask(b"list\r\n")
    names = [line.split()[0] for line in listing.splitlines()[1:-1]]
    assert names == sorted([b"big", *(b"file-%d" % number for number in range(1200))])


async def test_a_thousand_idle_connections(nursery: trio.Nursery) -> None:
    if raise_open_files_limit(4096) < 2200:
        pytest.skip("this system allows too few open files")
    server = await start_alone(nursery, Limits(max_connections=1100))
    clients = [await server.connect() for _ in range(1000)]
    await server.until(lambda: server.loop.connections == 1000)
    assert await clients[500].ask(b"write x 1\r\n1\r\n") == b"OK 1\r\n"
    for client in clients:
        await client.send(b"read x\r\n")
    for client in clients:
        assert await client.reply() == b"CONTENTS 1 1 0\r\n1\r\n"
    for client in clients:
        await trio.aclose_forcefully(client.stream)
    await server.until(lambda: server.loop.connections == 0)


async def test_500_clients_write_one_file_10_times_each(nursery: trio.Nursery) -> None:
    if raise_open_files_limit(4096) < 1200:
        pytest.skip("this system allows too few open files")
    server = await start_alone(nursery, Limits(max_connections=600))
    versions: list[int] = []

    async def write(number: int) -> None:
        client = await server.connect()
        for turn in range(10):
            content = b"client %d turn %d" % (number, turn)
            reply = await client.ask(b"write x %d\r\n%b\r\n" % (len(content), content))
            versions.append(int(reply.removeprefix(b"OK ")))
        await client.stream.aclose()

    async with trio.open_nursery() as clients:
        for number in range(500):
            clients.start_soon(write, number)
    assert sorted(versions) == list(range(1, 5001))


def swap_until_each_has_succeeded(port: int, clients: int, successes: int) -> int:
    """Have every client swap one file until it has succeeded so often, all of them at a time; count the attempts.

    On plain sockets, in a thread: with so many rivals most attempts fail, a hundred thousand of them.
    """
    with ExitStack() as stack:
        rivals = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(clients)]
        missing = dict.fromkeys(rivals, successes)
        versions = dict.fromkeys(rivals, 1)
        attempts = 0
        while missing:
            for rival in missing:
                rival.sendall(b"cas x %d 3\r\nabc\r\n" % versions[rival])
            for rival in list(missing):
                word, version = rival.recv(1000).split()
                versions[rival] = int(version)
                attempts += 1
                missing[rival] -= word == b"OK"
                if not missing[rival]:
                    del missing[rival]
        return attempts


async def test_100_clients_swap_10_times_each(alone: Server) -> None:
    client = await alone.connect()
    assert await client.ask(b"cas x 0 1\r\n0\r\n") == b"OK 1\r\n"
    attempts = await trio.to_thread.run_sync(swap_until_each_has_succeeded, alone.port, 100, 10)
    assert attempts > 1000
    assert await client.ask(b"stat x\r\n") == b"STAT 1001 3 0\r\n"


async def test_a_file_written_past_the_connections_is_seen(server: Server, manual: ManualBackend) -> None:
    manual.apply(WRITE, b"x", 0, 0, b"abc")
    client = await server.connect()
    await client.send(b"stat x\r\n")
    await server.until(lambda: bool(manual.reads))
    manual.complete_reads()
    server.loop.flush()
    assert await client.reply() == b"STAT 1 3 0\r\n"
