"""The transport as a small library for cluster messages: what the course's assignment asks of it."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from raftnode.links import Address
from raftnode.memory_network import MemoryNetwork
from raftnode.messenger import INBOX_COUNT_MAX, Messenger, MessengerConfig
from raftnode.os_network import OsNetwork
from raftnode.transport import TransportLimits

PATIENCE_SECONDS = 240


def config_text(server_id: int, addresses: dict[int, str]) -> str:
    servers = [{"id": other, "address": address} for other, address in addresses.items()]
    return json.dumps({"id": server_id, "servers": servers})


def memory_messengers(count: int, **options: Any) -> tuple[MemoryNetwork, dict[int, Messenger]]:
    network = MemoryNetwork(Random(0))
    addresses = {server_id: f"host{server_id}:9000" for server_id in range(1, count + 1)}
    return network, {
        server_id: Messenger(
            MessengerConfig.parse(config_text(server_id, addresses)), network.host(f"host{server_id}"), **options
        )
        for server_id in addresses
    }


async def os_messengers(count: int) -> dict[int, Messenger]:
    """On ports that were free a moment ago."""
    listeners = [await OsNetwork().listen(Address("127.0.0.1", 0)) for _ in range(count)]
    addresses = {server_id: str(listener.address) for server_id, listener in enumerate(listeners, start=1)}
    for listener in listeners:
        listener.close()
    return {
        server_id: Messenger(
            MessengerConfig.parse(config_text(server_id, addresses)), limits=TransportLimits(retry_max_us=50_000)
        )
        for server_id in addresses
    }


async def start(nursery: trio.Nursery, messengers: dict[int, Messenger]) -> None:
    for messenger in messengers.values():
        await nursery.start(messenger.run)
    for messenger in messengers.values():
        await messenger.wait_connected()


async def test_five_servers_and_130_000_messages_with_none_lost() -> None:
    """Each of five sends 6,500 messages to each other one, on real sockets."""
    count_each = 6_500
    wrong: list[str] = []

    async def send_all(messenger: Messenger) -> None:
        for number in range(count_each):
            await messenger.broadcast(b"%d" % number)

    async def receive_all(messenger: Messenger, inboxes: Counter[int]) -> None:
        expected: Counter[int] = Counter()
        for _ in range(4 * count_each):
            sender, message = await messenger.inbox.receive()
            if int(message) != expected[sender]:
                wrong.append(f"{message!r} of {sender} instead of {expected[sender]}")
            expected[sender] += 1
            inboxes[messenger.config.server_id] += 1

    inboxes: Counter[int] = Counter()
    with trio.fail_after(PATIENCE_SECONDS):
        messengers = await os_messengers(5)
        async with trio.open_nursery() as running:
            await start(running, messengers)
            async with trio.open_nursery() as nursery:
                for messenger in messengers.values():
                    nursery.start_soon(send_all, messenger)
                    nursery.start_soon(receive_all, messenger, inboxes)
            running.cancel_scope.cancel()
    assert not wrong
    assert inboxes.total() == 130_000


async def test_messages_of_a_megabyte() -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        messengers = await os_messengers(2)
        async with trio.open_nursery() as nursery:
            await start(nursery, messengers)
            for number in range(20):
                assert await messengers[1].send(2, bytes([number]) * 1_000_000)
            for number in range(20):
                assert await messengers[2].inbox.receive() == (1, bytes([number]) * 1_000_000)
            nursery.cancel_scope.cancel()


async def test_a_server_that_starts_late_gets_what_was_sent_before(autojump_clock: MockClock) -> None:
    _, messengers = memory_messengers(3)
    async with trio.open_nursery() as nursery:
        await nursery.start(messengers[1].run)
        await nursery.start(messengers[2].run)
        for number in range(100):
            await messengers[1].broadcast(b"%d" % number)
        assert await messengers[2].inbox.receive() == (1, b"0")
        await trio.sleep(100)
        assert messengers[1].connected == {2}
        await nursery.start(messengers[3].run)
        assert [await messengers[3].inbox.receive() for _ in range(100)] == [(1, b"%d" % n) for n in range(100)]
        nursery.cancel_scope.cancel()


async def test_a_broadcast_storm_is_held_back_by_a_full_inbox(autojump_clock: MockClock) -> None:
    """Nobody reads: what waits stays within its bounds. Then somebody does, and nothing is missing."""
    _, messengers = memory_messengers(2, limits=TransportLimits(outbox_bytes_max=100_000))
    sent_count = 0

    async def send_many() -> None:
        nonlocal sent_count
        for _ in range(3 * INBOX_COUNT_MAX):
            assert await messengers[1].send(2, b"x" * 10_000)
            sent_count += 1

    async with trio.open_nursery() as nursery:
        await start(nursery, messengers)
        nursery.start_soon(send_many)
        await trio.sleep(100)
        assert INBOX_COUNT_MAX <= sent_count < 2 * INBOX_COUNT_MAX
        for _ in range(3 * INBOX_COUNT_MAX):
            assert await messengers[2].inbox.receive() == (1, b"x" * 10_000)
        nursery.cancel_scope.cancel()


async def test_the_inbox_ends_with_run(autojump_clock: MockClock) -> None:
    _, messengers = memory_messengers(2)
    async with trio.open_nursery() as nursery:
        await start(nursery, messengers)
        await messengers[1].send(2, b"before the end")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [received async for received in messengers[2].inbox] == [(1, b"before the end")]


@pytest.mark.parametrize("count", [1, 3000])
async def test_a_closed_inbox_harms_nobody(count: int, autojump_clock: MockClock) -> None:
    _, messengers = memory_messengers(3)
    async with trio.open_nursery() as nursery:
        await start(nursery, messengers)
        for _ in range(count):
            await messengers[1].send(2, b"nobody wants it")
        messengers[2].inbox.close()
        await messengers[1].send(2, b"nobody wants it")
        await trio.testing.wait_all_tasks_blocked()
        await messengers[2].send(3, b"still here")
        assert await messengers[3].inbox.receive() == (2, b"still here")
        nursery.cancel_scope.cancel()


async def test_messages_to_nobody_are_an_error(autojump_clock: MockClock) -> None:
    _, messengers = memory_messengers(2)
    for nobody in (1, 3):
        with pytest.raises(KeyError):
            await messengers[1].send(nobody, b"hello?")


def test_a_configuration_may_name_its_cluster() -> None:
    text = '{"id": 1, "cluster": "demo", "servers": [{"id": 1, "address": "127.0.0.1:9001"}]}'
    config = MessengerConfig.parse(text)
    assert config == MessengerConfig(1, {1: Address("127.0.0.1", 9001)}, "demo")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "no JSON object"),
        ("{}", "servers: missing, or no list"),
        ('{"id": 1, "servers": [], "port": 80}', "port: no such key"),
        ('{"id": 1, "servers": []}', "id: server 1 isn't among the servers"),
        ('{"id": "1", "servers": []}', "id: missing, or no int"),
        ('{"id": 1, "servers": [7]}', r"servers\[0\]: not an object"),
        ('{"id": 1, "servers": [{"id": 1}]}', r"servers\[0\]: not an object"),
        ('{"id": 1, "servers": [{"id": 1, "address": "here"}]}', r"servers\[0\].address: 'here' is not host:port"),
        ('{"id": 1, "servers": [{"id": 1, "address": 9001}]}', r"servers\[0\].address: address: missing, or no str"),
        ('{"id": 1, "servers": [{"id": 1, "address": "h:1"}, {"id": 1, "address": "h:2"}]}', "server 1 is there twice"),
        ('{"id": 1, "cluster": 7, "servers": [{"id": 1, "address": "h:1"}]}', "cluster: missing, or no str"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        MessengerConfig.parse(text)
