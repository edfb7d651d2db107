"""The client library: against a server alone, and against scripted servers that meet every kind of trouble."""

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import pytest
import trio

from fileserver import client as library
from fileserver.alone import serve_alone
from fileserver.client import Client, File, ListedFile
from fileserver.config import Address

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """The client blocks, and the servers of these tests run on this thread's loop."""
    return await trio.to_thread.run_sync(call)


@pytest.fixture
async def client(nursery: trio.Nursery) -> AsyncIterator[Client]:
    """A client of a server alone."""
    port = await nursery.start(serve_alone, "127.0.0.1", 0)
    with Client([Address("127.0.0.1", port)]) as ours:
        yield ours


async def test_every_command(client: Client) -> None:
    def conversation() -> None:
        assert client.write("a", b"one") == 1
        assert client.read("a") == File(1, 3, 0, b"one")
        assert client.cas("a", 1, b"two!", expires_in_seconds=50) == 2
        assert client.stat("a") == File(2, 4, 50)
        assert client.append("a", b"\r\nOK 7\r\n") == 3
        assert client.read("a") == File(3, 12, 50, b"two!\r\nOK 7\r\n")
        assert client.append("a", b"", expires_in_seconds=0) == 4
        assert client.touch("a", 9) == 4
        assert client.cas("b/ü", 0, b"") == 5
        assert client.list() == (ListedFile(b"a", 4, 12, 9), ListedFile("b/ü".encode(), 5, 0, 0))
        assert client.list(b"b/") == (ListedFile("b/ü".encode(), 5, 0, 0),)
        assert client.list("c") == ()
        client.delete("a", 4)
        client.delete("b/ü")
        assert client.status()["files"] == 0

    await in_thread(conversation)


async def test_errors_of_the_store(client: Client) -> None:
    def conversation() -> None:
        version = client.write("a", b"one")
        for call in (
            partial(client.cas, "a", 99, b""),
            partial(client.cas, "a", 0, b""),
            partial(client.delete, "a", 99),
        ):
            with pytest.raises(library.VersionError) as caught:
                call()
            assert caught.value.version == version
        missing: list[Callable[[], object]] = [
            partial(client.read, "b"),
            partial(client.stat, "b"),
            partial(client.delete, "b"),
            partial(client.touch, "b", 1),
            partial(client.cas, "b", 1, b""),
        ]
        for each in missing:
            with pytest.raises(library.NoSuchFileError):
                each()

    await in_thread(conversation)


@pytest.mark.parametrize("name", [b"", b"x" * 251, b"a b", b"a\r\nquit", b"a\0", b"\xff", "a\u2028b"])
async def test_names_that_are_none(client: Client, name: bytes | str) -> None:
    def conversation() -> None:
        with pytest.raises(library.BadRequestError):
            client.read(name)
        assert client.list() == ()

    await in_thread(conversation)


async def test_big_contents(client: Client) -> None:
    content = bytes(range(256)) * 40_000  # 10 MB

    def conversation() -> None:
        client.write("big", content)
        assert client.read("big").content == content

    await in_thread(conversation)


async def test_a_content_over_the_limit_is_refused_and_says_so(client: Client) -> None:
    def conversation() -> None:
        with pytest.raises(library.BadRequestError, match="larger"):
            client.write("big", bytes(64 * 1024 * 1024 + 1))
        assert client.write("small", b"x") == 1

    await in_thread(conversation)


def test_a_client_needs_a_server() -> None:
    with pytest.raises(ValueError, match="server"):
        Client([])


# --------------------------------------------------------------------------------------- fail-over


class Script:
    """A server that answers each complete request by the next of its replies; None closes the connection instead."""

    def __init__(self, *replies: bytes | None) -> None:
        self.replies: Iterator[bytes | None] = iter(replies)
        self.requests: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            received = b""
            async for chunk in stream:
                received += chunk
                while is_complete(received):
                    self.requests.append(received)
                    received = b""
                    reply = next(self.replies)
                    if reply is None:
                        return
                    await stream.send_all(reply)
                    if reply.endswith(b"closes\r\n"):
                        return


def is_complete(received: bytes) -> bool:
    """Whether that is a request with its content, if it has one; names are such that none is split by chance."""
    lines = received.count(b"\r\n")
    return lines >= (2 if received.startswith((b"write", b"append", b"cas")) else 1)


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[tuple[Address, ...]]:
    """Serve those scripts, each at an address of its own."""
    async with trio.open_nursery() as nursery:
        addresses = []
        for script in scripts:
            (listener,) = await nursery.start(partial(trio.serve_tcp, script.serve, 0, host="127.0.0.1"))
            addresses.append(Address("127.0.0.1", listener.socket.getsockname()[1]))
        yield tuple(addresses)
        nursery.cancel_scope.cancel()


