"""The transport on real sockets of this machine."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio

from raftnode import polling
from raftnode.frames import MESSAGE_BYTES_MAX
from raftnode.links import Address
from raftnode.os_network import OsNetwork, OsPoller
from raftnode.polling import SelectorPoller, make_poller
from raftnode.reactor import Reactor
from raftnode.trio_runtime import monotonic_us
from tests.stage3_raftnode.transports import receive, start_on_ports

LOCAL = Address("127.0.0.1", 0)
PATIENCE_SECONDS = 120


@pytest.mark.parametrize(
    ("text", "address"),
    [("localhost:80", Address("localhost", 80)), ("[::1]:9080", Address("::1", 9080)), ("h:0", Address("h", 0))],
)
def test_addresses_are_read_and_written(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:x", "host:-1", "host:65536", "::1:80", "h:²", "h:" + "9" * 5000]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        Address.parse(text)


async def test_servers_on_real_ports_exchange_messages_of_any_size() -> None:
    messages = [b"small", b"x" * 1_000_000, b"", b"y" * 60 * 1024 * 1024, b"last"]
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            members = await start_on_ports(nursery, 3)
            for message in messages:
                assert members[1].transport.send(2, message)
            members[3].transport.broadcast(b"to all")
            received = await members[2].wait_received(len(messages) + 1)
            assert [message for sender, message in received if sender == 1] == messages
            assert await members[1].wait_received(1) == [(3, b"to all")]
            nursery.cancel_scope.cancel()


async def test_heartbeats_pass_within_a_large_message() -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            members = await start_on_ports(nursery, 2)
            transport = members[1].transport
            transport.send(2, b"x" * MESSAGE_BYTES_MAX)
            for number in range(1, 6):
                transport.send(2, b"heartbeat", urgent=True)
                received = await members[2].wait_received(number)
                assert received[-1] == (1, b"heartbeat")
            assert transport.queued_bytes(2) > 0
            await members[2].wait_received(6)
            nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_read_costs_a_bounded_queue() -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            members = await start_on_ports(nursery, 2, before_receive=trio.lowlevel.checkpoint)
            members[2].transport.before_receive = trio.sleep_forever
            transport = members[1].transport
            transport.send(2, b"the last one that is read")
            await members[2].wait_received(1)
            sent_count = 0
            while transport.send(2, b"x" * 1_000_000):
                sent_count += 1
                await trio.lowlevel.checkpoint()
            assert 60_000_000 < transport.queued_bytes(2) <= 64 * 1024 * 1024
            assert transport.refused_count() == 1
            nursery.cancel_scope.cancel()


async def test_a_stopped_server_is_noticed_and_found_again() -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            members = await start_on_ports(nursery, 3)
            await members[2].stop()
            await members[1].wait_news("-2")
            await members[3].wait_news("-2")
            await nursery.start(members[2].run)
            await members[1].wait_connected(2)
            members[1].transport.send(2, b"welcome back")
            await members[2].wait_received(1)
            nursery.cancel_scope.cancel()


async def test_garbage_closes_its_own_connection_only() -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            members = await start_on_ports(nursery, 2)
            for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 1000):
                async with await trio.open_tcp_stream(*members[1].address) as stream:
                    await stream.send_all(garbage)
                    try:
                        assert await stream.receive_some() == b""
                    except trio.BrokenResourceError:
                        pass  # reset: what was sent was not all read
            members[2].transport.send(1, b"still here")
            assert await members[1].wait_received(1) == [(2, b"still here")]
            nursery.cancel_scope.cancel()


async def test_a_port_in_use_is_an_error_at_the_start() -> None:
    listener = await OsNetwork().listen(LOCAL)
    with pytest.raises(OSError, match="in use") as caught:
        await OsNetwork().listen(listener.address)
    assert caught.value.errno == errno.EADDRINUSE
    listener.close()
    listener.close()


async def test_who_cannot_be_reached_is_an_error() -> None:
    listener = await OsNetwork().listen(LOCAL)
    listener.close()
    with pytest.raises(OSError, match="refused"):
        await OsNetwork().dial(listener.address)
    with pytest.raises(OSError, match="can't be a host's name"):
        await OsNetwork().dial(Address("x" * 100 + ".example", 80))


@pytest.mark.parametrize("make", [make_poller, SelectorPoller], ids=["best poller", "portable poller"])
async def test_a_poller_names_the_links_that_have_data(make: Callable[[], polling.Poller]) -> None:
    network = OsNetwork()
    listener = await network.listen(LOCAL)
    ends = []
    for _ in range(3):
        dialled = await network.dial(listener.address)
        ends.append((dialled, await listener.accept()))
    poller = OsPoller(make())
    for number, (_, accepted) in enumerate(ends):
        poller.add(accepted, number)
        assert accepted.remote == "127.0.0.1"
        assert receive(accepted) is None
    ends[1][0].send(b"one")
    assert await poller.wait() == [1]
    assert await poller.wait() == [1]  # until it is received
    assert receive(ends[1][1]) == b"one"
    async with trio.open_nursery() as nursery:
        found: list[int] = []

        async def wait() -> None:
            found.extend(await poller.wait())

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        ends[2][0].close()
    assert found == [2]
    assert receive(ends[2][1]) == b""
    poller.remove(ends[2][1])
    ends[0][0].send(b"zero")
    assert await poller.wait() == [0]
    poller.remove(ends[0][1])
    poller.close()
    for dialled, accepted in ends:
        dialled.close()
        accepted.close()
    listener.close()


async def test_links_are_sources_of_a_reactor_while_they_are_served_by_it() -> None:
    reactor = Reactor(now_us=monotonic_us)
    network = OsNetwork(reactor)
    listener = await network.listen(LOCAL)
    ends = []
    for _ in range(3):
        dialled = await network.dial(listener.address)
        ends.append((dialled, await listener.accept()))
    poller = network.open_poller()
    poller.add(ends[0][1], 0)
    poller.add(ends[1][1], 1)
    served: list[int] = []
    news = trio.Event()

    def serve(tokens: list[int]) -> None:
        nonlocal news
        served.extend(tokens)
        for token in tokens:
            assert receive(ends[token][1])
        news.set()

    async def serves(number: int) -> None:
        nonlocal news
        news = trio.Event()
        ends[number][0].send(b"x")
        await news.wait()

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            nursery.start_soon(poller.run, serve)
            await trio.testing.wait_all_tasks_blocked()
            await serves(0)
            poller.add(ends[2][1], 2)
            poller.remove(ends[0][1])
            ends[0][0].send(b"to nobody")
            await serves(2)
            await serves(1)
            nursery.cancel_scope.cancel()
        assert served == [0, 2, 1]
        ends[1][0].send(b"one")
        assert await poller.wait() == [1], "it goes on without the reactor"
    for number in (1, 2):
        poller.remove(ends[number][1])
    poller.close()
    reactor.close()
    for dialled, accepted in ends:
        dialled.close()
        accepted.close()
    listener.close()


async def test_closing_ends_the_waiting() -> None:
    network = OsNetwork()
    listener = await network.listen(LOCAL)
    link = await network.dial(listener.address)
    accepted = await listener.accept()
    while link.send(b"x" * 1_000_000):
        pass
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            for wait in (link.wait_readable, link.wait_writable):
                nursery.start_soon(_wait_until_closed, wait)
            await trio.testing.wait_all_tasks_blocked()
            link.close()
    accepted.close()
    listener.close()


async def _wait_until_closed(wait: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await wait()
