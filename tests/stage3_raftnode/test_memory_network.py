"""The network that tests run on: its faults do what they say."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from raftnode.frames import FRAME_BYTES_MAX, Channel, frame_head
from raftnode.links import Address
from raftnode.memory_network import PIPE_BYTES_MAX
from tests.stage3_raftnode.transports import Member, memory_members, receive, start


def numbered(member: Member) -> list[int]:
    return [int(message) for _, message in member.received]


async def test_delay_is_random_within_its_bounds_and_keeps_the_order(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        await start(nursery, members.values())
        network.set_delay(10_000, 30_000)
        delays = []
        for number in range(50):
            before = trio.current_time()
            members[1].transport.send(2, b"%d" % number)
            await members[2].wait_received(number + 1)
            delays.append(trio.current_time() - before)
        assert min(delays) >= 0.01 - 1e-6
        assert max(delays) <= 0.03 + 1e-6
        assert len({round(delay, 6) for delay in delays}) > 40
        for number in range(50, 100):
            members[1].transport.send(2, b"%d" % number)
        await members[2].wait_received(100)
        assert numbered(members[2]) == list(range(100))
        nursery.cancel_scope.cancel()


async def test_a_cut_holds_what_is_sent_until_it_is_healed(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(3)
        await start(nursery, members.values())
        network.set_delay(5_000, 5_000, "1", "2")
        members[1].transport.send(2, b"under way")
        network.cut("1", "2")
        members[1].transport.send(2, b"held")
        members[1].transport.send(3, b"elsewhere")
        await members[3].wait_received(1)
        await trio.sleep(60)
        assert members[2].received == []
        network.heal("1", "2")
        assert await members[2].wait_received(2) == [(1, b"under way"), (1, b"held")]
        assert members[2].news == ["+1", "+3"]
        nursery.cancel_scope.cancel()


async def test_a_one_way_cut_lets_the_other_way_through(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        await start(nursery, members.values())
        network.cut_one_way("1", "2")
        members[1].transport.send(2, b"held")
        members[2].transport.send(1, b"through")
        await members[1].wait_received(1)
        await trio.sleep(10)
        assert members[2].received == []
        network.heal_all()
        await members[2].wait_received(1)
        nursery.cancel_scope.cancel()


async def test_partitions_separate_groups(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(5)
        await start(nursery, members.values())
        network.partition({"1", "2"}, {"3", "4"}, {"5"})
        for member in members.values():
            member.transport.broadcast(b"who is there?")
        await trio.sleep(1)
        heard = {server_id: sorted(sender for sender, _ in member.received) for server_id, member in members.items()}
        assert heard == {1: [2], 2: [1], 3: [4], 4: [3], 5: []}
        network.partition({"1", "2", "3", "4", "5"})
        for member in members.values():
            await member.wait_received(4)
        nursery.cancel_scope.cancel()


async def test_nobody_can_dial_across_a_cut(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        network.cut_one_way("2", "1")
        for member in members.values():
            await nursery.start(member.run)
        await trio.sleep(60)
        assert not members[1].transport.connected
        network.heal_all()
        with trio.fail_after(1.1):
            await members[1].wait_connected(2)
            await members[2].wait_connected(1)
        nursery.cancel_scope.cancel()


async def test_a_server_that_stops_behind_a_cut_seems_alive_until_it_is_healed(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network, members = memory_members(2)
        await start(nursery, members.values())
        network.cut("1", "2")
        await members[2].stop()
        await trio.sleep(10)
        assert members[1].transport.connected == {2}
        network.heal("1", "2")
        await members[1].wait_news("-2")
        nursery.cancel_scope.cancel()


async def test_a_tenth_of_the_messages_can_be_lost(autojump_clock: MockClock) -> None:
    lost = []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            network, members = memory_members(3)
            await start(nursery, members.values())
            network.set_loss(0.1, "1", "2")
            for number in range(2000):
                members[1].transport.send(2, b"%d" % number)
                members[1].transport.send(3, b"%d" % number)
            await members[3].wait_received(2000)
            await trio.sleep(1)
            received = numbered(members[2])
            assert received == sorted(set(received))
            assert 1740 < len(received) < 1860
            lost.append(set(range(2000)) - set(received))
            # Those that are cut in pieces vanish as a whole, so what arrives makes sense still.
            del members[2].received[:]
            for number in range(60):
                members[1].transport.send(2, b"%600000d" % number)
            network.set_loss(0.0)
            members[1].transport.send(2, b"60")
            while not members[2].received or members[2].received[-1][1] != b"60":
                await members[2].changed.park()
            assert 40 < len(members[2].received) <= 61
            nursery.cancel_scope.cancel()
    assert lost[0] == lost[1]  # the same seed loses the same


async def test_a_pipe_holds_so_much_and_no_more(autojump_clock: MockClock) -> None:
    network, _ = memory_members(2)
    listener = await network.host("2").listen(Address("2", 1))
    link = await network.host("1").dial(Address("2", 1))
    accepted = await listener.accept()
    assert link.remote == "2"
    assert accepted.remote == "1"
    data = (frame_head(FRAME_BYTES_MAX, Channel.BULK, more=False) + bytes(FRAME_BYTES_MAX)) * 20
    assert link.send(data) == PIPE_BYTES_MAX
    assert link.send(data) == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.wait_writable)
        await trio.testing.wait_all_tasks_blocked()
        assert receive(accepted) is not None
    link.close()
    link.close()
    with pytest.raises(ConnectionResetError):
        link.send(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await link.wait_writable()
    with pytest.raises(trio.ClosedResourceError):
        await link.wait_readable()


async def test_addresses_belong_to_their_hosts_and_listeners(autojump_clock: MockClock) -> None:
    network, _ = memory_members(2)
    host = network.host("1")
    with pytest.raises(OSError, match="isn't an address of 1"):
        await host.listen(Address("2", 1))
    with pytest.raises(ConnectionRefusedError):
        await host.dial(Address("2", 1))
    listener = await host.listen(Address("1", 1))
    with pytest.raises(OSError, match="in use"):
        await host.listen(Address("1", 1))
    link = await network.host("2").dial(Address("1", 1))
    listener.close()
    await link.wait_readable()
    assert receive(link) == b""
    await host.listen(Address("1", 1))