@pytest.fixture
def nobody() -> Iterator[Address]:
    """An address that refuses connections: bound, so that nobody else gets it, but not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", bound.getsockname()[1])


async def test_a_server_that_refuses_connections_is_passed_over(nobody: Address) -> None:
    async with scripted(Script(b"OK 7\r\n")) as (address,):
        with Client([nobody, address]) as client:
            assert await in_thread(lambda: client.write("a", b"x")) == 7


async def test_when_nobody_is_there_it_is_soon_said(nobody: Address) -> None:
    started_at = time.monotonic()
    with Client([nobody], timeout_seconds=60) as client, pytest.raises(library.NotAppliedError, match="refused"):
        await in_thread(lambda: client.write("a", b"x"))
    assert time.monotonic() - started_at < 30


async def test_a_read_is_tried_elsewhere_when_the_connection_breaks() -> None:
    first, second = Script(None), Script(b"CONTENTS 3 2 0\r\nhi\r\n")
    async with scripted(first, second) as addresses:
        with Client(addresses) as client:
            assert await in_thread(lambda: client.read("a")) == File(3, 2, 0, b"hi")
    assert first.requests == second.requests == [b"read a\r\n"]


async def test_a_read_is_tried_elsewhere_when_a_reply_is_cut_short() -> None:
    async with scripted(Script(b"CONTENTS 3 200 0\r\ncloses\r\n"), Script(b"STAT 3 2 0\r\n")) as addresses:
        with Client(addresses) as client:
            assert await in_thread(lambda: client.stat("a")) == File(3, 2, 0)


async def test_a_change_is_never_sent_again_when_the_connection_breaks() -> None:
    first, second = Script(None), Script(b"OK 8\r\n")
    async with scripted(first, second) as addresses:
        with Client(addresses) as client:
            with pytest.raises(library.OutcomeUnknownError):
                await in_thread(lambda: client.write("a", b"x"))
            assert second.requests == []
            assert await in_thread(lambda: client.write("a", b"x")) == 8


async def test_a_change_is_sent_again_when_it_certainly_was_not_made() -> None:
    first = Script(b"ERR_INTERNAL no leader, not applied\r\n")
    async with scripted(first, Script(b"OK 8\r\n")) as addresses:
        with Client(addresses) as client:
            assert await in_thread(lambda: client.write("a", b"x")) == 8


async def test_a_change_whose_outcome_a_server_does_not_know() -> None:
    first, second = Script(b"ERR_INTERNAL outcome unknown\r\n"), Script()
    async with scripted(first, second) as addresses:
        with Client(addresses) as client, pytest.raises(library.OutcomeUnknownError):
            await in_thread(lambda: client.append("a", b"x"))
    assert second.requests == []


async def test_a_read_with_an_internal_error_is_tried_elsewhere() -> None:
    async with scripted(Script(b"ERR_INTERNAL no leader\r\n"), Script(b"STAT 3 2 0\r\n")) as addresses:
        with Client(addresses) as client:
            assert await in_thread(lambda: client.stat("a")) == File(3, 2, 0)


async def test_a_busy_server_is_asked_again_later() -> None:
    script = Script(b"ERR_BUSY 0 too many requests\r\n", b"OK 8\r\n")
    async with scripted(script) as addresses:
        with Client(addresses) as client:
            assert await in_thread(lambda: client.write("a", b"x")) == 8
    assert len(script.requests) == 2


async def test_a_server_that_stays_busy() -> None:
    async with scripted(Script(b"ERR_BUSY 60 too many requests\r\n")) as addresses:
        with Client(addresses) as client, pytest.raises(library.NotAppliedError, match="busy: 60 too many requests"):
            await in_thread(lambda: client.write("a", b"x"))


async def test_a_redirection_is_followed() -> None:
    leader = Script(b"OK 8\r\n", b"OK\r\n")
    async with (
        scripted(leader) as (elsewhere,),
        scripted(Script(b"ERR_REDIRECT %s\r\n" % str(elsewhere).encode())) as known,
    ):
        with Client(known) as client:
            assert await in_thread(lambda: client.write("a", b"x")) == 8
            await in_thread(lambda: client.delete("a"))  # by the connection that worked


async def test_a_redirection_to_nowhere_is_tried_elsewhere() -> None:
    async with scripted(Script(b"ERR_REDIRECT nowhere\r\n"), Script(b"OK 8\r\n")) as addresses:
        with Client(addresses) as client:
            assert await in_thread(lambda: client.write("a", b"x")) == 8


async def test_a_connection_that_the_server_has_closed_while_it_was_idle() -> None:
    """A change on it would be lost in an unknown state; so it is noticed before it is used."""
    script = Script(b"STAT 1 closes\r\n", b"OK 8\r\n")
    async with scripted(script) as addresses:
        with Client(addresses) as client:
            with pytest.raises(library.ProtocolError):
                await in_thread(lambda: client.stat("a"))
            assert await in_thread(lambda: client.write("a", b"x")) == 8


async def test_an_idle_connection_that_was_closed_is_made_anew() -> None:
    closed = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"OK 8\r\n")
        await stream.aclose()
        closed.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        with Client([Address("127.0.0.1", listener.socket.getsockname()[1])]) as client:
            for _ in range(3):
                assert await in_thread(lambda: client.write("a", b"x")) == 8
                await closed.wait()
                closed = trio.Event()
        nursery.cancel_scope.cancel()


@pytest.fixture
def broken_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request can't be sent as a whole, as when a server closes the connection in the middle of it."""
    monkeypatch.setattr(library, "_PAUSE_SECONDS", 5)  # so that the reply comes in time on a busy machine
    really_send = library._Connection.send
    is_first = iter([True])

    def send(connection: library._Connection, parts: Sequence[bytes], deadline: float) -> None:
        if next(is_first, False):
            really_send(connection, [b"half a request\r\n"], deadline)
            raise BrokenPipeError(32, "Broken pipe")
        really_send(connection, parts, deadline)

    monkeypatch.setattr(library._Connection, "send", send)


