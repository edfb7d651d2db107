"""The transport on a network in memory, on a clock that jumps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from raftnode.frames import FRAME_BYTES_MAX, HEAD_BYTES, FrameDecoder, frame
from raftnode.hello import PROTOCOL_VERSION, Hello, decode_answer, encode_hello
from raftnode.links import Address, Link
from raftnode.memory_network import PIPE_BYTES_MAX
from raftnode.transport import Transport, TransportLimits
from tests.stage3_raftnode.transports import memory_members, receive, start


@pytest.fixture
def log_lines() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with capture_logs() as lines:
        yield lines


def warnings(lines: list[Any]) -> list[str]:
    return [f"{line['about']}: {line['why']}" for line in lines if line["log_level"] == "warning"]


async def test_a_message_arrives_with_its_sender(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(3)
        await start(nursery, members.values())
        assert members[1].transport.send(2, b"hello")
        assert await members[2].wait_received(1) == [(1, b"hello")]
        members[2].transport.broadcast(b"to all")
        assert await members[1].wait_received(1) == [(2, b"to all")]
        assert await members[3].wait_received(1) == [(2, b"to all")]
        assert members[1].transport.connected == {2, 3}
        nursery.cancel_scope.cancel()


async def test_messages_of_any_size_keep_their_order(autojump_clock: MockClock) -> None:
    sizes = [0, 1, 262_144, 262_145, 1_000_000, 3, 5_000_000, 16_385, 2]
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2)
        await start(nursery, members.values())
        for message in messages:
            assert members[1].transport.send(2, message)
        assert await members[2].wait_received(len(messages)) == [(1, message) for message in messages]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("room_bytes", [0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 50_000])
async def test_what_the_network_does_not_take_of_a_message_follows(room_bytes: int, autojump_clock: MockClock) -> None:
    """A message whose head and contents are sent from where they lie, wherever the room ends."""
    filling = PIPE_BYTES_MAX - room_bytes
    sizes = [FRAME_BYTES_MAX] * (filling // (FRAME_BYTES_MAX + HEAD_BYTES))
    sizes.append(filling - sum(sizes) - (len(sizes) + 1) * HEAD_BYTES)
    messages = [b"f" * size for size in sizes] + [bytes(range(250)) * 400, b"behind it"]
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2)
        await start(nursery, members.values())
        for message in messages[:-2]:
            assert members[1].transport.send(2, message)
        assert members[1].transport.queued_bytes(2) == 0
        for message in messages[-2:]:
            assert members[1].transport.send(2, message)
        assert members[1].transport.queued_bytes(2) > 0
        assert await members[2].wait_received(len(messages)) == [(1, message) for message in messages]
        nursery.cancel_scope.cancel()


async def test_several_messages_may_go_together(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2, limits=TransportLimits(outbox_bytes_max=600_000))
        await start(nursery, members.values())
        assert members[1].transport.send_all(2, [b"one", b"two"]) == 2
        large = [b"x" * 300_000] * 30
        sent_count = members[1].transport.send_all(2, large)
        assert sent_count < 30
        assert members[1].transport.refused_count() == 1
        received = await members[2].wait_received(2 + sent_count)
        assert received == [(1, b"one"), (1, b"two"), *[(1, large[0])] * sent_count]
        nursery.cancel_scope.cancel()


async def test_an_urgent_message_passes_a_large_one(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2)
        await start(nursery, members.values())
        members[1].transport.send(2, b"x" * 64 * 1024 * 1024)
        members[1].transport.send(2, b"heartbeat", urgent=True)
        assert await members[2].wait_received(1) == [(1, b"heartbeat")]
        await members[2].wait_received(2)
        nursery.cancel_scope.cancel()


async def test_a_large_urgent_message_waits_like_others(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2)
        await start(nursery, members.values())
        members[1].transport.send(2, b"x" * 20_000_000)
        members[1].transport.send(2, b"y" * 20_000, urgent=True)
        received = await members[2].wait_received(2)
        assert [message[:1] for _, message in received] == [b"x", b"y"]
        nursery.cancel_scope.cancel()


async def test_sending_has_limits(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2, limits=TransportLimits(message_bytes_max=1000))
        await start(nursery, members.values())
        with pytest.raises(ValueError, match="1001 bytes, the limit is 1000"):
            members[1].transport.send(2, b"x" * 1001)
        with pytest.raises(ValueError, match="1001 bytes"):
            members[1].transport.broadcast(b"x" * 1001)
        with pytest.raises(KeyError):
            members[1].transport.send(7, b"nobody")
        nursery.cancel_scope.cancel()


def test_nobody_is_their_own_peer() -> None:
    address = Address("1", 9000)
    with pytest.raises(ValueError, match="peer of itself"):
        Transport(identity=Hello(1, "demo", 1), listen=address, peers={1: address}, deliver=lambda *_: None)


async def test_without_a_connection_messages_are_dropped_and_counted(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2)
        await nursery.start(members[1].run)
        transport = members[1].transport
        assert not transport.send(2, b"to nobody")
        assert transport.send_all(2, [b"to nobody"]) == 0
        transport.broadcast(b"to nobody")
        assert transport.dropped_count == 3
        await nursery.start(members[2].run)
        await members[1].wait_connected(2)
        assert transport.send(2, b"here now")
        assert await members[2].wait_received(1) == [(1, b"here now")]
        nursery.cancel_scope.cancel()


async def test_messages_may_be_kept_for_who_starts_late(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2, keep_for_absent=True, limits=TransportLimits(outbox_bytes_max=400_000))
        await nursery.start(members[1].run)
        transport = members[1].transport
        assert transport.send(2, b"first")
        assert transport.send(2, b"x" * 300_000)
        assert not transport.send(2, b"y" * 300_000)
        assert transport.queued_bytes(2) == 300_005
        await trio.sleep(100)
        await nursery.start(members[2].run)
        assert await members[2].wait_received(2) == [(1, b"first"), (1, b"x" * 300_000)]
        nursery.cancel_scope.cancel()


async def test_a_restarted_server_is_found_again(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(3)
        await start(nursery, members.values())
        await members[3].stop()
        for other in (1, 2):
            await members[other].wait_news("-3")
        await trio.sleep(60)
        for other in (1, 2):
            assert members[other].transport.connected == {3 - other}
        before = trio.current_time()
        await start(nursery, [members[3]])
        await members[3].wait_connected(1, 2)
        await members[1].wait_connected(3)
        # It dials at once, and who is dialled dials back at once, whatever its pause had come to.
        assert trio.current_time() - before < 0.2
        assert members[1].news == ["+2", "+3", "-3", "-3", "+3"]
        members[1].transport.send(3, b"welcome back")
        assert await members[3].wait_received(1) == [(1, b"welcome back")]
        nursery.cancel_scope.cancel()


async def test_pauses_between_attempts_double_up_to_a_second(autojump_clock: MockClock) -> None:
    attempts: list[float] = []

    class Nobody:
        async def dial(self, address: Address) -> Link:
            attempts.append(trio.current_time())
            raise ConnectionRefusedError("nobody there")

    _, members = memory_members(2, random=Random(1))
    host = members[1].network

    class Network(Nobody):
        listen = host.listen
        open_poller = host.open_poller

    members[1].network = Network()
    with trio.move_on_after(20):
        await members[1].run()
    pauses = [after - before for before, after in pairwise(attempts)]
    for number, pause in enumerate(pauses):
        longest = min(0.05 * 2**number, 1.0)
        assert longest / 2 <= pause <= longest
    assert len({round(pause, 6) for pause in pauses[6:]}) > 5  # jitter


async def test_a_reset_connection_is_made_again_and_what_was_queued_is_dropped(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        await start(nursery, members.values())
        network.cut("1", "2")
        members[1].transport.send(2, b"x" * 20_000_000)
        assert members[1].transport.queued_bytes(2) > 10_000_000
        network.reset("1", "2")
        await members[1].wait_news("-2")
        assert not members[1].transport.send(2, b"nobody there")
        assert members[1].transport.connected == set()
        network.heal("1", "2")
        await members[1].wait_connected(2)
        assert members[1].transport.queued_bytes(2) == 0
        members[1].transport.send(2, b"new")
        assert await members[2].wait_received(1) == [(1, b"new")]
        nursery.cancel_scope.cancel()


async def test_sending_notices_that_a_connection_is_broken(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        await start(nursery, members.values())
        network.reset("1", "2")
        assert members[1].transport.connected == {2}  # nobody has looked yet
        members[1].transport.send(2, b"into the void")
        assert members[1].transport.connected == set()
        network.reset("1", "2")
        members[2].transport.send(1, b"x" * 1_000_000)
        assert members[2].transport.connected == set()
        await members[1].wait_connected(2)
        await members[2].wait_connected(1)
        nursery.cancel_scope.cancel()


async def test_waiting_for_room_ends_with_room_or_with_the_connection(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2, limits=TransportLimits(outbox_bytes_max=1_000_000))
        await start(nursery, members.values())
        transport = members[1].transport
        network.cut("1", "2")
        transport.send(2, b"x" * 5_500_000)
        assert not transport.send(2, b"y")
        with trio.move_on_after(100) as patience:
            await transport.wait_for_room(2, 1)
        assert patience.cancelled_caught
        network.heal("1", "2")
        await transport.wait_for_room(2, 1)
        assert transport.send(2, b"y")
        await members[2].wait_received(2)
        network.cut("1", "2")
        transport.send(2, b"x" * 5_500_000)
        nursery.start_soon(transport.wait_for_room, 2, 1)
        await trio.testing.wait_all_tasks_blocked()
        network.reset("1", "2")
        await members[1].wait_news("-2")
        await transport.wait_for_room(2, 1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("identity", "theirs", "ours"),
    [
        (
            Hello(PROTOCOL_VERSION, "other", 2),
            "connection to server 1: it belongs to cluster 'demo', not 'other'",
            "connection from 2, server 2: refused: it belongs to cluster 'other', not 'demo'",
        ),
        (
            Hello(9, "demo", 2),
            f"connection to server 1: it speaks protocol version {PROTOCOL_VERSION}, not 9",
            f"connection from 2, server 0: refused: it speaks protocol version 9, not {PROTOCOL_VERSION}",
        ),
        (
            Hello(PROTOCOL_VERSION, "demo", 3),
            "connection to server 1: it refuses us: this server says it is server 3, which is not expected here",
            "connection from 2, server 3: refused: it says it is server 3, which is not expected here",
        ),
    ],
)
async def test_a_server_with_a_wrong_hello_is_refused_in_one_line(
    identity: Hello, theirs: str, ours: str, log_lines: list[Any], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2)
        members[2].options["identity"] = identity
        await nursery.start(members[1].run)
        await nursery.start(members[2].run)
        await trio.sleep(60)
        assert members[1].transport.connected == members[2].transport.connected == set()
        said = warnings(log_lines)
        assert said.count(ours) == 1
        if identity.protocol_version == PROTOCOL_VERSION:
            assert said.count(theirs) == 1
        assert len(said) <= 5  # once for each attempt that ended differently, in 60 seconds
        nursery.cancel_scope.cancel()


async def hello_on(link: Link, hello: Hello) -> str:
    """Says hello by hand; the refusal, empty if there is none."""
    link.send(frame(encode_hello(hello)))
    await link.wait_readable()
    data = receive(link)
    assert data is not None
    return decode_answer(FrameDecoder().feed(data)[0]).refusal


async def test_messages_before_hello_do_not_get_through(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        await nursery.start(members[1].run)
        link = await network.host("2").dial(Address("1", 9000))
        link.send(frame(encode_hello(Hello(PROTOCOL_VERSION, "demo", 2))) + frame(b"too early"))
        await link.wait_readable()
        assert receive(link) == b""
        assert members[1].received == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", frame(b"hello"), frame(b"x" * 2000), b"\0"])
async def test_who_does_not_say_hello_is_sent_away(
    garbage: bytes, log_lines: list[Any], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        members[1].peers.clear()
        await nursery.start(members[1].run)
        for _ in range(3):
            link = await network.host("stranger").dial(Address("1", 9000))
            link.send(garbage)
            await link.wait_readable()
            assert receive(link) == b""
            link.close()
        assert len(warnings(log_lines)) == 1
        assert warnings(log_lines)[0].startswith("connection from stranger: refused: ")
        nursery.cancel_scope.cancel()


async def test_who_only_looks_whether_the_port_is_open_is_not_reported(
    log_lines: list[Any], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        members[1].peers.clear()
        await nursery.start(members[1].run)
        (await network.host("stranger").dial(Address("1", 9000))).close()
        await trio.sleep(10)
        assert warnings(log_lines) == []
        nursery.cancel_scope.cancel()


async def test_strangers_are_limited_in_number_and_time(log_lines: list[Any], autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2, limits=TransportLimits(strangers_count_max=3))
        members[1].peers.clear()
        await nursery.start(members[1].run)
        links = [await network.host("stranger").dial(Address("1", 9000)) for _ in range(4)]
        before = trio.current_time()
        await links[3].wait_readable()
        assert trio.current_time() == before
        for link in links[:3]:
            await link.wait_readable()
            assert receive(link) == b""
            assert trio.current_time() - before == pytest.approx(5)
        assert warnings(log_lines) == [
            "incoming connections: too many that don't say hello",
            "connection from stranger: refused: it didn't say hello in time",
        ]
        nursery.cancel_scope.cancel()


async def test_garbage_after_hello_closes_its_connection_only(log_lines: list[Any], autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(3)
        await start(nursery, [members[1], members[2]])
        link = await network.host("3").dial(Address("1", 9000))
        assert await hello_on(link, Hello(PROTOCOL_VERSION, "demo", 3)) == ""
        link.send(frame(b"sound") + b"\xff" * 10)
        await link.wait_readable()
        assert receive(link) == b""
        await members[1].wait_news("-3")
        assert "messages of server 3: no such channel or flag: 255, 255" in warnings(log_lines)
        members[2].transport.send(1, b"still here")
        assert (2, b"still here") in await members[1].wait_received(1)
        nursery.cancel_scope.cancel()


async def test_the_owner_can_close_a_connection_whose_messages_make_no_sense(
    log_lines: list[Any], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        _, members = memory_members(2)
        await start(nursery, members.values())
        members[1].transport.disconnect(2, "of unknown kind 9")
        members[1].transport.disconnect(2, "of unknown kind 9")
        await members[2].wait_news("-1")
        await members[2].wait_connected(1)
        assert warnings(log_lines).count("messages of server 2: of unknown kind 9") == 1
        nursery.cancel_scope.cancel()


async def test_a_new_connection_of_a_peer_replaces_its_old_one(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        await nursery.start(members[1].run)
        hello = Hello(PROTOCOL_VERSION, "demo", 2)
        old = await network.host("2").dial(Address("1", 9000))
        assert await hello_on(old, hello) == ""
        new = await network.host("2").dial(Address("1", 9000))
        assert await hello_on(new, hello) == ""
        await old.wait_readable()
        assert receive(old) == b""
        new.send(frame(b"from the new one"))
        assert await members[1].wait_received(1) == [(2, b"from the new one")]
        assert "-2" not in members[1].news
        nursery.cancel_scope.cancel()


async def test_a_peer_that_never_answers_is_given_up_after_five_seconds(
    log_lines: list[Any], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        listener = await network.host("2").listen(Address("2", 9000))
        await nursery.start(members[1].run)
        before = trio.current_time()
        link = await listener.accept()
        await link.wait_readable()
        receive(link)
        await link.wait_readable()
        assert receive(link) == b""
        assert trio.current_time() - before == pytest.approx(5)
        assert warnings(log_lines) == ["connection to server 2: no answer in time"]
        nursery.cancel_scope.cancel()


async def test_a_failing_accept_is_reported_and_tried_again(log_lines: list[Any], autojump_clock: MockClock) -> None:
    class Exhausted:
        address = Address("1", 9000)
        failures = 0

        async def accept(self) -> Link:
            self.failures += 1
            if self.failures > 3:
                await trio.sleep_forever()
            raise OSError(24, "Too many open files")

        def close(self) -> None:
            pass

    listener = Exhausted()
    _, members = memory_members(2)
    host = members[1].network

    class Network:
        dial = host.dial
        open_poller = host.open_poller

        async def listen(self, address: Address) -> Exhausted:
            return listener

    members[1].network = Network()
    members[1].peers.clear()
    with trio.move_on_after(1):
        await members[1].run()
    assert listener.failures == 4
    assert warnings(log_lines) == ["incoming connections: [Errno 24] Too many open files"]


async def test_a_log_line_of_each_peer_is_not_repeated_and_not_hoarded(
    log_lines: list[Any], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        members[1].peers.clear()
        await nursery.start(members[1].run)
        for number in range(600):
            link = await network.host(f"host-{number % 300}").dial(Address("1", 9000))
            link.send(b"\xff" * 10)
            await link.wait_readable()
        assert 300 <= len(warnings(log_lines)) <= 600
        assert len(members[1].transport._complaints) <= 256
        nursery.cancel_scope.cancel()