@pytest.mark.usefixtures("broken_send")
async def test_a_request_that_was_refused_before_it_was_sent_as_a_whole() -> None:
    async with scripted(Script(b"ERR_CMD_ERR content is too large\r\n")) as addresses:
        with Client(addresses) as client, pytest.raises(library.BadRequestError, match="too large"):
            await in_thread(lambda: client.append("a", b"x"))


@pytest.mark.usefixtures("broken_send")
@pytest.mark.parametrize("reply", [None, b"ERR_BUSY 0 later\r\n"])
async def test_a_change_that_was_not_sent_as_a_whole_may_be_sent_again(reply: bytes | None) -> None:
    async with scripted(Script(reply), Script(b"OK 8\r\n")) as addresses:
        with Client(addresses) as client:
            assert await in_thread(lambda: client.append("a", b"x")) == 8


@pytest.mark.usefixtures("broken_send")
async def test_an_answer_to_what_was_not_sent_as_a_whole() -> None:
    async with scripted(Script(b"OK 8\r\n")) as addresses:
        with Client(addresses) as client, pytest.raises(library.ProtocolError, match="before it was sent"):
            await in_thread(lambda: client.append("a", b"x"))


async def test_a_silent_server_is_left_for_another_by_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SILENCE_SECONDS", 0.05)
    async with scripted(Script(b""), Script(b"STAT 3 2 0\r\n")) as addresses:
        with Client(addresses) as client:
            assert await in_thread(lambda: client.stat("a")) == File(3, 2, 0)


async def test_a_silent_server_leaves_a_change_unknown() -> None:
    async with scripted(Script(b"")) as addresses:
        with Client(addresses, timeout_seconds=0.1) as client, pytest.raises(library.OutcomeUnknownError):
            await in_thread(lambda: client.write("a", b"x"))


@pytest.mark.parametrize(
    "reply",
    [
        b"HELLO\r\n",
        b"OK many\r\n",
        b"OK\r\n",
        b"CONTENTS 1\r\n",
        b"CONTENTS 1 -5 0\r\n",
        b"ERR_VERSION\r\n",
        b"ERR_NEWS 1\r\n",
        b"ERR_BUSY soon\r\n",
        b"x" * 10_000,
    ],
)
async def test_what_is_no_reply(reply: bytes) -> None:
    async with scripted(Script(reply)) as addresses:
        with Client(addresses, timeout_seconds=5) as client, pytest.raises(library.ProtocolError):
            await in_thread(lambda: client.write("a", b"x"))


@pytest.mark.parametrize("content", [b"not JSON", b"[1]"])
async def test_a_status_that_is_none(content: bytes) -> None:
    async with scripted(Script(b"STATUS %d\r\n%s\r\n" % (len(content), content))) as addresses:
        with Client(addresses) as client, pytest.raises(library.ProtocolError, match="status"):
            await in_thread(client.status)
